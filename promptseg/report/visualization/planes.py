"""Slices as radiologists look at them: anterior or superior up, the patient's right on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.volume import Volume, anatomical_axes

_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
_MARGIN_SHARE, _MARGIN_MM = 0.6, 30.0


@dataclass(frozen=True)
class Plane:
    """How the slices along one voxel axis are laid out in a picture.

    Args:
        axis: Voxel axis of the slices.
        across: Voxel axis shown from left to right.
        down: Voxel axis shown from top to bottom.
        flips: True where `across` and `down` run against the voxel index.
        low: First voxel shown along `across` and `down`.
        high: One past the last.
        size: Width and height of the picture in pixels, in the proportions of the body.
        letters: Directions at the left, right, top and bottom edge.
    """

    axis: int
    across: int
    down: int
    flips: tuple[bool, bool]
    low: tuple[int, int]
    high: tuple[int, int]
    size: tuple[int, int]
    letters: tuple[str, str, str, str]

    @property
    def sides(self) -> tuple[int, int]:
        """Voxels along `across` and `down`."""
        return self.high[0] - self.low[0], self.high[1] - self.low[1]

    def place(self, voxel: Sequence[float], scale: float = 1) -> tuple[float, float]:
        """x, y in pixels of a voxel position on a picture enlarged by `scale`."""
        found = []
        for n, axis in enumerate((self.across, self.down)):
            share = (voxel[axis] + 0.5 - self.low[n]) / self.sides[n]
            found.append((1 - share if self.flips[n] else share) * self.size[n] * scale)
        return found[0], found[1]

    def voxels(self, shares: np.ndarray, index: int) -> np.ndarray:
        """(N, 3) voxel positions of (N, 2) shares of width and height in [0, 1]."""
        shares = np.clip(np.asarray(shares, dtype=np.float64).reshape(-1, 2), 0.0, 1.0)
        found = np.full((len(shares), 3), float(index))
        for n, axis in enumerate((self.across, self.down)):
            share = 1 - shares[:, n] if self.flips[n] else shares[:, n]
            inside = self.low[n], self.high[n] - 1
            found[:, axis] = np.clip(self.low[n] + share * self.sides[n] - 0.5, *inside)
        return found

    def turned(self, flat: np.ndarray) -> np.ndarray:
        """The shown part of a (rows, columns) slice of the volume as (down, across)."""
        upright = flat.T if self.across < self.down else flat
        shown = upright[self.low[1] : self.high[1], self.low[0] : self.high[0]]
        return shown[:: -1 if self.flips[1] else 1, :: -1 if self.flips[0] else 1]


def plane_of(volume: Volume, axis: int, longest: int, marked: np.ndarray | None = None) -> Plane:
    """Lay out the slices along one axis.

    Args:
        volume: Image.
        axis: Voxel axis of the slices.
        longest: Longer side of the picture in pixels.
        marked: (I, J, K) bool to crop around; None shows whole slices.
    """
    right, anterior, superior = anatomical_axes(volume.affine)
    across = anterior if axis == right else right
    down = anterior if axis == superior else superior
    low, high = zip(*(_extent(volume, marked, other) for other in (across, down)), strict=True)
    millimetres = (np.array(high) - low) * volume.spacing[[across, down]]
    width, height = np.maximum(1, np.rint(millimetres * longest / millimetres.max())).astype(int)
    world = {right: 0, anterior: 1, superior: 2}
    flips = [bool(volume.affine[world[other], other] > 0) for other in (across, down)]
    return Plane(
        axis,
        across,
        down,
        (flips[0], flips[1]),
        low,
        high,
        (int(width), int(height)),
        (*_LETTERS[world[across]], *_LETTERS[world[down]]),
    )


def marked_slices(marked: np.ndarray, axis: int) -> np.ndarray:
    """Indices along `axis` of the slices that hold a marked voxel."""
    others = tuple(other for other in range(3) if other != axis)
    return np.flatnonzero(marked.any(axis=others))


def _extent(volume: Volume, marked: np.ndarray | None, axis: int) -> tuple[int, int]:
    """Range to show along one axis: the marked voxels and as much again around them."""
    found = np.array([]) if marked is None else marked_slices(marked, axis)
    if not len(found):
        return 0, volume.shape[axis]
    margin = max(_MARGIN_SHARE * np.ptp(found), _MARGIN_MM / volume.spacing[axis])
    low, high = int(found[0] - margin), int(found[-1] + 1 + margin)
    return max(0, low), min(volume.shape[axis], high)
