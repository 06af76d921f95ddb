"""Boolean operations between targets."""

from __future__ import annotations

import numpy as np

from promptseg.refine.postprocessing.steps import Grid, Made


def union(masks: list[np.ndarray], grid: Grid) -> Made:
    """What lies in any of the targets."""
    return np.logical_or.reduce(masks), []


def intersect(masks: list[np.ndarray], grid: Grid) -> Made:
    """What lies in all of the targets."""
    return np.logical_and.reduce(masks), []


def subtract(masks: list[np.ndarray], grid: Grid) -> Made:
    """What lies in the first target and in none of the others."""
    return masks[0] & ~np.logical_or.reduce(masks[1:]), []


def xor(masks: list[np.ndarray], grid: Grid) -> Made:
    """What lies in an odd number of the targets."""
    return np.logical_xor.reduce(masks), []
