"""A small cohort of discs that `BrightRegion` can answer, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support import discs

from promptseg.datasets.cohort import Case
from promptseg.volume import Segmentation, Volume, write

SPACING = (1.0, 1.0, 3.0)
SHAPE = (40, 48, 7)


def two_discs(shift: int = 0) -> np.ndarray:
    """(I, J, K) labels: a disc of label 1 on slices 1 to 5, and one of label 2 on 2 to 4."""
    first = discs(SHAPE, 2, {n: (14 + shift, 14, 7 - abs(n - 3)) for n in range(1, 6)})
    second = discs(SHAPE, 2, dict.fromkeys(range(2, 5), (26, 34, 6)))
    return np.where(first, 1, np.where(second, 2, 0)).astype(np.uint8)


def case_of(labels: np.ndarray, name: str = "one", image: np.ndarray | None = None) -> Case:
    """Labels with an image that is bright where a label is, on a grid of `SPACING`."""
    bright = labels > 0 if image is None else image
    affine = np.diag([*SPACING, 1.0])
    return Case(name, Volume(bright.astype(np.int16) * 100, affine, "MR"), labels)


def write_cohort(folder: Path, count: int = 3) -> tuple[Path, Path]:
    """Folders with `count` cases."""
    images, labels = folder / "images", folder / "labels"
    for number in range(count):
        case = case_of(two_discs(number), f"p{number}")
        write(case.volume, images / f"{case.name}.nii.gz")
        write(Segmentation(case.labels, case.volume.affine), labels / f"{case.name}.nii.gz")
    return images, labels
