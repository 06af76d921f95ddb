"""What the coarse 3D view is taught by: targets as an adapter's own tracks find them from a box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptseg.datasets.cohort import Case
from promptseg.datasets.simulation.users import jittered_box
from promptseg.errors import PromptError
from promptseg.inference.labels import FrameMasks
from promptseg.inference.slice_prompts import SlicePrompts, sort_prompts
from promptseg.predictor.uncertainty import Interaction
from promptseg.prompts.types import Box
from promptseg.propagation.coarse import CoarseView, Told, hints_in
from promptseg.propagation.coarse_cube import Cube
from promptseg.propagation.coarse_fusion import looks_of
from promptseg.propagation.coarse_inputs import coarse_channels
from promptseg.session import Segmenter
from promptseg.volume.slicing import in_plane, take_slice

Rng = np.random.Generator
Mask = NDArray[np.bool_]

JITTER = 0.05
LEAST_AREA = 12
# The cube of a lesson is that of an answer, and the same nearer or farther away.
ZOOM = (0.85, 1.4)


@dataclass(frozen=True)
class Lesson:
    """One look at one target.

    Args:
        channels: (`CHANNELS`, D, H, W) float16, what the view is told.
        target: (D, H, W) bool.
        label: Of the target.
    """

    channels: Tensor
    target: Tensor
    label: int


def lessons_of(
    segmenter: Segmenter,
    view: CoarseView,
    case: Case,
    labels: Sequence[int],
    axis: int | str,
    window: str,
    boxes: int,
    rng: Rng,
) -> Iterator[Lesson]:
    """Looks at every label of a case, from boxes on likely slices.

    Args:
        segmenter: With the adapter in use and without a coarse view.
        view: Says where a look goes.
        case: Labelled.
        labels: Those the adapter knows.
        axis: As `Segmenter.session` takes it.
        window: The same.
        boxes: So many for every label.
        rng: Draws slices, jitter and zoom.
    """
    for label in labels:
        truth = np.asarray(case.labels) == label
        session = segmenter.session(case.volume, axis, window)
        for _ in range(boxes):
            box = _likely_box(truth, session.asker.file_axis(session.prompts), label, rng)
            if box is None:
                break
            try:
                session.add(box)
                session.propagate()
            except PromptError:
                continue
            yield from _looks(session.asker.interaction, view, truth, label, rng)
            session.undo()


def _likely_box(truth: Mask, axis: int, label: int, rng: Rng) -> Box | None:
    """A jittered box on the largest slice, or on one the likelier the larger it is."""
    areas = truth.sum(in_plane(axis)).astype(float)
    areas[areas < LEAST_AREA] = 0
    if not areas.any():
        return None
    chances = areas**2 / (areas**2).sum()
    index = int(areas.argmax()) if rng.random() < 0.5 else int(rng.choice(len(areas), p=chances))
    plane = take_slice(truth, axis, index)
    x0, y0, x1, y1 = np.floor(jittered_box(plane, rng, JITTER) + 0.5).astype(int).tolist()
    rows, cols = in_plane(axis)
    low, high = [0, 0, 0], [0, 0, 0]
    low[axis], high[axis] = index, index + 1
    low[rows], high[rows] = y0, max(y1, y0 + 1)
    low[cols], high[cols] = x0, max(x1, x0 + 1)
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]), target=label)


def _looks(
    asked: Interaction, view: CoarseView, truth: Mask, label: int, rng: Rng
) -> Iterator[Lesson]:
    """The two looks of an answer, each in its cube and in one of another size."""
    engine = asked.engine
    known = asked.seen.orientation.apply(truth)
    prompts = sort_prompts(asked.question.prompts, engine.axis, engine.shape)[label]
    image = engine.encoder.data
    for group in asked.answered:
        told = told_in(group, prompts, label)
        if told is None:
            continue
        cube = view.answer(image, engine.spacing, told[0]).cube
        other = replace(cube, length=cube.length * float(rng.uniform(*ZOOM)))
        for look in told:
            for place in (cube, other):
                channels = coarse_channels(hints_in(image, look, place)).half()
                yield Lesson(channels, _inside(known, place), label)


def told_in(
    group: FrameMasks, prompts: Mapping[int, SlicePrompts], label: int
) -> tuple[Told, Told] | None:
    """What the view is told at both looks; None where no prompted slice has a mask."""
    masks = group.answers.get(label, {})
    first, second = looks_of(group.frame, prompts, masks)
    return (first, second) if first.masks else None


def _inside(truth: Mask, cube: Cube) -> Tensor:
    return torch.from_numpy(cube.sample(truth, 0.0) > 0.5)
