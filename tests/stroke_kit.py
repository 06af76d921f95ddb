"""Discs of which only strokes are known, and discs without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from adapter_kit import labelled_disc

from promptseg.volume import Volume, write

IGNORE = 4


def strokes_on(labels: Volume, label: int = 1) -> Volume:
    """Two rows through each disc with `label`, lines around it as background, else 4."""
    known = np.full(labels.shape, IGNORE, np.uint8)
    for side in (slice(0, 4), slice(-4, None)):
        known[side], known[:, side] = 0, 0
    for index in range(labels.shape[2]):
        inside = labels.data[..., index] > 0
        if inside.any():
            low, high = np.argwhere(inside).min(0) - 3, np.argwhere(inside).max(0) + 3
            for row, column in (low, high):
                known[row, :, index], known[:, column, index] = 0, 0
            row = int(np.argmax(inside.sum(1)))
            known[row, np.flatnonzero(inside[row])[1:-1], index] = label
            known[row + 1, np.flatnonzero(inside[row + 1])[1:-1], index] = label
    return Volume(known, labels.affine)


def stroke_cohort(count: int = 3) -> tuple[list[Volume], list[Volume], list[Volume]]:
    """Images, strokes and whole labels."""
    pairs = [labelled_disc(seed) for seed in range(count)]
    strokes = [strokes_on(labels) for _, labels in pairs]
    return [image for image, _ in pairs], strokes, [labels for _, labels in pairs]


def further(count: int = 2) -> list[Volume]:
    """Images of other discs."""
    return [labelled_disc(seed)[0] for seed in range(20, 20 + count)]


def write_strokes(folder: Path, count: int = 3) -> tuple[Path, Path, Path]:
    """Folders of images, strokes and labels."""
    kinds = dict(zip(("images", "scribbles", "labels"), stroke_cohort(count), strict=True))
    for kind, volumes in kinds.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number, volume in enumerate(volumes):
            write(volume, folder / kind / f"case{number}.nii.gz")
    return folder / "images", folder / "scribbles", folder / "labels"
