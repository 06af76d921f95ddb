"""`promptseg cine`: every phase of a time series, from prompts on one of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.job import (
    Run,
    add_image_options,
    add_model_options,
    choices_of,
    load_segmenter,
)
from promptseg.commands.outputs import check_outputs, describe, staged
from promptseg.commands.parsing import UsageError, add_json, note, print_json
from promptseg.commands.progress import Bars
from promptseg.commands.prompt_options import add_prompts, build_prompts

if TYPE_CHECKING:
    from promptseg.session.timeseries import Phase
    from promptseg.volume import Segmentation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        type=Path,
        help="4D NIfTI, a folder or zip file of a multi-phase DICOM series, or one image a phase",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, required=True,
        help="labels of all phases, 4D (.nii or .nii.gz)",
    )  # fmt: skip
    parser.add_argument(
        "--phase", type=int, default=0, metavar="N", help="which phase the prompts are on (from 0)"
    )
    parser.add_argument("--table", metavar="FILE", type=Path, help="volume over time as CSV")
    add_prompts(parser)
    add_model_options(parser)
    add_image_options(parser)
    add_json(parser)
    parser.set_defaults(uncertainty=None, post=None)


def run(arguments: argparse.Namespace) -> int:
    """Segment every phase; print the volumes and the ejection fraction."""
    from promptseg.report.audit import check_log, record
    from promptseg.session.timeseries import read_phases, save_phases, volume_table, write_table

    paths = {"labels": arguments.output, "table": arguments.table}
    paths = {role: path for role, path in paths.items() if path is not None}
    check_outputs(paths)
    check_log()
    if not arguments.output.name.lower().endswith((".nii", ".nii.gz")):
        raise UsageError(f"{arguments.output}: several phases go into .nii or .nii.gz")
    if not arguments.given and not arguments.adapter:
        raise UsageError("no prompt: give --box, --point, --scribble, --text or --prompts")
    phases = read_phases(arguments.images, arguments.series)
    done, results = _segmented(arguments, phases)
    rows = volume_table(phases, results)
    with staged(paths) as temporary:
        save_phases(results, temporary["labels"])
        if "table" in temporary:
            write_table(rows, temporary["table"])
        manifest = done.manifest(describe(paths, temporary))
    record({**manifest, "phases": len(phases), "prompted_phase": arguments.phase, "volumes": rows})
    _tell(arguments, phases, results, rows)
    return 0


def _segmented(
    arguments: argparse.Namespace, phases: Sequence[Phase]
) -> tuple[Run, list[Segmentation]]:
    """The run on the prompted phase, and labels for each phase."""
    from promptseg.session.timeseries import segment_phases

    if not 0 <= arguments.phase < len(phases):
        raise UsageError(f"--phase is {arguments.phase}: there are 0 to {len(phases) - 1}")
    volume = phases[arguments.phase].volume
    for said in volume.notes:
        note(said)
    prompts = build_prompts(arguments.given or [], arguments.frame, volume)
    choices = choices_of(arguments)
    segmenter = load_segmenter(choices)
    started = time.perf_counter()
    with Bars() as bars:
        results = segment_phases(
            segmenter,
            phases,
            prompts,
            arguments.phase,
            axis=choices.axis,
            propagate=choices.propagate,
            window=choices.window,
            consistency=choices.consistency,
            progress=bars,
        )
    timings = {"total": time.perf_counter() - started}
    done = Run(segmenter, volume, prompts, results[arguments.phase], choices, timings)
    return done, results


def _tell(
    arguments: argparse.Namespace,
    phases: Sequence[Phase],
    results: Sequence[Segmentation],
    rows: list[dict[str, Any]],
) -> None:
    from promptseg.session.timeseries import ejection

    targets = results[0].targets
    given_off = {target: ejection(results, target) for target in targets}
    if arguments.json:
        print_json({"phases": len(phases), "volumes": rows, "ejection": given_off})
        return
    for number, (phase, result) in enumerate(zip(phases, results, strict=True)):
        when = "" if phase.time_ms is None else f", {phase.time_ms:.0f} ms"
        volumes = "; ".join(f"target {t} {result.volume_ml(t):.1f} ml" for t in targets)
        print(f"phase {number}{when}: {volumes}")
    for target, one in given_off.items():
        if one["ejection_fraction"] is None:
            continue
        print(
            f"target {target}: largest {one['end_diastolic_ml']:.1f} ml (phase "
            f"{one['end_diastolic_phase']}), smallest {one['end_systolic_ml']:.1f} ml (phase "
            f"{one['end_systolic_phase']}), ejection fraction {one['ejection_fraction']:.0%}"
        )
    print(f"{arguments.output} written")
