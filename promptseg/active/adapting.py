"""Three stages from a source site's adapter to this site's (6.2.2 of the thesis, METHODS D).

Fine-tune on the annotated cases, segment the others with what came of it, fine-tune on both. Each
stage leaves its result on disk, so that a run that was killed goes on where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.adapters import Adapter, write_adapter
from promptseg.backbones import load_backbone
from promptseg.backbones.base import Backbone
from promptseg.datasets.cohort import Pair, read_image
from promptseg.errors import FormatError
from promptseg.evaluate.metrics import dice
from promptseg.finetune.card import write_card
from promptseg.finetune.config import FOLDERS, FinetuneConfig, checked
from promptseg.finetune.running import train_adapter
from promptseg.io.atomic import atomic_path
from promptseg.session import Segmenter

STAGES, REPORT = "stages", "adapt.json"
ANNOTATED, PSEUDO, BOTH = "1_annotated", "2_pseudo", "3_both"
STEPS = 300
# Going on from an adapter needs less than beginning: half of the usual rate, and AdamW, whose steps
# shrink with the gradient; those of Muon are as long where little is left to learn.
RATE, OPTIMISER = 3e-4, "adamw"
HELD_EVERY = 5
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """What to adapt to.

    Args:
        images: File by case, of the whole site.
        labels: File by case: of the annotated cases, and of those to measure on.
        annotated: Cases to learn from.
        source: Adapter to go on from; None begins at the base.
        config: How to train, in both stages.
        out: Adapter folder.
    """

    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    annotated: Sequence[str]
    source: Adapter | None
    config: FinetuneConfig
    out: Path

    def split(self) -> tuple[list[str], list[str], list[str]]:
        """Cases to learn from, to measure on, and to pseudo-label.

        Measured are the cases with labels that were not chosen; where there are none, every fifth
        of the annotated ones is set aside.

        Raises:
            FormatError: An annotated case has no image or no labels; lists all such.
        """
        for folder, held in (("image", self.images), ("label file", self.labels)):
            missing = [name for name in self.annotated if name not in held]
            if missing:
                raise FormatError(f"{len(missing)} annotated cases have no {folder}, such as "
                                  f"{', '.join(missing[:3])}")  # fmt: skip
        learned = list(self.annotated)
        measured = [n for n in sorted(self.labels) if n in self.images and n not in learned]
        if not measured and len(learned) >= HELD_EVERY:
            measured = learned[HELD_EVERY - 1 :: HELD_EVERY]
            learned = [name for name in learned if name not in measured]
        rest = [n for n in sorted(self.images) if n not in learned and n not in measured]
        return learned, measured, rest


def config_from(source: Adapter | None, **options: Any) -> FinetuneConfig:
    """The recipe of an adapter with other options, or a new one.

    Args:
        source: Gives organ, labels, rank, targets and all else.
        options: Fields of `FinetuneConfig` that win.

    Raises:
        FormatError: A value cannot be, or there is neither adapter nor organ.
    """
    given: dict[str, Any] = {}
    if source is not None:
        info = source.info
        known = {item.name for item in fields(FinetuneConfig)}
        given = {k: v for k, v in info.settings.items() if k in known and v is not None}
        given |= {
            "organ": info.organ,
            "label_names": dict(info.labels),
            "rate": RATE,
            "optimiser": OPTIMISER,
            "alpha": info.alpha,
            "decoder": info.decoder,
            **({"rank": info.rank} if info.rank else {}),
        }
        layers = [name for name in info.targets if name != "decoder"]
        given |= {"targets": "+".join(layers)} if layers else {"encoder": "frozen"}
    # Where files lie is never taken from an adapter, which may come from elsewhere.
    for name in (*FOLDERS, "cases", "validation_cases", "unlabelled_cases", "minutes", "steps",
                 "three_d"):  # fmt: skip
        given.pop(name, None)
    length = {} if {"steps", "minutes"} & set(options) else {"steps": STEPS}
    given |= {"validation_share": 0.0, "final_slices": 0, "validation_slices": 0}
    return checked({**given, **length, **options}, "adapt")


def adapt(job: Job, progress: Progress | None = None) -> dict[str, Any]:
    """Run what is left of the three stages and write the adapter and the report.

    Args:
        job: What to adapt to.
        progress: Called with stage, done, total.

    Returns:
        The report: Dice before, after the first and after the last stage, by case and label, and
        which of the two was written: the better on the measured cases.

    Raises:
        FormatError: Cases do not match, or the recipe cannot be used; nothing was trained.
        PromptsegError: As `train_adapter`.
    """
    learned, measured, rest = job.split()
    backbone = load_backbone(job.config.backbone, input_size=job.config.input_size)
    pairs = [Pair(name, job.images[name], job.labels[name]) for name in measured]
    scores: dict[str, Any] = {}
    if job.source is not None:
        scores["before"] = _measured(job, backbone, job.source, pairs, progress)
    first = _first_stage(job, backbone, learned, progress)
    scores["annotated"] = _measured(job, backbone, first, pairs, progress)
    pseudo = _second_stage(job, backbone, first, rest, progress)
    made = {"annotated": first}
    if pseudo or (rest and job.config.objective != "supervised"):
        made["both"] = _third_stage(job, backbone, first, learned, rest, pseudo, progress)
        scores["both"] = _measured(job, backbone, made["both"], pairs, progress)
    means = {stage: _mean(found) for stage, found in scores.items()}
    kept = best_stage(means, list(made))
    _finish(job, made[kept])
    report = {
        "format": "promptseg-adapt",
        "version": 1,
        "annotated": learned,
        "measured": measured,
        "pseudo_labelled": sorted(pseudo),
        "nothing_found": [name for name in rest if name not in pseudo],
        "dice": means,
        "written": kept,
        "cases": scores,
    }
    _write(job.out / REPORT, report)
    return report


def best_stage(means: Mapping[str, float | None], made: Sequence[str]) -> str:
    """Of the stages that were trained, the one that measures best; the later one of equals.

    Args:
        means: Dice by stage; None where nothing was measured, which leaves the last stage.
        made: Stages that made an adapter, in order.
    """
    measured = {stage: means[stage] for stage in made if means.get(stage) is not None}
    if not measured:
        return made[-1]
    return max(reversed(list(measured)), key=lambda stage: measured[stage] or 0.0)


def _first_stage(
    job: Job, backbone: Backbone, learned: Sequence[str], progress: Progress | None
) -> Adapter:
    config = replace(job.config, objective="supervised")
    images = [job.images[name] for name in learned]
    labels = [job.labels[name] for name in learned]
    folder = job.out / STAGES / ANNOTATED
    return train_adapter(
        config, images, labels, folder, resume=True, backbone=backbone, start=job.source,
        progress=progress,
    )  # fmt: skip


def _second_stage(
    job: Job, backbone: Backbone, adapter: Adapter, rest: Sequence[str], progress: Progress | None
) -> dict[str, Path]:
    """File of the pseudo-labels by case; cases where nothing was found have none."""
    folder = job.out / STAGES / PSEUDO / adapter.digest[:12]
    found: dict[str, Path] = {}
    with _Answering(job, backbone, adapter) as segmenter:
        for done, name in enumerate(rest):
            path = folder / f"{name}.nii.gz"
            if not path.exists():
                segmenter.segment(read_image(job.images[name])).save(path)
            if bool(np.any(read_image(path).data)):
                found[name] = path
            if progress is not None:
                progress("pseudo-label", done + 1, len(rest))
    return found


def _third_stage(
    job: Job,
    backbone: Backbone,
    first: Adapter,
    learned: Sequence[str],
    rest: Sequence[str],
    pseudo: Mapping[str, Path],
    progress: Progress | None,
) -> Adapter:
    images = [job.images[name] for name in learned]
    labels = [job.labels[name] for name in learned]
    unlabelled = None
    if job.config.objective == "supervised":
        images += [job.images[name] for name in pseudo]
        labels += list(pseudo.values())
    else:
        unlabelled = [job.images[name] for name in rest]
    folder = job.out / STAGES / BOTH
    return train_adapter(
        job.config, images, labels, folder, unlabelled=unlabelled, resume=True, backbone=backbone,
        start=first, progress=progress,
    )  # fmt: skip


class _Answering:
    """A segmenter with one adapter in use; the backbone is free of it afterwards."""

    def __init__(self, job: Job, backbone: Backbone, adapter: Adapter) -> None:
        device, precision = job.config.device, job.config.precision
        self.segmenter = Segmenter(backbone, device, precision)  # type: ignore[arg-type]
        self.adapter = adapter

    def __enter__(self) -> Segmenter:
        self.segmenter.adapters.add(self.adapter)
        self.segmenter.adapters.use(self.adapter.name)
        return self.segmenter

    def __exit__(self, *_: object) -> None:
        self.segmenter.adapters.remove(self.adapter.name)


def _measured(
    job: Job,
    backbone: Backbone,
    adapter: Adapter,
    pairs: Sequence[Pair],
    progress: Progress | None,
) -> dict[str, dict[str, float]]:
    """Dice without a prompt by case and label; what was measured before is read again."""
    path = job.out / STAGES / "measured.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found: dict[str, dict[str, float]] = dict(known.get(adapter.digest, {}))
    wanted = [pair for pair in pairs if pair.name not in found]
    if wanted:
        with _Answering(job, backbone, adapter) as segmenter:
            for done, pair in enumerate(wanted):
                found[pair.name] = _dice_of(segmenter, adapter, pair)
                known[adapter.digest] = found
                _write(path, known)
                if progress is not None:
                    progress("measure", done + 1, len(wanted))
    return {pair.name: found[pair.name] for pair in pairs}


def _dice_of(segmenter: Segmenter, adapter: Adapter, pair: Pair) -> dict[str, float]:
    case = pair.load()
    result = segmenter.segment(case.volume).data
    return {str(n): float(dice(result == n, case.labels == n)) for n in adapter.info.labels}


def _mean(found: Mapping[str, Mapping[str, float]]) -> float | None:
    values = [value for by_label in found.values() for value in by_label.values()]
    return float(np.mean(values)) if values else None


def _finish(job: Job, adapter: Adapter) -> None:
    name = job.out.resolve().name
    written = write_adapter(replace(adapter, name=name, folder=None), job.out)
    write_card(written, job.out)


def _write(path: Path, content: Any) -> None:
    try:
        with atomic_path(path) as temporary:
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error
