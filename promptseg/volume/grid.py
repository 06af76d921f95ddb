"""A grid of voxels in the world: spacing, axes, extents, and what cannot be one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import permutations
from typing import Literal

import numpy as np

from promptseg.errors import PromptError, VolumeError

CoordinateFrame = Literal["voxel", "ras", "lps"]
FRAMES: tuple[CoordinateFrame, ...] = ("voxel", "ras", "lps")
_SINGULAR = 1e-6
# Cosines of directions that a header keeps in single precision.
_AS_GOOD = 1e-4


def grid_text(data: np.ndarray, affine: np.ndarray) -> str:
    """Its voxels and their sides, for a person."""
    voxels = " x ".join(str(side) for side in data.shape)
    sides = " x ".join(f"{side:.3g}" for side in spacing_of(affine))
    return f"{voxels} voxels of {sides} mm"


def shown_volume(millilitres: float) -> str:
    """A volume for a person: millilitres, below a tenth of one cubic millimetres.

    Example:
        >>> shown_volume(24.18), shown_volume(0.05), shown_volume(0.0)
        ('24.2 ml', '50 mm3', '0.0 ml')
    """
    if 0 < millilitres < 0.1:
        return f"{millilitres * 1000:.3g} mm3"
    return f"{millilitres:.1f} ml"


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """(3,) lengths of the columns of a (4, 4) affine, in millimetres."""
    return np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))


def anatomical_axes(affine: np.ndarray) -> tuple[int, int, int]:
    """Voxel axes most along right, anterior and superior, each used once.

    The assignment with the largest sum of direction cosines wins, so that even a grid turned
    by 45 degrees has one axis for each direction. Where several are as good, the directions
    themselves decide and not their order, so that the same grid stored in another order has the
    same axes in the world.
    """
    directions = np.asarray(affine, dtype=np.float64)[:3, :3] / spacing_of(affine)
    cosines = np.abs(directions)
    sums = {axes: float(cosines[range(3), axes].sum()) for axes in permutations(range(3))}
    best = [axes for axes, total in sums.items() if total > max(sums.values()) - _AS_GOOD]
    r, a, s = max(best, key=lambda axes: _seen_from(directions, axes))
    return r, a, s


def _seen_from(directions: np.ndarray, axes: Sequence[int]) -> list[float]:
    """Directions of an assignment, each turned to where it should run; no order in the file."""
    turned = [
        directions[:, axis] * (1 if directions[row, axis] >= 0 else -1)
        for row, axis in enumerate(axes)
    ]
    return [round(float(part), 4) + 0.0 for direction in turned for part in direction]


def bounding_slices(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Slices around the true elements of a mask, one for each axis; None if there are none.

    Example:
        >>> import numpy as np
        >>> bounding_slices(np.eye(4, 6) > 0)
        (slice(0, 4, None), slice(0, 4, None))
    """
    sides = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis)))
        if hit.size == 0:
            return None
        sides.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(sides)


def pasted(part: np.ndarray, where: tuple[slice, ...], shape: Sequence[int]) -> np.ndarray:
    """An array of zeros of `shape` with `part` in it; the other way round of `whole[where]`.

    Example:
        >>> import numpy as np
        >>> pasted(np.ones((1, 2), int), (slice(0, 1), slice(1, 3)), (2, 3))
        array([[0, 1, 1],
               [0, 0, 0]])
    """
    whole = np.zeros(tuple(shape), part.dtype)
    whole[where] = part
    return whole


def digest(data: np.ndarray, affine: np.ndarray) -> str:
    """Sha256 of values, shape, type and affine; the same for any memory order."""
    state = hashlib.sha256(f"{data.dtype.str} {data.shape}".encode())
    state.update(np.ascontiguousarray(affine, dtype=np.float64).tobytes())
    for plane in data.T:
        state.update(np.ascontiguousarray(plane).data)
    return state.hexdigest()


def checked_frame(frame: str) -> str:
    """The name of a frame; PromptError for any other word."""
    if frame not in FRAMES:
        raise PromptError(f"frame is {frame!r}: use one of {', '.join(FRAMES)}")
    return frame


def checked_data(data: np.ndarray) -> np.ndarray:
    """A 3D array of real numbers in native order; VolumeError for anything else."""
    data = np.asarray(data)
    if data.ndim != 3:
        advice = "split it into 3D volumes" if data.ndim > 3 else "give it a third axis"
        raise VolumeError(f"the image is {data.ndim}D with shape {data.shape}, not 3D: {advice}")
    if data.size == 0:
        raise VolumeError(f"the image has no voxel: shape {data.shape}")
    if data.dtype.kind not in "biuf":
        raise VolumeError(f"voxels are {data.dtype}, not real numbers: convert them to one channel")
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    return data


def finite(data: np.ndarray) -> np.ndarray:
    """Values with background for NaN and infinity; the very array if there are none.

    Background is 0, which windows leave out, or the lowest value where there are lower ones.
    """
    if data.dtype.kind != "f":
        return data
    good = np.isfinite(data)
    if good.all():
        return data
    if not good.any():
        raise VolumeError(f"the image has no finite voxel of {data.size}: export it again")
    return np.where(good, data, min(0, data[good].min())).astype(data.dtype, copy=False)


def note_of_bad(data: np.ndarray) -> str:
    """What is said of NaN and infinite voxels."""
    bad = data.size - int(np.count_nonzero(np.isfinite(data)))
    return f"{bad} of {data.size} voxels are NaN or infinite: taken as background"


def checked_affine(affine: np.ndarray) -> np.ndarray:
    """A (4, 4) float64 affine that can be inverted; VolumeError for anything else."""
    try:
        affine = np.array(affine, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise VolumeError(f"the affine is not a matrix of numbers: {error}") from error
    if affine.shape != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise VolumeError(f"the affine must be 4x4 with last row 0 0 0 1, found {affine.tolist()}")
    with np.errstate(all="ignore"):
        spacing = spacing_of(affine)
        usable = bool(np.all(np.isfinite(affine)) and np.all(np.isfinite(spacing)))
        if not usable or not np.all(spacing > 0):
            shown = ", ".join(f"{value:g}" for value in spacing)
            raise VolumeError(f"the spacing is ({shown}) mm: every axis needs a positive number")
        volume = abs(np.linalg.det(affine[:3, :3] / spacing))
    if not volume > _SINGULAR:
        raise VolumeError("the affine is singular: two voxel axes point the same way")
    return affine
