"""Where the slices of a stack lie, and whether they make a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.io.dicom.frames import Frame

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0])
# Positions are rounded in many files, by scanners to 0.1 % of a step, by converters to 0.01 mm. A
# slice that is nearer than this to its place on the grid is taken to be there.
_NEAR_MM, _NEAR_STEP = 0.02, 0.01
_TILT_DEGREES = 0.5
_TURN = 1e-3
"""Largest difference of direction cosines within one stack: 0.06 degrees."""


class NoGrid(ValueError):
    """Why slices make no volume."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a stack are.

    Args:
        frames: Slices along the normal, row x column direction.
        affine: (4, 4) of (column, row, slice) to RAS millimetres.
        notes: What is unusual.
    """

    frames: tuple[Frame, ...]
    affine: np.ndarray
    notes: tuple[str, ...] = ()


def same_plane(first: Frame, second: Frame) -> bool:
    """True if two slices are parallel and have the same pixels."""
    return (
        first.shape == second.shape
        and float(np.abs(first.directions - second.directions).max()) <= _TURN
        and bool(np.allclose(first.spacing, second.spacing, rtol=1e-4, atol=0))
    )


def same_place(pixel_mm: float) -> float:
    """Millimetres within which two slices are at the same position."""
    return min(0.01, pixel_mm / 10)


def by_position(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames along the normal of the first, those at one position together."""
    normal = frames[0].normal
    heights = [float(frame.position @ normal) for frame in frames]
    apart = same_place(min(frames[0].spacing))
    places: list[list[Frame]] = []
    last = -math.inf
    for place in np.argsort(heights, kind="stable"):
        if heights[place] - last > apart:
            places.append([])
        places[-1].append(frames[place])
        last = heights[place]
    return places


def grid_of(frames: Sequence[Frame]) -> Grid:
    """The grid of a stack whose slices are at different positions.

    Raises:
        NoGrid: The slices are not evenly spaced along a line.
    """
    first, last = frames[0], frames[-1]
    if len(frames) == 1:
        step = first.normal * (first.thickness or 1.0)
    else:
        step = (last.position - first.position) / (len(frames) - 1)
        _check_even(frames, step)
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.spacing[1]
    affine[:3, 1] = first.directions[1] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    affine[:3] = RAS_FROM_LPS @ affine[:3]
    return Grid(tuple(frames), affine, tuple(_remarks(frames, step)))


def _check_even(frames: Sequence[Frame], step: np.ndarray) -> None:
    positions = np.array([frame.position for frame in frames])
    places = positions[0] + np.arange(len(frames))[:, None] * step
    off = float(np.linalg.norm(positions - places, axis=1).max())
    if off <= max(_NEAR_MM, _NEAR_STEP * float(np.linalg.norm(step))):
        return
    heights = positions @ frames[0].normal
    steps = np.diff(heights)
    if steps.max() - steps.min() <= max(_NEAR_MM, _NEAR_STEP * steps.mean()):
        raise NoGrid(
            f"its slices do not lie on a line: they are up to {off:.3g} mm beside one "
            "(gantry tilt that changes, or slices of several scans)"
        )
    raise NoGrid(_uneven(heights, steps))


def _uneven(heights: np.ndarray, steps: np.ndarray) -> str:
    small = float(np.median(steps)) if len(steps) > 2 else float(steps.min())
    shown = ", ".join(f"{one:g}" for one in sorted({round(float(one), 3) for one in steps})[:6])
    ratios = steps / small
    whole = bool(np.all(np.abs(ratios - np.rint(ratios)) < 0.05) and np.rint(ratios).max() > 1)
    said = f"its slices are not evenly spaced (steps of {shown} mm)"
    if whole:
        place = int(np.argmax(steps))
        missing = int(np.rint(ratios).sum()) - len(steps)
        said += (
            f": {missing} {'is' if missing == 1 else 'are'} missing, the first gap lies after "
            f"slice {place + 1} of {len(heights)}"
        )
    return f"{said}; get the missing slices, or resample the series to even steps first"


def _remarks(frames: Sequence[Frame], step: np.ndarray) -> list[str]:
    first, length = frames[0], float(np.linalg.norm(step))
    said = []
    cosine = min(1.0, abs(float(first.normal @ step)) / length)
    tilt = math.degrees(math.acos(cosine))
    if tilt > _TILT_DEGREES:
        said.append(
            f"gantry tilt of {tilt:.1f} degrees: the grid is sheared as the scan was, no value is "
            "resampled"
        )
    if len(frames) == 1 and first.thickness is None:
        said.append("one slice that does not say how thick it is: taken as 1 mm")
    return said
