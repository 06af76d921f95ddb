"""A volume as training uses it: slices first, labels by place, where each label is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from promptseg.datasets.simulation import users
from promptseg.finetune.objectives.levels import level_set
from promptseg.volume.slicing import in_plane

LEAST_PIXELS = 12
UNKNOWN = 255
# Strokes run within their target: its box is about this many times theirs (ACDC: 1.1 to 1.5).
STROKE_ROOM = 1.3
BODY_LEVEL = 0.04
Box = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OrganCase:
    """A labelled volume as training uses it.

    Args:
        name: Case name.
        image: (N, H, W) grey values, slices first.
        labels: (N, H, W) uint8, 0 or 1 + place of the label among the adapter's; `UNKNOWN` where
            nobody annotated.
        spacing: Millimetres of a row and of a column.
        thickness: Millimetres from slice to slice.
        window: Grey values that become 0 and 1.
        slices: Indices of the slices on which each label has at least `LEAST_PIXELS`.
        boxes: Each label's box x0, y0, x1, y1 over all slices.
        body: Box of what is not black.
        mirror: Factors of x and y that swap left and right; 1, 1 where no side of a slice does.
        levels: (L, N, H, W) signed distances of each label in [-1, 1], where they are learned.
        missing: Places of the labels that nobody annotated in this case.
    """

    name: str
    image: NDArray[np.generic]
    labels: NDArray[np.uint8]
    spacing: tuple[float, float]
    thickness: float
    window: tuple[float, float]
    slices: dict[int, NDArray[np.int64]]
    boxes: dict[int, Box]
    body: Box
    mirror: tuple[int, int] = (1, 1)
    levels: NDArray[np.float16] | None = None
    missing: frozenset[int] = frozenset()


def organ_case(
    name: str,
    data: NDArray[np.generic],
    known: NDArray[np.integer],
    labels: Sequence[int],
    axis: int,
    spacing: Sequence[float] | NDArray[np.floating],
    window: tuple[float, float],
    sides: int | None = None,
    strokes: bool = False,
) -> OrganCase:
    """Bring a case into the form that training uses.

    Args:
        name: Case name.
        data: (I, J, K) image.
        known: (I, J, K) labels; below 0 where nobody annotated.
        labels: Those the adapter learns, in order.
        axis: Slice axis.
        spacing: (3,) mm.
        window: Grey values that become 0 and 1.
        sides: Voxel axis from left to right; None if mirroring is not wanted.
        strokes: True if labels are strokes inside their targets.
    """
    image = np.ascontiguousarray(np.moveaxis(data, axis, 0))
    planes = np.zeros(image.shape, np.uint8)
    planes[np.moveaxis(known, axis, 0) < 0] = UNKNOWN
    for place, label in enumerate(labels):
        planes[np.moveaxis(known, axis, 0) == label] = place + 1
    slices, boxes = {}, {}
    for place in range(len(labels)):
        mask = planes == place + 1
        filled = np.flatnonzero(mask.sum((1, 2)) >= LEAST_PIXELS)
        if len(filled):
            box = users.tight_box(mask.any(0))
            slices[place], boxes[place] = filled, grown(box) if strokes else box
    shown = image.max(0) > window[0] + BODY_LEVEL * (window[1] - window[0])
    body = users.tight_box(shown if shown.any() else np.ones_like(shown))
    rows, cols = in_plane(axis)
    millimetres = (float(spacing[rows]), float(spacing[cols]))
    thickness = float(spacing[axis])
    mirror = -1 if sides == cols else 1, -1 if sides == rows else 1
    return OrganCase(
        name, image, planes, millimetres, thickness, window, slices, boxes, body, mirror
    )


def sections_of(cases: Sequence[OrganCase], labels: Sequence[int]) -> dict[int, float]:
    """Largest area of each label on a slice in cm², over cases with whole labels."""
    found: dict[int, float] = {}
    for case in cases:
        square = case.spacing[0] * case.spacing[1] / 100
        for place in case.slices:
            area = float((case.labels == place + 1).sum((1, 2)).max()) * square
            found[labels[place]] = max(found.get(labels[place], 0.0), round(area, 2))
    return found


def grown(box: Box, factor: float = STROKE_ROOM) -> Box:
    """A box x0, y0, x1, y1 with `factor` times its sides."""
    half = (box[2:] - box[:2]) * (factor - 1) / 2
    return np.concatenate([box[:2] - half, box[2:] + half]).astype(np.float32)


def carried(box: Box, body: Box, other: Box) -> Box:
    """A box of one body in the same place and proportion of another body."""
    scale = (other[2:] - other[:2]) / np.maximum(body[2:] - body[:2], 1e-6)
    low, high = ((edge - body[:2]) * scale + other[:2] for edge in (box[:2], box[2:]))
    return np.concatenate([low, high]).astype(np.float32)


Completed = Callable[[NDArray[np.floating], NDArray[np.integer]], NDArray[np.integer]]


def with_strokes(case: OrganCase, completed: Completed) -> OrganCase:
    """The same with its strokes as an objective learns from them.

    Args:
        case: Its labels are strokes.
        completed: `Objective.completed`.
    """
    low, high = case.window
    grey = np.clip((case.image.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    strokes = np.where(case.labels == UNKNOWN, -1, case.labels.astype(np.int16))
    found = completed(grey, strokes)
    return replace(case, labels=np.where(found < 0, UNKNOWN, found).astype(np.uint8))


def with_levels(case: OrganCase, count: int) -> OrganCase:
    """The same with the signed distances of `count` labels, measured within each slice."""
    spacing = (case.thickness, *case.spacing)
    maps = [level_set(case.labels == place + 1, spacing, planes=True) for place in range(count)]
    return replace(case, levels=np.stack(maps).astype(np.float16))
