"""Minimum cut of a binary energy on a pixel grid, made small before the max-flow solver."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from promptseg.refine.gridflow import source_side


def minimum_cut(gain: NDArray[np.float32], capacities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Labels of least energy on the 4-neighbour (2D) or 6-neighbour (3D) grid.

    Elements whose gain outweighs all their free edges have the same label in every minimum
    (dead-end elimination, Desmet et al. 1992); they are decided first, one after another, and
    only the rest goes to the maximum flow. The result is the exact minimum.

    Args:
        gain: (H, W) or (D, H, W) cost of background minus cost of foreground.
        capacities: (ndim, *gain.shape) cost of a boundary between each element and the next
            along each axis, at least 0, and 0 at the end of the axis.

    Returns:
        Bool array of gain's shape, true for foreground.
    """
    flat = np.array(gain, np.float32).ravel()
    edges = np.array(capacities, np.float32).reshape(gain.ndim, -1)
    strides = np.array([int(np.prod(gain.shape[a + 1 :])) for a in range(gain.ndim)])
    label = _decide(flat, edges, strides)
    found = label > 0
    if (label < 0).any():
        found |= (label < 0) & source_side(flat, edges, strides)
    return found.reshape(gain.shape)


@njit(cache=True)
def _decide(gain, edges, strides):  # type: ignore[no-untyped-def]
    """Label 1 or 0 where that is certain, else -1.

    Decided elements are folded into the `gain` of their neighbours and cut off.
    """
    n = gain.size
    label = np.full(n, -1, np.int8)
    free = np.zeros(n, np.float32)
    for a in range(strides.size):
        for i in range(n - strides[a]):
            free[i] += edges[a, i]
            free[i + strides[a]] += edges[a, i]
    stack = np.empty(n, np.int32)
    count = 0
    for i in range(n):
        if abs(gain[i]) > free[i] * np.float32(1.0001):
            label[i] = gain[i] > 0
            stack[count] = i
            count += 1
    while count > 0:
        count -= 1
        i = stack[count]
        for a in range(strides.size):
            for side in range(2):
                j = i + strides[a] if side == 0 else i - strides[a]
                if j < 0 or j >= n or label[j] >= 0:
                    continue
                capacity = edges[a, min(i, j)]
                if capacity > 0:
                    edges[a, min(i, j)] = 0
                    gain[j] += capacity if label[i] == 1 else -capacity
                    free[j] = max(free[j] - capacity, np.float32(0))
                    if abs(gain[j]) > free[j] * np.float32(1.0001) + np.float32(1e-4):
                        label[j] = gain[j] > 0
                        stack[count] = j
                        count += 1
    for i in range(n):
        if label[i] >= 0:
            gain[i] = 0
    return label
