"""`promptseg segment --sample`: the main job on a synthetic CT, with a known answer."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.job import Run, choices_of, run_job
from promptseg.commands.outputs import check_outputs, describe, staged
from promptseg.commands.parsing import print_json

if TYPE_CHECKING:
    import numpy as np

    from promptseg.prompts.types import Box
    from promptseg.volume import Volume

ORGAN = "left kidney"
FOLDER = Path("promptseg-sample")
FILES = {
    "image": "image.nii.gz",
    "mask": "mask.nii.gz",
    "known": "known.nii.gz",
    "picture": "picture.png",
    "report": "report.json",
}
_MARGIN = 2


def run_sample(arguments: argparse.Namespace) -> int:
    """Make the CT, segment one organ from one box on its middle slice, compare and draw."""
    from promptseg.datasets.phantom import abdomen_phantom
    from promptseg.evaluate.metrics import dice
    from promptseg.prompts.types import PromptSet

    folder = arguments.output or FOLDER
    paths = {role: folder / name for role, name in FILES.items()}
    check_outputs(paths)
    volume, labels, names = abdomen_phantom()
    known = labels == next(label for label, name in names.items() if name == ORGAN)
    box = middle_box(known)
    volume = replace(volume, source=paths["image"])
    done = run_job(volume, PromptSet([box]), choices_of(arguments))
    done = replace(done, result=replace(done.result, labels={1: ORGAN}))
    agreement = dice(done.result.mask(1), known)
    manifest = _write(done, known, paths)
    if arguments.json:
        print_json({**manifest, "dice": agreement})
    else:
        _show(done, box, agreement, paths)
    return 0


def middle_box(mask: np.ndarray) -> Box:
    """2D box around a mask on the middle of its slices along the last axis."""
    import numpy as np

    from promptseg.prompts.types import Box

    slices = np.flatnonzero(mask.any(axis=(0, 1)))
    middle = int(slices[len(slices) // 2])
    i, j = np.nonzero(mask[:, :, middle])
    low = (max(0, int(i.min()) - _MARGIN), max(0, int(j.min()) - _MARGIN), middle)
    side_i, side_j = mask.shape[:2]
    high = (
        min(side_i, int(i.max()) + 1 + _MARGIN),
        min(side_j, int(j.max()) + 1 + _MARGIN),
        middle + 1,
    )
    return Box(low, high)


def _write(done: Run, known: np.ndarray, paths: dict[str, Path]) -> dict[str, Any]:
    from promptseg.report import save_manifest
    from promptseg.report.visualization.pictures import overlay_figure
    from promptseg.volume import Segmentation, write

    volume: Volume = done.volume
    with staged(paths) as temporary:
        write(volume, temporary["image"])
        write(Segmentation.from_volume(volume, known), temporary["known"])
        done.result.save(temporary["mask"])
        overlay_figure(
            volume,
            done.result,
            temporary["picture"],
            reference=known,
            prompts=done.prompts,
            title=f"{ORGAN} of a synthetic CT, from one box",
        )
        manifest = done.manifest(describe(paths, temporary))
        save_manifest(manifest, temporary["report"])
    return manifest


def _show(done: Run, box: Box, dice: float, paths: dict[str, Path]) -> None:
    corners = ",".join(str(value) for value in (*box.lo, *box.hi))
    print(f"{ORGAN} of a synthetic abdominal CT, from one box: --box {corners}")
    print("\n".join(done.summary()))
    print(f"Dice against the known mask: {dice:.3f}")
    for role, path in paths.items():
        print(f"{role + ':':<9}{path}")
