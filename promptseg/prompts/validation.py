"""Checks of the numbers in a prompt; every failure is a PromptError."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from promptseg.errors import PromptError
from promptseg.volume import FRAMES

if TYPE_CHECKING:
    from promptseg.volume import Volume

MAX_TARGET = 65535
_MAX_COORDINATE = 1e15
# Coordinates that were printed and read again still fall on the voxel edge they came from.
_EDGE_TOLERANCE = 0.05
_KEPT_DECIMALS = 4
_FACE_TOLERANCE = 1e-3
_LEAST_MARGIN = {2: 3, 3: 5}
_RELAXED_VOXELS = 3
_RELAXED_SHARE = 0.04


ROLES = ("correction", "refine", "correction+refine", "margin")


def check_common(prompt: Any) -> None:
    """Check target, frame, sign and role of any prompt."""
    if not is_integer(prompt.target) or not 1 <= prompt.target <= MAX_TARGET:
        raise PromptError(f"target is {prompt.target!r}: valid whole numbers 1 to {MAX_TARGET}")
    frame = getattr(prompt, "frame", "voxel")
    if frame not in FRAMES:
        raise PromptError(f"frame is {frame!r}: use one of {', '.join(FRAMES)}")
    positive = getattr(prompt, "positive", True)
    if not isinstance(positive, (bool, np.bool_)):
        raise PromptError(f"positive is {positive!r}: use True or False")
    role = getattr(prompt, "role", None)
    if role is not None and role not in ROLES:
        raise PromptError(
            f"role is {role!r}: it says how a prompt is answered: use {', '.join(ROLES)}"
        )


def is_integer(value: object) -> bool:
    """True for a whole number that is no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def triple(values: object, name: str) -> list[float]:
    """Three finite numbers."""
    if not isinstance(values, tuple) or len(values) != 3:
        raise PromptError(f"{name} is {brief(values)}: give three numbers (i, j, k)")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise PromptError(f"{name} is {brief(values)}: {brief(value)} is not a number")
        if not abs(value) < _MAX_COORDINATE:
            raise PromptError(f"{name} is {brief(values)}: use finite coordinates")
    return [float(value) for value in values]


def coordinates(points: np.ndarray) -> np.ndarray:
    """(N, 3) finite float64, at least one."""
    if points.size == 0:
        raise PromptError("is empty: no coordinate is given")
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "iuf":
        raise PromptError(
            f"coordinates have shape {points.shape} and type {points.dtype}: give (N, 3) numbers"
        )
    values = points.astype(np.float64)
    bad = ~np.all(np.abs(values) < _MAX_COORDINATE, axis=1)
    if bad.any():
        raise PromptError(
            f"{int(bad.sum())} of {len(points)} coordinates are not usable, the first "
            f"{show(points[int(np.argmax(bad))])}: use finite numbers"
        )
    return values


def inside(voxels: np.ndarray, volume: Volume) -> np.ndarray:
    """(N, 3) continuous voxel coordinates, all within the volume's outer faces.

    Those on a face are moved a thousandth of a voxel inwards, so that rounding them always
    gives a voxel.
    """
    sides = np.array(volume.shape)
    limit = 0.5 + _FACE_TOLERANCE
    outside = np.any((voxels < -limit) | (voxels > sides - 1 + limit), axis=1)
    if outside.any():
        first = voxels[int(np.argmax(outside))]
        many = f"{int(outside.sum())} of {len(voxels)} lie" if len(voxels) > 1 else "lies"
        raise PromptError(
            f"{many} outside the volume: voxel {show(first)}, valid (0, 0, 0) to {show(sides - 1)}"
        )
    return np.clip(voxels, _FACE_TOLERANCE - 0.5, sides - 0.5 - _FACE_TOLERANCE)


def check_margin(voxels: np.ndarray) -> None:
    """Check that distinct (N, 3) margin points span a target on a slice or in the volume."""
    spanned = [axis for axis in range(3) if np.ptp(voxels[:, axis]) > 0]
    if len(spanned) < 2:
        raise PromptError(
            f"the {len(voxels)} margin points {show(voxels[0])} to {show(voxels[-1])} lie on a "
            "line along an axis: give points on every side of the target"
        )
    least, where = _LEAST_MARGIN[len(spanned)], "in a slice" if len(spanned) == 2 else "in 3D"
    if len(voxels) < least:
        raise PromptError(
            f"holds {len(voxels)} different margin points: give at least {least} {where}, "
            f"best {2 * len(spanned)} near the extremes of the target"
        )


def margin_box(voxels: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Half-open corners of the box that (N, 3) margin points draw, one voxel around them."""
    return _grown(voxels, shape, np.ones(3))


def relaxed_box(voxels: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Half-open corners of the part of the volume that holds all of the target."""
    sides = np.ptp(voxels, axis=0) + 1
    return _grown(voxels, shape, np.maximum(_RELAXED_VOXELS, np.ceil(_RELAXED_SHARE * sides)))


def _grown(
    voxels: np.ndarray, shape: Sequence[int], grow: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The box of voxels, grown along the axes that it is not flat in."""
    lo, hi = voxels.min(axis=0), voxels.max(axis=0) + 1
    grow = grow * (hi - lo > 1)
    return np.maximum(lo - grow, 0), np.minimum(hi + grow, shape)


def voxel_edges(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole half-open edges of the box between (2, 3) corners given in half-open voxels."""
    low, high = corners
    if np.any(high < low):
        raise PromptError(f"is inverted: lo {show(low)} must be below hi {show(high)}")
    if np.any(np.isclose(low, high, rtol=0, atol=_EDGE_TOLERANCE)):
        raise PromptError(f"is empty: lo {show(low)} and hi {show(high)} enclose no voxel")
    return np.floor(low + _EDGE_TOLERANCE), np.ceil(high - _EDGE_TOLERANCE)


def edges_between(corners: np.ndarray, backwards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole half-open edges of the voxels whose centres lie between two places in the world.

    Where none does along one axis, the voxel in the middle: both corners are in one slice.

    Args:
        corners: (2, 3) voxel coordinates of opposite corners in any order, centres at whole
            numbers.
        backwards: (3,) True for axes that run against the world's, see `nearest`.
    """
    low, high = corners.min(axis=0), corners.max(axis=0)
    flat = np.isclose(low, high, rtol=0, atol=_EDGE_TOLERANCE)
    if flat.sum() > 1:
        raise PromptError(f"is empty: voxels {show(low)} to {show(high)} enclose no voxel")
    lo, hi = nearest(low + 0.5, backwards), nearest(high + 0.5, backwards)
    middle = nearest((low + high) / 2, backwards)
    flat |= lo == hi
    return np.where(flat, middle, lo), np.where(flat, middle + 1, hi)


def nearest(voxels: np.ndarray, backwards: np.ndarray) -> np.ndarray:
    """Nearest whole numbers as int64; halves go the same way in the world on every grid.

    Args:
        voxels: (..., 3) coordinates.
        backwards: (3,) True for axes that run left, posterior or inferior.
    """
    return np.floor(settled(voxels, backwards) + 0.5).astype(np.int64)


def settled(voxels: np.ndarray, backwards: np.ndarray) -> np.ndarray:
    """Coordinates without what millimetres and affines did to them, halves as in `nearest`."""
    exact = np.round(voxels, _KEPT_DECIMALS)
    return exact - _FACE_TOLERANCE * (backwards & (exact % 1 == 0.5))


def plain(values: Any) -> Any:
    """A tuple of Python numbers where `values` is a sequence, else `values` as it is."""
    if isinstance(values, np.ndarray):
        return tuple(values.tolist()) if values.ndim else values
    if isinstance(values, (list, tuple)):
        return tuple(value.item() if isinstance(value, np.generic) else value for value in values)
    return values


def array(values: Any) -> np.ndarray:
    """An array of any kind; a ragged list gives one that no check accepts."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None, dtype=object)


def whole(values: np.ndarray) -> tuple[int, int, int]:
    """Three Python integers."""
    i, j, k = (int(value) for value in values)
    return i, j, k


def show(values: Iterable[float]) -> str:
    """Coordinates as text."""
    return "(" + ", ".join(f"{float(value):.6g}" for value in values) + ")"


def brief(value: object) -> str:
    """A representation of at most about 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
