"""Places on the picture of a slice, as prompts in voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.demo.display import plane_of
from promptseg.demo.visit import Visit
from promptseg.prompts.types import Box, Point, Scribble


def point(visit: Visit, shares: Sequence[float], index: int, positive: bool) -> Point:
    """The point under a click at shares of the picture's width and height."""
    voxel = np.round(voxels(visit, [shares], index)[0], 1)
    return Point(tuple(voxel.tolist()), positive, visit.active)


def box(visit: Visit, first: Sequence[float], second: Sequence[float], index: int) -> Box:
    """The 2D box between two corners."""
    corners = np.floor(voxels(visit, [first, second], index) + 0.5).astype(int)
    lo, hi = corners.min(0).tolist(), (corners.max(0) + 1).tolist()
    return Box(tuple(lo), tuple(hi), visit.active)


def stroke(visit: Visit, path: Sequence[Sequence[float]], index: int, positive: bool) -> Scribble:
    """The scribble along a path drawn on the picture."""
    return Scribble.polyline(voxels(visit, path, index), positive, visit.active)


def voxels(visit: Visit, shares: Sequence[Sequence[float]], index: int) -> np.ndarray:
    plane = plane_of(visit.opened(), visit.view.axis)
    return plane.voxels(np.array(shares, dtype=np.float64), index)
