"""Interior margin points: simulated clicks just inside a target's boundary."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from promptseg.errors import PromptError

_NEAR_EXTREME = 0.05


def interior_margin_points(
    mask: ArrayLike,
    count: int | None = None,
    inset: float = 3.0,
    rng: np.random.Generator | int | None = None,
) -> NDArray[np.int64]:
    """Points a few elements inside the boundary, as thesis section 3.2.1 simulates them.

    First 3 or 4 (2D) or 5 or 6 (3D) boundary points near extreme points, so that the box of all
    points, slightly grown, covers the target; then n in U{0..5} random boundary points. Each is
    moved to the nearest element of the target that lies `inset` elements under the boundary, or
    as deep as the target allows there.

    Args:
        mask: (H, W) or (D, H, W) bool target.
        count: Number of points; by default the thesis's random rule. Extreme points come first.
        inset: How far to move inwards, in elements, at least 0.
        rng: Generator or seed.

    Returns:
        (N, ndim) integer indices inside the mask, without repeats; fewer than `count` where the
        target is too small.

    Raises:
        PromptError: The mask is empty or not 2D or 3D, or `count` or `inset` is out of range.
    """
    inside = np.asarray(mask, bool)
    if inside.ndim not in (2, 3) or not inside.any():
        raise PromptError(f"mask of shape {inside.shape} is empty or not 2D or 3D: give a target")
    if inset < 0 or (count is not None and count < 1):
        raise PromptError(f"inset is {inset} and count {count}: give inset >= 0 and count >= 1")
    generator = np.random.default_rng(rng)
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[(slice(1, -1),) * inside.ndim]
    boundary = np.argwhere((depth > 0) & (depth <= 1))
    starts = _near_extremes(boundary, generator)
    if count is None:
        starts = starts[: 2 * inside.ndim - int(generator.integers(0, 2))]
        extra = int(generator.integers(0, 6))
    else:
        starts, extra = starts[:count], max(0, count - len(starts))
    starts = np.concatenate([starts, generator.choice(boundary, extra)])
    moved = np.array([_inwards(start, depth, inset) for start in starts], np.int64)
    _, first = np.unique(moved, axis=0, return_index=True)
    return moved[np.sort(first)]


def _near_extremes(
    boundary: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """One boundary point near each of the 2 x ndim extremes, in random order."""
    found = []
    for axis in range(boundary.shape[1]):
        along = boundary[:, axis]
        slack = max(1.0, _NEAR_EXTREME * float(np.ptp(along)))
        found.append(generator.choice(boundary[along <= along.min() + slack]))
        found.append(generator.choice(boundary[along >= along.max() - slack]))
    return generator.permutation(np.array(found), axis=0)


def _inwards(
    start: NDArray[np.int64], depth: NDArray[np.float64], inset: float
) -> NDArray[np.int64]:
    """The nearest element to `start` of depth `1 + inset`, or the deepest within reach."""
    reach = int(np.ceil(inset)) + 1
    low = np.maximum(start - reach, 0)
    window = depth[tuple(slice(a, b + reach + 1) for a, b in zip(low, start, strict=True))]
    at = np.argwhere(window > 0)
    depths = np.minimum(window[tuple(at.T)], 1 + inset)
    offsets = at + low - start
    best = np.lexsort(((offsets**2).sum(axis=1), -depths))[0]
    return at[best] + low
