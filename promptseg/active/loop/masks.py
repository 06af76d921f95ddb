"""Corrected masks from whatever tool they were made with, on the grid of their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from promptseg.datasets.cohort import read_labels, whole_labels
from promptseg.errors import FormatError
from promptseg.orientation import Orientation, axis_codes
from promptseg.volume import Segmentation, Volume

# Headers keep directions in single precision, and tools round origins to a thousandth.
TOLERANCE_MM = 1e-2


def accepted_labels(mask: Path | Segmentation, volume: Volume, name: str) -> np.ndarray:
    """(I, J, K) labels on the image's grid.

    A mask whose axes were put in another order, as some tools do on saving, is put back; one on
    another grid is refused, since resampling would change what was corrected.

    Args:
        mask: File, or labels in memory.
        volume: The image.
        name: Of the case.

    Raises:
        FormatError: It cannot be read or lies on another grid.
        VolumeError: Its values are no labels.
    """
    held = read_labels(mask) if isinstance(mask, Path) else mask
    known = Volume(whole_labels(held.data, name), held.affine)
    if not _same_grid(known, volume):
        known = Orientation.of(known.affine, axis_codes(volume.affine)).volume(known)
    if not _same_grid(known, volume):
        raise FormatError(
            f"the mask of {name} lies on another grid: {known.shape} voxels, the image has "
            f"{volume.shape}, or its place in the world differs; save it on the image's own grid"
        )
    kind = np.uint8 if int(known.data.max(initial=0)) < 256 else np.uint16
    return np.ascontiguousarray(known.data).astype(kind)


def _same_grid(one: Volume, other: Volume) -> bool:
    return one.shape == other.shape and bool(
        np.allclose(one.affine, other.affine, atol=TOLERANCE_MM)
    )
