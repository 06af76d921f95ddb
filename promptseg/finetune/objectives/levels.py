"""Signed distance maps of labels (equation 5-1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Field = NDArray[np.float32]


def signed_distance(mask: NDArray[np.bool_], spacing: Sequence[float]) -> Field:
    """Distance to the outline, negative inside; in the units of `spacing`.

    The outline runs between elements, half an element from their centres, so that no element
    lies on it and the sign alone gives the mask back.

    Args:
        mask: Bool in any dimension, neither empty nor full.
        spacing: Of an element along each axis.
    """
    half = min(spacing) / 2
    inside = np.maximum(distance_transform_edt(mask, spacing) - half, 0)
    outside = np.maximum(distance_transform_edt(~mask, spacing) - half, 0)
    return np.where(mask, -inside, outside).astype(np.float32)


def level_set(mask: NDArray[np.bool_], spacing: Sequence[float], planes: bool) -> Field:
    """Signed distances in [-1, 1]: inside over the greatest depth, outside over the farthest.

    Args:
        mask: (N, ...) bool, slices first.
        spacing: Of an element along each axis.
        planes: True to measure within each slice, as networks that see slices can; a slice
            without the label is 1 everywhere, a full one -1.

    Returns:
        float32 of the mask's shape; 1 everywhere where it is empty.
    """
    if not planes:
        return _normalised(_distances(mask, spacing))
    return _normalised(np.stack([_distances(plane, spacing[1:]) for plane in mask]))


def _distances(mask: NDArray[np.bool_], spacing: Sequence[float]) -> Field:
    """Signed distances, infinite where no outline is."""
    if not mask.any() or mask.all():
        return np.full(mask.shape, -np.inf if mask.any() else np.inf, np.float32)
    return signed_distance(mask, spacing)


def _normalised(distances: Field) -> Field:
    finite = np.isfinite(distances)
    deepest = float(-distances[finite].min(initial=0)) or 1.0
    farthest = float(distances[finite].max(initial=0)) or 1.0
    scaled = np.where(distances < 0, distances / deepest, distances / farthest)
    return np.clip(scaled, -1, 1).astype(np.float32)
