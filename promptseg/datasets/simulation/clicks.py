"""Where a simulated user clicks, on a slice or in a volume."""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from promptseg.volume import bounding_slices, pasted

Mask = NDArray[np.bool_]
_TIE = 1e-6
_INSET = 2.5


def corrective_click(
    prediction: Mask, truth: Mask, spacing: Sequence[float], rng: np.random.Generator
) -> tuple[tuple[int, ...], bool] | None:
    """Next click by the rule of the CVPR 2025 interactive 3D segmentation challenge.

    The deepest element (one of them at random where several tie) of the largest error component,
    8-connected on a slice and 26-connected in a volume. The challenge measures depth in voxels;
    here it is in millimetres, or thick slices would make every voxel equally deep.

    Args:
        prediction: (H, W) or (I, J, K) bool.
        truth: Same shape.
        spacing: Millimetres along each axis.
        rng: Breaks ties.

    Returns:
        Index, and True where the target was missed (a foreground click); None without an error.
    """
    error = prediction != truth
    if not error.any():
        return None
    at = deepest(largest_component(error), spacing, rng)
    return at, bool(truth[at])


def largest_component(region: Mask) -> Mask:
    """Largest component with full connectivity; the region itself if it is empty."""
    box = bounding_slices(region)
    if box is None:
        return region
    crop = np.ascontiguousarray(region[box])
    if region.ndim == 2:  # cc3d loses pixels of flat masks with 8 neighbours
        parts = ndimage.label(crop, np.ones((3, 3)))[0]
    else:
        parts = cc3d.connected_components(crop.astype(np.uint8), connectivity=26)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return pasted(parts == largest, box, region.shape)


def deepest(region: Mask, spacing: Sequence[float], rng: np.random.Generator) -> tuple[int, ...]:
    """Index of the element of a non-empty region farthest from its outside, ties at random.

    The border of the image counts as outside.
    """
    box = bounding_slices(region)
    if box is None:
        raise ValueError("the region is empty")
    depth = ndimage.distance_transform_edt(np.pad(region[box], 1), sampling=tuple(spacing))
    candidates = np.argwhere(depth >= depth.max() - _TIE) - 1
    chosen = candidates[int(rng.integers(len(candidates)))]
    return tuple(int(c) + side.start for c, side in zip(chosen, box, strict=True))


def margin_places(target: Mask, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Distinct elements just inside the boundary, one near each extreme of a non-empty target."""
    box = bounding_slices(target)
    if box is None:
        raise ValueError("the target is empty")
    depth = ndimage.distance_transform_edt(np.pad(target[box], 1))
    inner = (depth > 1) & (depth <= _INSET)
    rim = np.argwhere(inner if inner.any() else depth > 0) - 1 + [side.start for side in box]
    return list(dict.fromkeys(map(tuple, extremes(rim, rng).tolist())))


def extremes(cells: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.integer]:
    """(2 D, D) of (N, D) elements: one at either end of every axis, ties at random."""
    ends = [
        np.flatnonzero(cells[:, axis] == end)
        for axis in range(cells.shape[1])
        for end in (cells[:, axis].min(), cells[:, axis].max())
    ]
    return np.stack([cells[tied[int(rng.integers(len(tied)))]] for tied in ends])
