"""`promptseg segment`: prompts on an image to a mask file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.job import (
    Run,
    add_image_options,
    add_model_options,
    add_postprocessing,
    choices_of,
    run_job,
)
from promptseg.commands.outputs import (
    check_mask_format,
    check_mask_shape,
    check_outputs,
    describe,
    place,
    staged,
)
from promptseg.commands.pacs_output import to_pacs
from promptseg.commands.parsing import UsageError, add_json, note, print_json
from promptseg.commands.prompt_options import add_prompts, build_prompts
from promptseg.commands.reports import Reports, add_reports

if TYPE_CHECKING:
    from promptseg.volume import Volume


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "image",
        metavar="IMAGE",
        nargs="?",
        type=place,
        help="3D CT or MRI: a file, a folder or zip file of DICOM, or a series in a PACS",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=place, help="mask to write: a file, or a PACS"
    )
    parser.add_argument(
        "--sample",
        action="store_true",
        help="no image: run on a synthetic abdominal CT; -o is then a folder",
    )
    add_prompts(parser)
    add_model_options(parser)
    add_image_options(parser)
    add_postprocessing(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format",
        metavar="NAME",
        help="nifti, nrrd, seg.nrrd, metaimage, rtstruct, seg or labelmap (default: by the suffix)",
    )
    group.add_argument(
        "--name",
        metavar="TARGET=NAME",
        action="append",
        default=[],
        help="name of a target in RTSTRUCT, DICOM-SEG, .seg.nrrd and reports; may be repeated",
    )
    group.add_argument("--uncertainty", metavar="FILE", type=Path, help="write the uncertainty")
    add_reports(group)
    add_json(group)


def run(arguments: argparse.Namespace) -> int:
    """Segment one image, or the sample."""
    if arguments.sample:
        return _sample(arguments)
    if arguments.image is None or arguments.output is None:
        raise UsageError("give an IMAGE and -o OUT, or --sample (see promptseg segment --help)")
    _names(arguments.name)
    if isinstance(arguments.output, str):
        return to_pacs(arguments, run)
    reports = Reports.of(arguments)
    paths = {**_paths(arguments), **reports.paths}
    check_outputs(paths, arguments.image)
    check_mask_format(arguments.output, arguments.format, _shares(arguments.post or ()))
    if arguments.uncertainty is not None:
        check_mask_format(arguments.uncertainty, None)
    done = _segment(arguments)
    manifest = _write(done, paths, arguments, reports)
    if arguments.json:
        print_json(manifest)
    else:
        seconds = done.timings["total"]
        lines = [*done.taken_for(), *done.summary()]
        print("\n".join([*lines, f"{arguments.output} written in {seconds:.1f} s"]))
    return 0


def _shares(post: Sequence[str]) -> bool:
    """True if targets will share voxels after these steps, which are checked."""
    if not post:
        return False
    from promptseg.refine.postprocessing import check_steps, will_overlap

    return will_overlap(check_steps(post))


def _paths(arguments: argparse.Namespace) -> dict[str, Path]:
    wanted = {"mask": arguments.output, "uncertainty": arguments.uncertainty}
    return {role: path for role, path in wanted.items() if path is not None}


def _segment(arguments: argparse.Namespace) -> Run:
    from promptseg.volume import read

    if not arguments.given and not arguments.adapter:
        raise UsageError("no prompt: give --box, --point, --scribble, --text or --prompts")
    started = time.perf_counter()
    volume: Volume = read(arguments.image, series=arguments.series, modality=arguments.modality)
    seconds = time.perf_counter() - started
    for said in volume.notes:
        note(said)
    _check_format(volume, arguments)
    check_mask_shape(arguments.output, arguments.format, volume.shape)
    prompts = build_prompts(arguments.given or [], arguments.frame, volume)
    done = run_job(volume, prompts, choices_of(arguments))
    total = seconds + done.timings["total"]
    return replace(done, timings={"read": seconds, **done.timings, "total": total})


def _check_format(volume: Volume, arguments: argparse.Namespace) -> None:
    """Refuse, before any work, a format that refers to what the image lacks."""
    from promptseg.io import Image, check_writable

    grid = Image(volume.data, volume.affine, header=volume.header)
    check_writable(grid, arguments.output, arguments.format)


def _names(texts: Sequence[str]) -> dict[int, str]:
    names: dict[int, str] = {}
    for text in texts:
        target, found, words = text.partition("=")
        if not found or not target.strip().isdecimal() or not words.strip():
            raise UsageError(f"--name is {text!r}: give TARGET=NAME, such as 1=Liver")
        names[int(target)] = words.strip()
    return names


def _write(
    done: Run, paths: dict[str, Path], arguments: argparse.Namespace, reports: Reports
) -> dict[str, Any]:
    names = _names(arguments.name)
    with staged(paths) as temporary:
        done.result.save(temporary["mask"], arguments.format, names)
        labels = {**done.result.labels, **names}
        done = replace(done, result=replace(done.result, labels=labels))
        if "uncertainty" in paths:
            _write_uncertainty(done, temporary["uncertainty"])
        manifest = reports.write(done, done.manifest(describe(paths, temporary)), temporary)
    reports.record(manifest)
    return manifest


def _write_uncertainty(done: Run, path: Path) -> None:
    from promptseg.volume import write

    if done.result.uncertainty is None:
        raise UsageError("this run gives no uncertainty: leave out --uncertainty")
    write(replace(done.volume, data=done.result.uncertainty), path)


def _sample(arguments: argparse.Namespace) -> int:
    from promptseg.commands.sample import run_sample

    only = {"IMAGE": arguments.image, "prompts": arguments.given, "--format": arguments.format}
    only |= {"--uncertainty": arguments.uncertainty, "--report": arguments.report}
    clash = [name for name, value in only.items() if value is not None]
    if clash:
        raise UsageError(f"--sample makes its own image and prompt: leave out {', '.join(clash)}")
    return run_sample(arguments)
