"""Filling the slices between annotated ones, by shape-based interpolation.

Raya and Udupa, Shape-based interpolation of multidimensional objects, IEEE Trans. Med. Imaging
1990: signed distances within the slices are averaged by how near each slice is.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage

from promptseg.errors import PromptError
from promptseg.refine.postprocessing.steps import Grid, Made
from promptseg.volume.slicing import in_plane, resolve_axis


def interpolate(masks: list[np.ndarray], grid: Grid, axis: str | None = None) -> Made:
    """The mask with the empty slices between its slices filled in.

    Two neighbouring outlines that share no pixel are first laid over each other by their centres,
    so that an oblique vessel does not vanish between them.

    Args:
        masks: One (I, J, K) bool mask, empty where nobody drew.
        grid: Where it is.
        axis: Along which the slices lie; None takes the axis that has gaps, of several the one
            that was segmented along.

    Raises:
        PromptError: No axis is given and several have gaps.
    """
    along = _axis(masks[0], grid, axis)
    if along is None:
        return masks[0], []
    planes = np.moveaxis(masks[0], along, 0).copy()
    rows, cols = in_plane(along)
    spacing = grid.spacing[rows], grid.spacing[cols]
    drawn = np.flatnonzero(planes.any((1, 2)))
    filled = 0
    for low, high in itertools.pairwise(drawn):
        for index in range(low + 1, high):
            share = (index - low) / (high - low)
            planes[index] = between(planes[low], planes[high], share, spacing)
            filled += 1
    return np.moveaxis(planes, 0, along), [f"{filled} slices between {len(drawn)} filled in"]


def between(
    one: np.ndarray, other: np.ndarray, share: float, spacing: tuple[float, float]
) -> np.ndarray:
    """(rows, columns) bool outline between two others.

    Args:
        one: Outline at share 0.
        other: Outline at share 1.
        share: In (0, 1).
        spacing: Millimetres of a row and of a column.
    """
    here, there = np.zeros(2), np.zeros(2)
    if not (one & other).any():
        centres = [np.array(ndimage.center_of_mass(mask)) for mask in (one, other)]
        here = (centres[1] - centres[0]) * share
        there = here - (centres[1] - centres[0])
    first = _moved(signed_distance(one, spacing), here)
    second = _moved(signed_distance(other, spacing), there)
    return (1 - share) * first + share * second < 0


def signed_distance(mask: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Millimetres to the outline of a mask, negative inside; the outline runs between voxels."""
    inside = ndimage.distance_transform_edt(mask, spacing)
    outside = ndimage.distance_transform_edt(~mask, spacing)
    half = min(spacing) / 2
    return np.where(mask, half - inside, outside - half)


def _moved(distance: np.ndarray, by: np.ndarray) -> np.ndarray:
    return ndimage.shift(distance, by, order=1, mode="nearest") if by.any() else distance


def _axis(mask: np.ndarray, grid: Grid, axis: str | None) -> int | None:
    """The axis to fill along, None where nothing is to be filled."""
    gaps = [along for along in range(3) if _gap(mask, along)]
    if axis is not None:
        chosen = resolve_axis(axis, grid.affine)
        return chosen if chosen in gaps else None
    if len(gaps) < 2:
        return gaps[0] if gaps else None
    if grid.axis in gaps:
        return grid.axis
    raise PromptError(f"slices are missing along axes {', '.join(map(str, gaps))}: give axis=N")


def _gap(mask: np.ndarray, axis: int) -> bool:
    drawn = np.flatnonzero(mask.any(in_plane(axis)))
    return len(drawn) > 1 and int(np.ptp(drawn)) + 1 > len(drawn)
