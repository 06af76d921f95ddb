"""The main job as the commands run it: load the model, segment, say under what licence."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptseg.commands.parsing import UsageError, note
from promptseg.commands.progress import Bars
from promptseg.errors import WeightsError

if TYPE_CHECKING:
    from promptseg.inference.device import Precision
    from promptseg.prompts.types import PromptSet
    from promptseg.session import Segmenter
    from promptseg.volume import Segmentation, Volume
    from promptseg.volume.grey_levels import Modality

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CONSISTENCY = ("auto", "none", "clean")
AXES = ("auto", "0", "1", "2", "axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Choices:
    """How to segment: what the options of the command line say.

    Args:
        model: Registry name, file or folder.
        adapters: Names or folders.
        axis: One of `AXES`.
        window: Name, `WIDTH,LEVEL` or `auto`.
        propagate: Carry the mask from the prompted slices to the rest.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: One of `PRECISIONS`.
        uncertainty: Compute the uncertainty too.
        sha256: Digest that the model's weights must have, None for any.
        text_model: Folder or hub name of an image-text model for words that no adapter knows.
        consistency: One of `CONSISTENCY`.
        corrector: `auto`, a file or None: what takes up corrective clicks before the graph cut.
        stop: As `--stop` gives it, or limits by name.
        corrector_sha256: Digest that its file must have, None for any.
        coarse: `auto` or None: what looks at whole targets in 3D.
        coarse_sha256: Likewise.
        step: `auto` or None: what goes from slice to slice.
        step_sha256: Likewise.
        ranking: `auto` or None: what says which mask a lone click or a box means.
        ranking_sha256: Likewise.
        postprocess: Steps of `promptseg.refine.postprocessing`, in order.
    """

    model: str = "default"
    adapters: tuple[str, ...] = ()
    axis: str = "auto"
    window: str = "auto"
    propagate: bool = True
    device: str = "auto"
    precision: Precision = "auto"
    uncertainty: bool = False
    sha256: str | None = None
    text_model: str | None = None
    consistency: str = "auto"
    corrector: str | None = None
    stop: Any = "auto"
    corrector_sha256: str | None = None
    coarse: str | None = "auto"
    coarse_sha256: str | None = None
    step: str | None = "auto"
    step_sha256: str | None = None
    ranking: str | None = "auto"
    ranking_sha256: str | None = None
    postprocess: tuple[str, ...] = ()
    modality: Modality | None = None


@dataclass(frozen=True)
class Run:
    """One finished run.

    Args:
        segmenter: What ran.
        volume: The image.
        prompts: As the user gave them.
        result: The labels.
        choices: How it was asked for.
        timings: Seconds spent loading the model, and in total.
    """

    segmenter: Segmenter
    volume: Volume
    prompts: PromptSet
    result: Segmentation
    choices: Choices
    timings: Mapping[str, float]

    def manifest(self, outputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The run manifest, with the files written by role."""
        from promptseg.adapters import adapter_digest
        from promptseg.propagation.stopping import stop_criteria
        from promptseg.report import run_manifest

        report = self.result.report
        return run_manifest(
            self.segmenter,
            self.volume,
            self.prompts,
            self.result,
            settings={
                "axis": report["axis"],
                "window": report["window"]["name"],
                "propagate": self.choices.propagate,
                "consistency": self.choices.consistency,
                **({"stop": stop} if (stop := stop_criteria(self.choices.stop).to_dict()) else {}),
                **({"text_model": self.choices.text_model} if self.choices.text_model else {}),
                **({"corrector": self.choices.corrector} if self.choices.corrector else {}),
                "postprocess": list(self.choices.postprocess),
                **({"modality": self.choices.modality} if self.choices.modality else {}),
            },
            timings=self.timings,
            adapters={name: adapter_digest(name) for name in self.choices.adapters},
            outputs=outputs,
        )

    def taken_for(self) -> list[str]:
        """What the image was taken for, and by what it was segmented: a line each."""
        from promptseg.volume.intensity import Window
        from promptseg.volume.orientation import axis_codes

        levels, report = self.volume.levels, self.result.report
        modality = str(levels)
        if levels.belief == "told":
            by = "--modality" if self.choices.modality else "the file"
            modality = f"{levels.modality} (sure, by {by})"
        elif levels.belief == "unsure":
            modality += "; say --modality"
        window = Window(**report["window"])
        sides = " x ".join(f"{side:.3g}" for side in self.volume.spacing)
        codes = axis_codes(self.volume.affine)
        spec = self.segmenter.backbone.spec
        return [
            f"image: {modality}, window {window}, stored {codes}, spacing {sides} mm",
            f"model: {spec.name}, {_adapters(report)}, slices along axis {report['axis']}",
        ]

    def summary(self) -> list[str]:
        """One line a target for a person, and what became of the words."""
        from promptseg.volume import shown_volume

        found = {target: int(self.result.mask(target).sum()) for target in self.result.targets}
        return [
            f"target {target}: {voxels} voxels, {shown_volume(self.result.volume_ml(target))}, "
            f"predicted quality {self.result.score.get(target, float('nan')):.2f}"
            for target, voxels in found.items()
        ] + [_told(told) for told in self.result.report.get("text", ())]


def _adapters(report: Mapping[str, Any]) -> str:
    """Which adapters answered."""
    told = [one["adapter"] for one in report.get("text", ()) if one.get("adapter")]
    used = report.get("adapter")
    names = [*report.get("adapters", told), *([used["name"]] if used else [])]
    return f"adapter {', '.join(dict.fromkeys(names))}" if names else "no adapter"


def _told(told: Mapping[str, Any]) -> str:
    """What became of the words of one target."""
    if not told["found"]:
        return f"target {told['target']}: {told['reason']}"
    sure = "" if told["likeness"] == 1 else f", likeness {told['likeness']:.2f}"
    note = f"; {told['note']}" if told["note"] else ""
    by = f"the adapter {told['adapter']}"
    if told["adapter"] is None:
        by = f"the image-text model {told['text_model']}"
    return (
        f"target {told['target']}: {told['words']!r} taken as {told['concept']}{sure}, by "
        f"{by}{note}"
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Declare which model runs where."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", default="default", metavar="NAME|PATH", help="see `promptseg weights list`"
    )
    group.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="LoRA adapter for the model; with no prompt it finds its organ itself",
    )
    group.add_argument(
        "--corrector",
        metavar="auto|PATH",
        help="network that takes up clicks which correct in 3D, before the graph cut",
    )
    group.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="where to compute")
    group.add_argument("--precision", choices=PRECISIONS, default="auto")


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Declare how the image is cut and shown to the model."""
    group = parser.add_argument_group("image")
    group.add_argument(
        "--series",
        metavar="N",
        help="which series of a DICOM folder, by its number in the list that is printed without it",
    )
    group.add_argument("--axis", choices=AXES, default="auto", help="axis to slice along")
    group.add_argument(
        "--no-propagate", action="store_true", help="segment the prompted slices only"
    )
    group.add_argument(
        "--consistency", choices=CONSISTENCY, default="auto",
        help="clean: drop stray parts, fill small holes, smooth across thin slices; none; auto: "
        "clean, the trained slice step and the coarse 3D view, what measures best (default)",
    )  # fmt: skip
    group.add_argument(
        "--modality",
        type=_modality,
        metavar="CT|MR|other",
        help="what the image is (default: as the file or its grey values say)",
    )
    group.add_argument(
        "--stop",
        default="auto",
        metavar="auto|never|NAME=LIMIT,...",
        help="when a propagation stops, such as growth=3,presence=0.4; "
        "names in docs/cli.md (default: what measures best)",
    )
    group.add_argument(
        "--window",
        default="auto",
        metavar="NAME|WIDTH,LEVEL",
        help="CT window such as lung or 400,40, or mr (default: by modality)",
    )


def add_postprocessing(parser: argparse.ArgumentParser) -> None:
    """Declare what is done to the masks afterwards."""
    parser.add_argument_group("post-processing").add_argument(
        "--post",
        action="append",
        metavar="STEP",
        help="NAME[:TARGETS][,option=value]..., in order; may be repeated: largest, keep:1,n=2, "
        "fill_holes, smooth,mm=1, margin:1,mm=5,to=2,name=CTV,not_above=250,not_into=3, "
        "crop_to_body, union:1+2,to=3, intersect, subtract, xor, interpolate",
    )


def _modality(text: str) -> str:
    known = {"ct": "CT", "mr": "MR", "mri": "MR", "other": "other"}
    if text.strip().lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is none of CT, MR, other")
    return known[text.strip().lower()]


def model_choices(arguments: argparse.Namespace) -> Choices:
    """Which model runs where, for commands that run one with at most one adapter.

    Raises:
        UsageError: Several adapters are given.
    """
    if len(arguments.adapter) > 1:
        raise UsageError(f"--adapter is given {len(arguments.adapter)} times: give one")
    return Choices(
        model=arguments.model,
        adapters=tuple(arguments.adapter),
        device=arguments.device,
        precision=arguments.precision,
        text_model=getattr(arguments, "text_model", None),
        corrector=arguments.corrector,
    )


def choices_of(arguments: argparse.Namespace) -> Choices:
    """The options of both groups."""
    return Choices(
        postprocess=tuple(arguments.post or ()),
        model=arguments.model,
        adapters=tuple(arguments.adapter),
        axis=arguments.axis,
        window=arguments.window,
        propagate=not arguments.no_propagate,
        device=arguments.device,
        precision=arguments.precision,
        uncertainty=arguments.uncertainty is not None,
        text_model=arguments.text_model,
        consistency=arguments.consistency,
        stop=arguments.stop,
        corrector=arguments.corrector,
        modality=arguments.modality,
    )


def run_job(volume: Volume, prompts: PromptSet, choices: Choices) -> Run:
    """Load the model and segment, with progress bars and the licence on stderr.

    Args:
        volume: The image.
        prompts: Checked against the volume.
        choices: How.

    Raises:
        PromptsegError: The model, the adapter, the window or the prompts cannot be used.
    """
    from promptseg.prompts.types import Text
    from promptseg.propagation.stopping import stop_criteria
    from promptseg.refine.postprocessing import check_steps, postprocess
    from promptseg.volume.intensity import choose_window

    steps = check_steps(choices.postprocess)
    stop_criteria(choices.stop)
    if choices.window != "auto":
        choose_window(volume, choices.window)
    started = time.perf_counter()
    adapters = choices.adapters
    if len(adapters) > 1 and any(not isinstance(prompt, Text) for prompt in prompts):
        raise UsageError(f"--adapter is given {len(adapters)} times: give one, or words, or none "
                         "of points, boxes and scribbles")  # fmt: skip
    segmenter = load_segmenter(choices)
    loaded = time.perf_counter()
    with Bars() as bars:
        result = segmenter.segment(
            volume,
            prompts,
            axis=choices.axis,
            propagate=choices.propagate,
            window=choices.window,
            uncertainty=choices.uncertainty,
            progress=bars,
            consistency=choices.consistency,
            stop=choices.stop,
        )
    for line in result.report["notes"]:
        note(line)
    result = postprocess(result, steps, volume)
    for told in result.report.get("text", ()):
        if not told["found"]:
            note(f"warning: {_told(told)}")
    timings = {"load_model": loaded - started, "total": time.perf_counter() - started}
    return Run(segmenter, volume, prompts, result, choices, timings)


def load_segmenter(choices: Choices) -> Segmenter:
    """The chosen model with its adapters; says on stderr under what licence.

    Raises:
        WeightsError: It is not the one whose digest is wanted, or cannot be loaded.
    """
    _hush_transformers()
    from promptseg.session import Segmenter

    segmenter = Segmenter.from_pretrained(
        choices.model,
        adapter=choices.adapters,
        device=choices.device,
        precision=choices.precision,
        text_model=choices.text_model,
        corrector=choices.corrector,
        coarse=choices.coarse,
        step=choices.step,
        ranking=choices.ranking,
    )
    spec = segmenter.backbone.spec
    if choices.sha256 is not None and spec.sha256 != choices.sha256:
        raise WeightsError(
            f"model {spec.name} has sha256 {spec.sha256}, the manifest wants {choices.sha256}"
        )
    _check_others(segmenter, choices)
    note(
        f"model {spec.name} on {segmenter.device} in {segmenter.precision}; licence: {spec.licence}"
    )
    return segmenter


def _check_others(segmenter: Segmenter, choices: Choices) -> None:
    """Raise WeightsError where a network beside the model is missing, or not the manifest's."""
    for name, wanted in (
        ("corrector", choices.corrector_sha256),
        ("coarse", choices.coarse_sha256),
        ("step", choices.step_sha256),
        ("ranking", choices.ranking_sha256),
    ):
        held = getattr(segmenter.runtime, name)
        if None not in (held, wanted) and held.sha256 != wanted:
            raise WeightsError(
                f"{name} {getattr(choices, name)} has sha256 {held.sha256}, the manifest wants "
                f"{wanted}"
            )


def _hush_transformers() -> None:
    """Keep the library's own bars and remarks off stderr."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
