"""Where a simulated user clicks, on a slice or in a volume."""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from promptseg.volume import bounding_slices

Mask = NDArray[np.bool_]
_TIE = 1e-6


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
    kept = np.zeros_like(region)
    kept[box] = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return kept


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
