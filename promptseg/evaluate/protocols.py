"""Simulated users: what each gives first, in voxels of a task's volume."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from promptseg.datasets.simulation import users
from promptseg.datasets.simulation.clicks import Mask, deepest, largest_component, margin_places
from promptseg.errors import PromptError
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task, on_slice
from promptseg.prompts.types import Box, MarginPoints, Point, Prompt, Scribble, Text
from promptseg.volume import bounding_slices
from promptseg.volume.slicing import in_plane, take_slice

_ROOM = 0.5


def first_prompts(task: Task, settings: Settings, rng: np.random.Generator) -> list[Prompt]:
    """What the simulated user gives first.

    Args:
        task: Its target must not be empty.
        settings: Protocol and its options.
        rng: Every random choice.

    Raises:
        PromptError: The protocol needs words that are not there.
    """
    return _FIRST[settings.first](task, settings, rng)


def box_prompts(task: Task, settings: Settings, rng: np.random.Generator) -> list[Prompt]:
    """A flat box whose edges jitter; in a volume on the slice with the largest area."""
    index, target = prompted_slice(task)
    x0, y0, x1, y1 = np.floor(users.jittered_box(target, rng, settings.jitter) + 0.5).astype(int)
    height, width = target.shape
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    lo = on_slice((y0, x0), task.axis, index)
    hi = on_slice((max(y1, y0 + 1), max(x1, x0 + 1)), task.axis, index + 1)
    return [Box(lo, hi)]


def point_prompts(task: Task, settings: Settings, rng: np.random.Generator) -> list[Prompt]:
    """A click at the deepest place of the largest component."""
    return [Point(task.voxel(deepest(largest_component(task.target), task.spacing, rng)))]


def margin_prompts(task: Task, settings: Settings, rng: np.random.Generator) -> list[Prompt]:
    """Interior margin points near the extremes: up to four on a slice, six in a volume.

    A target too small for them gets plain clicks there.

    Source: Luo et al., MIDeepSeg, section 3.2.1 of the thesis (METHODS A).
    """
    places = [task.voxel(at) for at in margin_places(task.target, rng)]
    margin = MarginPoints(np.array(places))
    try:
        margin.resolve(task.volume)
    except PromptError:
        return [Point(place) for place in places]
    return [margin]


def scribble_prompts(task: Task, settings: Settings, rng: np.random.Generator) -> list[Prompt]:
    """Human strokes where there are any; else one simulated inside and one outside the target."""
    strokes = task.strokes
    if strokes is None:
        strokes = simulated_strokes(task, rng)
    elif task.index is not None:
        strokes = on_canvas(task, task.index, *(task.view(drawn) for drawn in strokes))
    sides = zip(strokes, (True, False), strict=True)
    return [Scribble.from_mask(drawn, positive) for drawn, positive in sides if drawn.any()]


def simulated_strokes(task: Task, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(I, J, K) bool strokes inside and outside the target on its slice, or its largest one.

    They are drawn in a crop around the target, since their thickness follows the crop's size.
    """
    index, whole = prompted_slice(task)
    crop = roomy_crop(whole)
    target = np.ascontiguousarray(whole[crop])
    drawn = np.zeros((2, *whole.shape), bool)
    drawn[0][crop] = users.scribble(target, rng)
    if not target.all():
        drawn[1][crop] = users.scribble(~target, rng)
    return on_canvas(task, index, drawn[0], drawn[1])


def on_canvas(
    task: Task, index: int, inside: np.ndarray, outside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Strokes of one slice on an else empty volume."""
    canvases = np.zeros((2, *task.volume.shape), bool)
    for canvas, drawn in zip(canvases, (inside, outside), strict=True):
        take_slice(canvas, task.axis, index)[...] = drawn
    return canvases[0], canvases[1]


def roomy_crop(target: Mask, room: float = _ROOM) -> tuple[slice, ...]:
    """Slices around a target that leave `room` of its side on every side, within the image."""
    box = bounding_slices(target) or tuple(slice(0, side) for side in target.shape)
    extra = [max(2, round(room * (side.stop - side.start))) for side in box]
    return tuple(
        slice(max(0, side.start - more), min(count, side.stop + more))
        for side, more, count in zip(box, extra, target.shape, strict=True)
    )


def text_prompts(task: Task, settings: Settings, rng: np.random.Generator) -> list[Prompt]:
    """Words."""
    if not settings.text:
        raise PromptError("there are no words: give text, or an adapter that names its organ")
    return [Text(settings.text)]


def no_prompts(task: Task, settings: Settings, rng: np.random.Generator) -> list[Prompt]:
    """Nothing."""
    return []


def prompted_slice(task: Task) -> tuple[int, Mask]:
    """Index and target of the task's slice; in a volume, of the slice with the largest area."""
    if task.index is not None:
        return task.index, task.target
    index = int(np.argmax(task.truth.sum(in_plane(task.axis))))
    return index, take_slice(task.truth, task.axis, index)


_FIRST: dict[str, Callable[[Task, Settings, np.random.Generator], list[Prompt]]] = {
    "box": box_prompts,
    "point": point_prompts,
    "margin": margin_prompts,
    "scribble": scribble_prompts,
    "text": text_prompts,
    "auto": no_prompts,
}
