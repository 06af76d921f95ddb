"""Holes and surfaces: filling cavities, smoothing at constant volume."""

from __future__ import annotations

import cc3d
import numpy as np
from scipy import ndimage

from promptseg.refine.postprocessing.steps import Grid, Made
from promptseg.volume import bounding_slices, pasted
from promptseg.volume.slicing import resolve_axis

_REACH = 4.0
"""Standard deviations that a Gaussian is carried to."""


def fill_holes(
    masks: list[np.ndarray], grid: Grid, axis: str | None = None, max_ml: float | None = None
) -> Made:
    """Cavities that the mask encloses become part of it.

    Args:
        masks: One (I, J, K) bool mask.
        grid: Where it is.
        axis: Holes of each slice along this axis; None takes cavities closed in 3D.
        max_ml: Larger ones stay; with `axis` a hole is counted through its slices.
    """
    where = bounding_slices(masks[0])
    if where is None:
        return masks[0], []
    mask = masks[0][where]
    if axis is None:
        holes = ndimage.binary_fill_holes(mask) & ~mask
    else:
        holes = filled_slices(mask, resolve_axis(axis, grid.affine)) & ~mask
    parts, number = cc3d.connected_components(holes, connectivity=6, return_N=True)
    sizes = np.bincount(parts.ravel(), minlength=number + 1) * grid.voxel_ml
    small = np.ones(number + 1, bool) if max_ml is None else sizes <= max_ml * (1 + 1e-9)
    small[0] = False
    filled_ml, count = float(sizes[small].sum()), int(small.sum())
    remarks = [f"{count} holes filled, {filled_ml:.3g} ml"] if count else []
    if left := number - count:
        remarks.append(f"{left} larger holes left")
    made = masks[0].copy()
    made[where] |= small[parts]
    return made, remarks


def filled_slices(mask: np.ndarray, axis: int) -> np.ndarray:
    """(I, J, K) bool with the holes of every slice along an axis filled."""
    planes = np.moveaxis(mask, axis, 0)
    return np.moveaxis(np.stack([ndimage.binary_fill_holes(p) for p in planes]), 0, axis)


def smooth(masks: list[np.ndarray], grid: Grid, mm: float = 1.0) -> Made:
    """A smoother surface around the same volume.

    The mask is blurred with a Gaussian whose width is given in millimetres, and cut at the level
    that keeps its number of voxels, so that nothing shrinks.

    Args:
        masks: One (I, J, K) bool mask.
        grid: Where it is.
        mm: Standard deviation of the Gaussian.
    """
    mask = masks[0]
    sigma = [mm / side for side in grid.spacing]
    room = [int(np.ceil(_REACH * s)) + 1 for s in sigma]
    where = around(mask, room)
    if where is None:
        return mask, []
    # Beyond the edge of the image the mask goes on as it ends, so that it is not rounded there.
    blurred = ndimage.gaussian_filter(
        mask[where].astype(np.float32), sigma, mode="nearest", truncate=_REACH
    )
    wanted = int(mask.sum())
    level = np.partition(blurred.ravel(), -wanted)[-wanted]
    choices = [blurred > level, blurred >= level]
    nearest = min(choices, key=lambda one: abs(int(one.sum()) - wanted))
    return pasted(nearest, where, mask.shape), []


def around(mask: np.ndarray, room: list[int]) -> tuple[slice, ...] | None:
    """Slices around a mask with some voxels of room on each side; None for an empty mask."""
    where = bounding_slices(mask)
    if where is None:
        return None
    return tuple(
        slice(max(0, part.start - more), min(side, part.stop + more))
        for part, more, side in zip(where, room, mask.shape, strict=True)
    )
