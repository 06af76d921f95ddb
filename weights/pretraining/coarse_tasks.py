"""Training tasks of the coarse 3D view: what a user and a slice network tell of a target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pretraining.coarse_views import (
    LEAST,
    View,
    labelled_view,
    lesion,
    likely_slice,
    supervoxel,
    unlabelled_view,
)
from pretraining.corrections import changed_grey
from pretraining.episodes import Case
from pretraining.faults import faulty_logits, smooth_field
from promptseg.datasets.simulation.clicks import deepest, largest_component
from promptseg.propagation.coarse_inputs import ANSWERED, PROMPTED, CoarseHints

Rng = np.random.Generator
Mask = NDArray[np.bool_]
Field = NDArray[np.float32]

SUPERVOXELS, LESIONS = 0.12, 0.08
# Chances of what is told: the mask of one prompted slice with its box, without a box, of several
# slices, a 3D box, and answers on all slices from a slice network.
ONE, BOXLESS, SEVERAL, BOX3D, ALL = 0.28, 0.12, 0.12, 0.08, 0.4
# What a track does beyond the end of its target, or before it: ends early, runs on, neither.
EARLY, ON = 0.35, 0.35


@dataclass
class CoarseTask:
    """A view of a target.

    Args:
        hints: What is told.
        target: (D, H, W) bool.
        axis: Slice axis in the view.
    """

    hints: CoarseHints
    target: Mask
    axis: int


def coarse_task(case: Case, side: int, rng: Rng) -> CoarseTask | None:
    """A view of a random target of a case, None if the draw had no usable one.

    Args:
        case: A volume.
        side: Elements of the view's sides.
        rng: Draws target, view, grey values and what is told.
    """
    axis = int(rng.choice(case.axes))
    view = _view(case, axis, side, rng)
    if view is None:
        return None
    image, inside, target = view
    target = target & inside
    if target.sum() < LEAST:
        return None
    image = np.clip(changed_grey(image, rng), 0, 1)
    return _mirrored(_told(image, inside, target, axis, _thickness(case, axis), rng), rng)


def _view(case: Case, axis: int, side: int, rng: Rng) -> View | None:
    draw = rng.random()
    if draw >= SUPERVOXELS + LESIONS:
        return labelled_view(case, axis, side, rng)
    image, inside, _ = unlabelled_view(case, axis, side, rng)
    made = supervoxel(image, rng) if draw < SUPERVOXELS else lesion(image, rng)
    return None if made is None else (made[0], inside, made[1])


def _thickness(case: Case, axis: int) -> float:
    """Distance of slices over the distance of their pixels."""
    others = [s for a, s in enumerate(case.spacing) if a != axis]
    return case.spacing[axis] / max(others)


def _told(
    image: Field, inside: Mask, target: Mask, axis: int, thickness: float, rng: Rng
) -> CoarseTask:
    kind = rng.choice(5, p=(ONE, BOXLESS, SEVERAL, BOX3D, ALL))
    filled = np.flatnonzero(target.any(tuple(a for a in range(3) if a != axis)))
    index = likely_slice(target, axis, rng)
    logits, trust = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
    hints = CoarseHints(image, inside, logits, trust)
    # A slice that is thicker than an element of the view fills several of its planes.
    reach = int(np.clip(round((thickness - 1) / 2 * rng.uniform(0.3, 1)), 0, 3))
    if kind == 4:
        _answer_all(hints, target, axis, index, rng)
    for key in {index, *(int(n) for n in rng.choice(filled, 3) if kind == 2)}:
        _answer_slice(hints, target, axis, key, reach, rng)
    if kind != 1:
        hints = _boxed(hints, target, axis, index, reach, kind == 3, rng)
    else:
        hints = _clicked_slice(hints, target, axis, index, rng)
    return CoarseTask(hints, target, axis)


def _planes(field: NDArray[Any], axis: int) -> NDArray[Any]:
    return np.moveaxis(field, axis, 0)


def _answer_slice(
    hints: CoarseHints, target: Mask, axis: int, index: int, reach: int, rng: Rng
) -> None:
    """The mask of a prompted slice, exact or with an outline somewhat off."""
    plane = _planes(target, axis)[index]
    height = _signed2d(plane)
    if rng.random() < 0.8:
        size = max(2.0, float(plane.sum()) ** 0.5)
        cells = int(rng.integers(3, 10))
        noise = cv2.resize(
            rng.standard_normal((cells, cells)).astype(np.float32), plane.shape[::-1]
        )
        height = height + size * np.float32(rng.uniform(0, 0.1)) * noise
        height = height + np.float32(rng.normal(0, 0.04) * size)
    for n in range(max(0, index - reach), min(len(_planes(target, axis)), index + reach + 1)):
        _planes(hints.logits, axis)[n] = np.clip(height / rng.uniform(0.3, 2), -6, 6)
        _planes(hints.trust, axis)[n] = PROMPTED


def _signed2d(plane: Mask) -> Field:
    inside = cv2.distanceTransform(plane.astype(np.uint8), cv2.DIST_L2, 5)
    return inside - cv2.distanceTransform((~plane).astype(np.uint8), cv2.DIST_L2, 5)


def _answer_all(hints: CoarseHints, target: Mask, axis: int, index: int, rng: Rng) -> None:
    """Answers of a slice network from a key slice on, with the faults of tracks.

    A track ends early or runs on beyond the target with its last mask, that drifts.
    """
    logits = np.array(_planes(faulty_logits(target, hints.image, rng), axis))
    planes, known = _planes(hints.logits, axis), _planes(hints.trust, axis)
    filled = np.flatnonzero(_planes(target, axis).any((1, 2)))
    noise = smooth_field((len(planes), 4, 4), 2, rng) * np.float32(rng.uniform(0, 1.5))
    for step, last in ((-1, int(filled[0])), (1, int(filled[-1]))):
        end = _end(index, last, step, len(planes), rng)
        drift = np.float32(rng.normal(0, 0.4))
        for n in range(index + step, end + step, step):
            if (n - last) * step > 0:
                logits[n] = logits[n - step] + drift
            if rng.random() < 0.95:
                planes[n] = logits[n] + cv2.resize(noise[n], planes[n].shape[::-1])
                known[n] = ANSWERED


def _end(index: int, last: int, step: int, count: int, rng: Rng) -> int:
    """The last plane of a track from `index` that should end at `last`."""
    draw = rng.random()
    if draw < EARLY:
        return index + int((last - index) * rng.uniform(0, 0.95))
    beyond = int(rng.integers(1, 17) if draw < EARLY + ON else rng.integers(0, 3))
    return int(np.clip(last + step * beyond, 0, count - 1))


def _boxed(
    hints: CoarseHints, target: Mask, axis: int, index: int, reach: int, deep: bool, rng: Rng
) -> CoarseHints:
    """The box of a slice, or of the whole target, with 5 to 10 % jitter."""
    shape = target.shape
    cells = np.argwhere(target) if deep else np.argwhere(_planes(target, axis)[index])
    low, high = cells.min(0).astype(float), cells.max(0) + 1.0
    extent = high - low
    loose = rng.uniform(0, 0.1) if rng.random() < 0.3 else 0.0
    low += rng.normal(0, 0.04, len(low)) * extent - loose * extent
    high += rng.normal(0, 0.04, len(low)) * extent + loose * extent
    if not deep:
        low, high = np.insert(low, axis, index - reach), np.insert(high, axis, index + reach + 1)
    box, boxed = np.zeros(shape, bool), np.zeros(shape, bool)
    limits = [
        (int(np.clip(round(a), 0, n - 1)), int(np.clip(round(b), 1, n)))
        for a, b, n in zip(low, high, shape, strict=True)
    ]
    box[tuple(slice(a, max(b, a + 1)) for a, b in limits)] = True
    a, b = limits[axis]
    _planes(boxed, axis)[slice(None) if deep else slice(a, max(b, a + 1))] = True
    return replace(hints, box=box, boxed=boxed)


def _clicked_slice(
    hints: CoarseHints, target: Mask, axis: int, index: int, rng: Rng
) -> CoarseHints:
    plane = np.zeros(target.shape, bool)
    _planes(plane, axis)[index] = _planes(target, axis)[index]
    positive = np.zeros(target.shape, bool)
    for _ in range(int(rng.integers(1, 4))):
        positive[deepest(plane, (1, 1, 1), rng)] = True
        plane &= ~ndimage.binary_dilation(positive, iterations=3)
        if not plane.any():
            break
    return replace(hints, positive=positive)


def _mirrored(task: CoarseTask, rng: Rng) -> CoarseTask:
    """Axes in another order, some mirrored: a view has no up or down."""
    order = tuple(int(n) for n in rng.permutation(3))
    flips = tuple(a for a in range(3) if rng.random() < 0.5)

    def turn(field: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.flip(field.transpose(order), flips))

    known = {name: value for name, value in vars(task.hints).items() if value is not None}
    hints = replace(task.hints, **{name: turn(value) for name, value in known.items()})
    return CoarseTask(hints, turn(task.target), order.index(task.axis))


def with_click(task: CoarseTask, answer: Field, rng: Rng) -> CoarseTask:
    """The task after an answer and one more click on its largest error.

    Args:
        task: As it was asked.
        answer: (D, H, W) logits that the network gave.
        rng: Draws where in the error the click lies.
    """
    error = largest_component((answer > 0) != task.target)
    if error.sum() < 3:
        return task
    at = deepest(error, (1, 1, 1), rng)
    name = "positive" if task.target[at] else "negative"
    seeds = getattr(task.hints, name)
    seeds = np.zeros(task.target.shape, bool) if seeds is None else seeds.copy()
    seeds[at] = True
    return replace(task, hints=replace(task.hints, **{name: seeds}, previous=answer))
