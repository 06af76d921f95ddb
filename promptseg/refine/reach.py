"""Which voxels clicks reach on a mask, see `promptseg.inference.reach`."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, pi

import numpy as np
from numpy.typing import NDArray

from promptseg.inference.reach import LEAST_3D, REACH

_WINDOW = 4


def reached(
    mask: NDArray[np.bool_], clicks: NDArray[np.int64], spacing: Sequence[float]
) -> NDArray[np.bool_]:
    """(I, J, K) true where clicks on a mask may change it; everywhere for an empty one.

    Args:
        mask: (I, J, K) before the clicks.
        clicks: (N, 3) voxels.
        spacing: (3,) mm.
    """
    steps = np.asarray(spacing, float)
    if not mask.any():
        return np.ones(mask.shape, bool)
    size = (3 * mask.sum() * float(steps.prod()) / (4 * pi)) ** (1 / 3)
    found = np.zeros(mask.shape, bool)
    for click in clicks:
        away = max(from_outline(mask, click, steps), LEAST_3D * size)
        radius = REACH * away + float(steps.min())
        low = np.maximum(np.ceil(click - radius / steps), 0).astype(int)
        high = np.minimum(np.floor(click + radius / steps) + 1, mask.shape).astype(int)
        lines = [((np.arange(a, b) - c) * s) ** 2 for a, b, c, s in zip(low, high, click, steps,
                 strict=True)]  # fmt: skip
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        found[box] |= sum(np.ix_(*lines)) <= radius**2
    return found


def from_outline(
    mask: NDArray[np.bool_], voxel: NDArray[np.int64], steps: NDArray[np.float64]
) -> float:
    """mm from a voxel to the nearest that is not as it is; infinite for none.

    Args:
        mask: (I, J, K).
        voxel: (3,) index.
        steps: (3,) mm.
    """
    state, window = mask[tuple(voxel)], _WINDOW * float(steps.min())
    while True:
        low = np.maximum(np.ceil(voxel - window / steps), 0).astype(int)
        high = np.minimum(np.floor(voxel + window / steps) + 1, mask.shape).astype(int)
        part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        unlike = (np.argwhere(part != state) + low - voxel) * steps
        nearest = float(np.sqrt((unlike**2).sum(1).min())) if len(unlike) else inf
        whole = not low.any() and (high == mask.shape).all()
        if nearest <= window or whole:
            return nearest
        window *= 2
