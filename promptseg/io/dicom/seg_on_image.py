"""Segments of a DICOM-SEG onto the grid of an image."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from promptseg.errors import FormatError, VolumeError
from promptseg.io.dicom.boxed import Boxed, labelled
from promptseg.io.dicom.frames import Frame
from promptseg.io.dicom.headers import text
from promptseg.io.dicom.seg_reading import Segments
from promptseg.io.dicom.source import DicomSource, lps
from promptseg.io.image import Image

# Part of a voxel by which frames may be off the image's voxels and still be taken as theirs.
_NEAR = 0.1


@dataclass(frozen=True, eq=False)
class _Piece:
    """The part of one segment on one frame.

    Args:
        mask: (rows, columns) bool.
        affine: (4, 4) of (column, row, 0) to voxels of the image.
        exact: True if pixels are voxels.
    """

    mask: np.ndarray
    affine: np.ndarray
    exact: bool

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """First voxel and one past the last that it may touch."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        ends = (columns[0] - 0.5, columns[-1] + 0.5), (rows[0] - 0.5, rows[-1] + 0.5), (-0.5, 0.5)
        corners = np.array(list(product(*ends)))
        placed = corners @ self.affine[:3, :3].T + self.affine[:3, 3]
        return np.floor(placed.min(axis=0)), np.ceil(placed.max(axis=0)) + 1

    def put(self, target: Boxed) -> bool:
        """Add it to a mask; False if it lies outside."""
        return (self._copied if self.exact else self._nearest)(target)

    def _copied(self, target: Boxed) -> bool:
        rows, columns = np.nonzero(self.mask)
        steps = np.rint(self.affine[:3, :2]).astype(int)
        start = np.rint(self.affine[:3, 3]).astype(int)
        return target.set(np.column_stack([columns, rows]) @ steps.T + start)

    def _nearest(self, target: Boxed) -> bool:
        """Every voxel whose centre lies in the frame's slab takes the pixel it falls into."""
        low, high = self.bounds()
        box = Boxed.around(low, high, (target.low + target.mask.shape).tolist())
        voxels = np.argwhere(~box.mask) + box.low
        back = np.linalg.inv(self.affine)
        pixels = voxels @ back[:3, :3].T + back[:3, 3]
        column, row = np.rint(pixels[:, :2]).astype(int).T
        inside = (np.abs(pixels[:, 2]) <= 0.5) & (column >= 0) & (row >= 0)
        inside &= (column < self.mask.shape[1]) & (row < self.mask.shape[0])
        hit = self.mask[row[inside], column[inside]]
        return target.set(voxels[inside][hit])


def segments_on(segments: Segments, grid: Image) -> Image:
    """Labels on the grid of an image.

    Frames on the image's voxels are copied, turned and flipped as need be; of others every voxel
    takes the pixel that its centre falls into, and the notes say so.

    Raises:
        FormatError: They are in another frame of reference than the image.
        VolumeError: None lies on the image.
    """
    _check_space(segments, grid)
    pieces, off = _pieces(segments, np.linalg.inv(lps(grid.affine)))
    shape = grid.data.shape
    masks: dict[int, Boxed] = {}
    outside = 0
    for segment, held in pieces.items():
        bounds = [piece.bounds() for piece in held]
        low = np.min([one[0] for one in bounds], axis=0)
        masks[segment] = Boxed.around(low, np.max([one[1] for one in bounds], axis=0), shape)
        outside += sum(not piece.put(masks[segment]) for piece in held)
    if pieces and not any(boxed.mask.any() for boxed in masks.values()):
        raise VolumeError("no segment lies on the image: it belongs to another")
    notes = list(segments.notes)
    if outside:
        notes.append(f"{outside} frames outside the image left out")
    if off:
        notes.append(f"{off} frames on other voxels than the image's: the nearest were taken")
    return labelled(masks, segments.names, shape, grid.affine, notes)


def _pieces(segments: Segments, to_voxels: np.ndarray) -> tuple[dict[int, list[_Piece]], int]:
    """Pieces by segment, and how many frames are not on the image's voxels."""
    found: dict[int, list[_Piece]] = {}
    off = 0
    for frame, held in zip(segments.frames, segments.masks, strict=True):
        affine = to_voxels @ _affine(frame)
        exact = _on_voxels(affine)
        off += not exact
        for segment, mask in held.items():
            if mask.any():
                found.setdefault(segment, []).append(_Piece(mask, affine, exact))
    return found, off


def _check_space(segments: Segments, grid: Image) -> None:
    if not isinstance(grid.header, DicomSource):
        return
    here = text(grid.header.first, "FrameOfReferenceUID")
    there = text(segments.frames[0].header, "FrameOfReferenceUID")
    if here and there and here != there:
        raise FormatError(
            "its frames are in another frame of reference than the image: it was drawn on another "
            "series; give the image it belongs to"
        )


def _affine(frame: Frame) -> np.ndarray:
    """(4, 4) of (column, row, 0) of a frame to LPS."""
    affine = np.eye(4)
    affine[:3, 0] = frame.directions[0] * frame.spacing[1]
    affine[:3, 1] = frame.directions[1] * frame.spacing[0]
    affine[:3, 2] = frame.normal * (frame.thickness or 1.0)
    affine[:3, 3] = frame.position
    return affine


def _on_voxels(affine: np.ndarray) -> bool:
    """True if columns and rows step from voxel to voxel and start on one."""
    steps = affine[:3, :2]
    signs = np.abs(np.rint(steps))
    one_each = np.all(signs.sum(axis=0) == 1) and signs.sum(axis=1).max() == 1
    # Across 512 pixels no more than half a voxel, as directions of four digits may drift.
    drift = np.abs(steps - np.rint(steps)).max() * 512
    start = np.abs(affine[:3, 3] - np.rint(affine[:3, 3])).max()
    return bool(one_each and drift <= 0.5 and start <= _NEAR)
