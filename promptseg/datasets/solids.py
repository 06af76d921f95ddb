"""Solids given by signed distances, and a canvas that paints them with partial volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, radians, sin

import numpy as np

Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]
Triple = tuple[float, float, float]
_FAR_MM = 1e4


@dataclass(frozen=True)
class Solid:
    """A shape in world millimetres.

    Args:
        distance: Maps x, y, z arrays to a distance in mm, negative inside.
        low: (3,) corner of a box that holds the shape.
        high: (3,) the opposite corner.
    """

    distance: Callable[[Coordinates], np.ndarray]
    low: np.ndarray
    high: np.ndarray

    def __or__(self, other: Solid) -> Solid:
        return Solid(
            lambda at: np.minimum(self.distance(at), other.distance(at)),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def __and__(self, other: Solid) -> Solid:
        return Solid(
            lambda at: np.maximum(self.distance(at), other.distance(at)),
            np.maximum(self.low, other.low),
            np.minimum(self.high, other.high),
        )

    def __sub__(self, other: Solid) -> Solid:
        return Solid(
            lambda at: np.maximum(self.distance(at), -other.distance(at)), self.low, self.high
        )

    def shrunk(self, mm: float) -> Solid:
        """The part deeper than `mm` below the surface."""
        return Solid(lambda at: self.distance(at) + np.float32(mm), self.low, self.high)


def everywhere(distance: Callable[[Coordinates], np.ndarray]) -> Solid:
    """A solid without bounds."""
    return Solid(distance, np.full(3, -_FAR_MM), np.full(3, _FAR_MM))


def ellipsoid(centre: Triple, radii: Triple, coronal: float = 0.0, axial: float = 0.0) -> Solid:
    """An ellipsoid in mm, turned in the coronal and then in the axial plane by degrees.

    The distance is first-order: exact on the surface, and with unit slope there.
    """
    a, b = radians(coronal), radians(axial)
    turn_x_z = np.array([[cos(a), 0, sin(a)], [0, 1, 0], [-sin(a), 0, cos(a)]])
    turn_x_y = np.array([[cos(b), sin(b), 0], [-sin(b), cos(b), 0], [0, 0, 1]])
    turn = turn_x_y @ turn_x_z
    rows = (turn / np.array(radii)[:, None]).astype(np.float32)
    reach = np.linalg.norm(turn.T * radii, axis=1)

    def distance(at: Coordinates) -> np.ndarray:
        near = [part - np.float32(middle) for part, middle in zip(at, centre, strict=True)]
        scaled = [row[0] * near[0] + row[1] * near[1] + row[2] * near[2] for row in rows]
        level = np.sqrt(sum(part**2 for part in scaled))
        steepness = np.sqrt(
            sum((part / np.float32(r)) ** 2 for part, r in zip(scaled, radii, strict=True))
        )
        return level * (level - 1) / np.maximum(steepness, np.float32(1e-6))

    return Solid(distance, np.array(centre) - reach, np.array(centre) + reach)


def tube(points: Sequence[Triple], radius: float) -> Solid:
    """A round tube of `radius` mm along a polyline."""
    path = np.array(points, dtype=np.float32)

    def distance(at: Coordinates) -> np.ndarray:
        nearest = np.full(at[0].shape, np.inf, dtype=np.float32)
        for start, end in pairwise(path):
            way = end - start
            off = [part - origin for part, origin in zip(at, start, strict=True)]
            along = sum(o * w for o, w in zip(off, way, strict=True)) / (way @ way)
            along = np.clip(along, 0, 1)
            square = sum((o - along * w) ** 2 for o, w in zip(off, way, strict=True))
            nearest = np.minimum(nearest, square)
        return np.sqrt(nearest) - np.float32(radius)

    return Solid(distance, path.min(axis=0) - radius, path.max(axis=0) + radius)


class Canvas:
    """A grid that solids are painted on, later ones over earlier ones.

    Args:
        affine: (4, 4) voxel to world mm.
        shape: (I, J, K).
        warp: Maps (x, y, z) to displacements that bend every solid alike.
        background: Value of the empty grid.
        slack: Millimetres that the warp may move a surface.
    """

    def __init__(
        self,
        affine: np.ndarray,
        shape: tuple[int, int, int],
        warp: Callable[[Coordinates], Coordinates],
        background: float,
        slack: float,
    ) -> None:
        self.values = np.full(shape, background, dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.uint8)
        self._affine, self._slack = affine, slack
        self._edge = float(np.prod(np.linalg.norm(affine[:3, :3], axis=0)) ** (1 / 3))
        index = np.ogrid[: shape[0], : shape[1], : shape[2]]
        step = affine.astype(np.float32)
        straight = [
            row[0] * index[0].astype(np.float32) + row[1] * index[1] + row[2] * index[2] + row[3]
            for row in step[:3]
        ]
        x, y, z = (part.astype(np.float32) for part in straight)
        dx, dy, dz = warp((x, y, z))
        self._at = (x + dx, y + dy, z + dz)

    def paint(self, solid: Solid, value: float, label: int | None = None) -> None:
        """Mix `value` in by the share of each voxel that is inside, and label what is mostly in.

        Args:
            solid: What to paint.
            value: Grey value.
            label: Label of the voxels mostly inside; None leaves the labels below.
        """
        window = self._window(solid)
        if window is None:
            return
        x, y, z = self._at
        distance = solid.distance((x[window], y[window], z[window]))
        share = np.clip(0.5 - distance / np.float32(self._edge), 0, 1)
        values = self.values[window]
        values += share * (np.float32(value) - values)
        if label is not None:
            self.labels[window][share > 0.5] = label

    def _window(self, solid: Solid) -> tuple[slice, slice, slice] | None:
        """The part of the grid that can hold the solid, None if there is none."""
        low, high = solid.low - self._slack, solid.high + self._slack
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1)
        inverse = np.linalg.inv(self._affine)
        voxels = corners.reshape(-1, 3) @ inverse[:3, :3].T + inverse[:3, 3]
        first = np.maximum(np.floor(voxels.min(axis=0)).astype(int), 0)
        last = np.minimum(np.ceil(voxels.max(axis=0)).astype(int) + 1, self.values.shape)
        if np.any(first >= last):
            return None
        i, j, k = (slice(a, b) for a, b in zip(first, last, strict=True))
        return i, j, k
