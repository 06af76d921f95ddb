"""Planes of a volume, regions of interest, and the maps between voxels and input pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptseg.errors import PromptError
from promptseg.volume.grid import anatomical_axes

_ANATOMICAL = ("sagittal", "coronal", "axial")


def resolve_axis(axis: int | str, affine: np.ndarray) -> int:
    """Give the voxel axis that `axis` means.

    Args:
        axis: 0, 1, 2 (also as text), or `sagittal`, `coronal`, `axial`: the voxel axis most
            along right, anterior or superior.
        affine: (4, 4) voxel to RAS+.

    Raises:
        PromptError: `axis` is none of these.
    """
    name = str(axis).strip().lower()
    if name in ("0", "1", "2") and not isinstance(axis, bool):
        return int(name)
    if name in _ANATOMICAL:
        return anatomical_axes(affine)[_ANATOMICAL.index(name)]
    raise PromptError(f"axis is {axis!r}: use 0, 1, 2, {', '.join(_ANATOMICAL)} or auto")


def in_plane(axis: int) -> tuple[int, int]:
    """The two voxel axes of a slice: rows, then columns."""
    rows, cols = (other for other in range(3) if other != axis)
    return rows, cols


def take_slice(data: np.ndarray, axis: int, index: int) -> np.ndarray:
    """View one (rows, columns) slice of an (I, J, K) array."""
    return np.moveaxis(data, axis, 0)[index]


@dataclass(frozen=True)
class Region:
    """A rectangle of in-plane voxels, half-open; it may reach outside the image.

    Args:
        rows: First row and one past the last.
        cols: First column and one past the last.

    Raises:
        PromptError: the rectangle is empty.
    """

    rows: tuple[int, int]
    cols: tuple[int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", (int(self.rows[0]), int(self.rows[1])))
        object.__setattr__(self, "cols", (int(self.cols[0]), int(self.cols[1])))
        if self.rows[0] >= self.rows[1] or self.cols[0] >= self.cols[1]:
            raise PromptError(f"region is empty: rows {self.rows}, columns {self.cols}")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in voxels."""
        return self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    def grow(self, pixels: int = 0, factor: float = 1.0) -> Region:
        """Scale about the centre by `factor`, then add `pixels` on every side."""
        height, width = self.shape
        extra_rows = round(height * (factor - 1) / 2) + pixels
        extra_cols = round(width * (factor - 1) / 2) + pixels
        return Region(
            (self.rows[0] - extra_rows, self.rows[1] + extra_rows),
            (self.cols[0] - extra_cols, self.cols[1] + extra_cols),
        )

    def union(self, other: Region) -> Region:
        """Smallest region that holds both."""
        return Region(
            (min(self.rows[0], other.rows[0]), max(self.rows[1], other.rows[1])),
            (min(self.cols[0], other.cols[0]), max(self.cols[1], other.cols[1])),
        )

    def clip(self, shape: tuple[int, int]) -> Region:
        """The part inside an image of `shape`; PromptError if there is none."""
        return Region(
            (max(0, self.rows[0]), min(shape[0], self.rows[1])),
            (max(0, self.cols[0]), min(shape[1], self.cols[1])),
        )

    def contains(self, other: Region) -> bool:
        """True if `other` lies wholly inside."""
        return self.union(other) == self


@dataclass(frozen=True)
class Frame:
    """Maps voxels of one region to pixels of a square network input, and back.

    The longer physical side of the region fills the input, the scale is the same in
    millimetres along both sides up to the rounding to whole pixels, and the rest is zero at
    the bottom or right. Pixel centres are at whole numbers plus one half, voxel centres at
    whole numbers: in-plane voxel `c` maps to `x = (c + 0.5 - region.cols[0]) * new_w / w`.

    Args:
        axis: Slice axis, 0 to 2.
        region: In-plane rectangle to show.
        shape: (I, J, K) of the volume.
        spacing: (3,) millimetres.
        size: Side of the square input in pixels.
    """

    axis: int
    region: Region
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing", tuple(float(value) for value in self.spacing))

    @property
    def valid(self) -> tuple[int, int]:
        """(new_h, new_w): rows and columns of the input that the region fills."""
        rows, cols = in_plane(self.axis)
        height = self.region.shape[0] * self.spacing[rows]
        width = self.region.shape[1] * self.spacing[cols]
        scale = self.size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    @property
    def scale(self) -> tuple[float, float]:
        """(x, y) input pixels per voxel along columns and rows."""
        return self.valid[1] / self.region.shape[1], self.valid[0] / self.region.shape[0]

    def to_pixels(self, voxels: np.ndarray) -> np.ndarray:
        """Map (N, 3) voxel coordinates to (N, 2) x, y; the slice index is dropped."""
        voxels = np.asarray(voxels, dtype=np.float64).reshape(-1, 3)
        rows, cols = in_plane(self.axis)
        corner = (self.region.cols[0], self.region.rows[0])
        return (voxels[:, [cols, rows]] + 0.5 - corner) * self.scale

    def to_voxels(self, pixels: np.ndarray, index: float) -> np.ndarray:
        """Map (N, 2) x, y to (N, 3) voxel coordinates on slice `index`."""
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        rows, cols = in_plane(self.axis)
        corner = (self.region.cols[0], self.region.rows[0])
        voxels = np.full((len(pixels), 3), float(index))
        voxels[:, [cols, rows]] = pixels / self.scale + corner - 0.5
        return voxels

    def box_to_pixels(self, lo: Sequence[float], hi: Sequence[float]) -> np.ndarray:
        """Outer edges (4,) x0, y0, x1, y1 of a half-open voxel box."""
        edges = self.to_pixels(np.array([lo, hi], dtype=np.float64) - 0.5)
        return edges.reshape(4)

    def extract(
        self, data: np.ndarray, indices: Sequence[int], context: Literal["grey", "2.5d"] = "grey"
    ) -> Tensor:
        """Cut slices out of a volume as network input.

        Args:
            data: (I, J, K) float32 grey values in [0, 1].
            indices: B slice numbers along the axis.
            context: `grey` repeats the slice in three channels; `2.5d` gives the slice before,
                the slice and the slice after, the end slice repeated at the ends.

        Returns:
            (B, 3, size, size) float32, zero outside the image.
        """
        offsets = (-1, 0, 1) if context == "2.5d" else (0, 0, 0)
        last = self.shape[self.axis] - 1
        wanted = np.clip(np.array(indices)[:, None] + np.array(offsets), 0, last)
        distinct, rows = np.unique(wanted, return_inverse=True)
        planes = np.stack([self._crop(take_slice(data, self.axis, i)) for i in distinct])
        square = self._to_square(torch.from_numpy(planes))
        return square[torch.from_numpy(rows.reshape(wanted.shape))]

    def project(self, mask2d: np.ndarray, side: int) -> Tensor:
        """Resample a whole-slice (H, W) mask or map in [0, 1] to (side, side), anti-aliased."""
        square = self._to_square(torch.from_numpy(self._crop(np.asarray(mask2d)))[None])
        if side != self.size:
            square = F.interpolate(square[None], size=(side, side), mode="area")[0]
        return square[0].clamp(0, 1)

    def restore(self, maps: Tensor) -> Tensor:
        """Bring (B, m, m) maps of the square input back to the region's (B, h, w) voxels."""
        height, width = self.valid
        full = F.interpolate(maps[:, None], size=(self.size, self.size), mode="bilinear")
        shown = full[..., :height, :width]
        return F.interpolate(shown, size=self.region.shape, mode="bilinear", antialias=True)[:, 0]

    def paste_slices(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """(rows, columns) of the image that the region covers, and the same in the region.

        Both are empty where the region lies outside the image.
        """
        rows, cols = in_plane(self.axis)
        image_rows, map_rows = _overlap(self.region.rows, self.shape[rows])
        image_cols, map_cols = _overlap(self.region.cols, self.shape[cols])
        return (image_rows, image_cols), (map_rows, map_cols)

    def _crop(self, plane: np.ndarray) -> np.ndarray:
        image, region = self.paste_slices()
        crop = np.zeros(self.region.shape, dtype=np.float32)
        crop[region] = plane[image]
        return crop

    def _to_square(self, planes: Tensor) -> Tensor:
        height, width = self.valid
        small = F.interpolate(
            planes[:, None], size=(height, width), mode="bilinear", antialias=True
        )
        return F.pad(small[:, 0], (0, self.size - width, 0, self.size - height))


def _overlap(bounds: tuple[int, int], side: int) -> tuple[slice, slice]:
    start = min(max(bounds[0], 0), side)
    stop = max(start, min(bounds[1], side))
    inside = start - bounds[0]
    return slice(start, stop), slice(inside, inside + stop - start)
