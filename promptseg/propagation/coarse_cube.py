"""A cubic view of a volume, between voxels and its elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import block_reduce

SIDE = 48
Field = NDArray[np.float32]


@dataclass(frozen=True)
class Cube:
    """A cubic view of a volume.

    Args:
        centre: (3,) voxels, counted from the first voxel's outer corner.
        length: Side in millimetres.
        spacing: (3,) millimetres of a voxel.
        side: Elements of a side.
    """

    centre: tuple[float, float, float]
    length: float
    spacing: tuple[float, float, float]
    side: int = SIDE

    @property
    def scale(self) -> NDArray[np.float64]:
        """(3,) voxels of an element."""
        return self.length / self.side / np.array(self.spacing)

    @property
    def low(self) -> NDArray[np.float64]:
        """(3,) the view's first corner in voxels."""
        return np.array(self.centre) - self.scale * self.side / 2

    def region(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """The voxels of a volume of `shape` that the view reaches."""
        low = np.clip(np.floor(self.low), 0, np.array(shape) - 1).astype(int)
        high = np.clip(np.ceil(self.low + self.scale * self.side), low + 1, shape).astype(int)
        return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))

    def sample(self, data: NDArray[np.generic], outside: float) -> Field:
        """(I, J, K) values -> (side, side, side), averaged where the view is coarser."""
        region = self.region(data.shape)
        part = data[region].astype(np.float32)
        factor = np.maximum(np.floor(self.scale), 1).astype(int)
        factor = np.minimum(factor, part.shape)
        if factor.max() > 1:
            part = block_reduce(part, tuple(factor), np.mean, cval=outside)
        step = self.scale / factor
        start = (self.low - [s.start for s in region]) / factor + step / 2 - 0.5
        return np.asarray(ndimage.affine_transform(
            part, step, start, (self.side,) * 3, order=1, mode="grid-constant", cval=outside,
        ), np.float32)  # fmt: skip

    def paste(self, view: Field, shape: Sequence[int]) -> tuple[tuple[slice, ...], Field]:
        """(side, side, side) values -> a region of a volume of `shape`, and values on it."""
        region = self.region(shape)
        start = np.array([s.start for s in region])
        size = tuple(s.stop - s.start for s in region)
        offset = (start + 0.5 - self.low) / self.scale - 0.5
        values = ndimage.affine_transform(
            view, 1 / self.scale, offset, size, order=1, mode="nearest"
        )
        return region, np.asarray(values, np.float32)

    def planes(self, axis: int, index: int) -> slice:
        """Elements along `axis` whose middle lies in slice `index`; the nearest if none does."""
        edges = (np.array([index, index + 1]) - self.low[axis]) / self.scale[axis]
        first, last = (int(np.clip(np.ceil(e - 0.5), 0, self.side)) for e in edges)
        if first < last:
            return slice(first, last)
        nearest = int(np.clip(np.floor(edges.mean()), 0, self.side - 1))
        return slice(nearest, nearest + 1)
