"""The parts of a target that its prompts point at: two lesions of one label are two parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from promptseg.inference.crop import mask_extent
from promptseg.inference.labels import FrameMasks
from promptseg.inference.slice_prompts import BOTH, CORRECTION, REFINE
from promptseg.prompts.types import Box, Mask, Point, Prompt, PromptSet, Scribble
from promptseg.volume.slicing import in_plane

if TYPE_CHECKING:
    from typing_extensions import TypeIs

# A click farther from what was found than half its longest side points at something else.
APART_SHARE = 0.5


@dataclass(frozen=True)
class Component:
    """One part of a target.

    Args:
        target: Its label.
        key: Number that no other part of any target has.
        prompts: Those that point at it, with the key for their target.
    """

    target: int
    key: int
    prompts: PromptSet


def boxed_parts(prompts: PromptSet, axis: int) -> list[list[Prompt]]:
    """Prompts of one target by the part of it that they point at.

    Boxes on different slices that overlap bound one part, on the same slice each its own; all
    other prompts belong to the nearest box.
    """
    groups: list[list[Box]] = []
    for box in (prompt for prompt in prompts if isinstance(prompt, Box)):
        meant = [group for group in groups if _same_part(box, group, axis)]
        if meant:
            max(meant, key=lambda group: max(_overlap(box, b, axis) for b in group)).append(box)
        else:
            groups.append([box])
    if len(groups) < 2:
        return [list(prompts)]
    parts: list[list[Prompt]] = [[] for _ in groups]
    for prompt in prompts:
        parts[_nearest(prompt, groups, axis)].append(prompt)
    return parts


def _same_part(box: Box, group: Sequence[Box], axis: int) -> bool:
    """True if a box repeats one of a part, or continues it on another slice."""
    if any((box.lo, box.hi) == (other.lo, other.hi) for other in group):
        return True
    taken = {_middle(other, axis) for other in group}
    overlap = max(_overlap(box, other, axis) for other in group)
    return overlap > 0 and _middle(box, axis) not in taken


def _middle(box: Box, axis: int) -> int:
    return int(box.lo[axis] + box.hi[axis] - 1) // 2


def _overlap(one: Box, other: Box, axis: int) -> float:
    """In-plane area that two boxes share, over that of the smaller one."""
    sides = [
        (min(one.hi[a], other.hi[a]) - max(one.lo[a], other.lo[a]),
         min(one.hi[a] - one.lo[a], other.hi[a] - other.lo[a]))
        for a in in_plane(axis)
    ]  # fmt: skip
    return float(np.prod([max(0.0, shared) / side for shared, side in sides]))


def _nearest(prompt: Prompt, groups: Sequence[Sequence[Box]], axis: int) -> int:
    """Number of the part that a prompt points at: by place in the plane, then by slice."""
    if isinstance(prompt, Box):
        return next(n for n, group in enumerate(groups) if any(prompt is b for b in group))
    places = places_of(prompt)
    if places is None:
        return 0
    order = [*in_plane(axis), axis]

    def away(box: Box) -> tuple[float, float]:
        beyond = np.maximum(np.subtract(box.lo, places), places - np.array(box.hi) + 1)
        outside = np.maximum(beyond, 0)[:, order]
        nearest = outside[np.lexsort((outside[:, 2], np.hypot(outside[:, 0], outside[:, 1])))[0]]
        return float(np.hypot(nearest[0], nearest[1])), float(nearest[2])

    return min(range(len(groups)), key=lambda n: min(away(box) for box in groups[n]))


def places_of(prompt: Prompt) -> np.ndarray | None:
    """(N, 3) voxels that a prompt other than a box marks; None for words."""
    if isinstance(prompt, Point):
        return np.array([prompt.at])
    if isinstance(prompt, Scribble):
        return np.asarray(prompt.voxels)
    if isinstance(prompt, Mask):
        cells = np.argwhere(prompt.data)
        if prompt.axis is None:
            return cells
        return np.insert(cells, prompt.axis, prompt.index or 0, axis=1)
    return None


def numbered(parts: Mapping[int, Sequence[Sequence[Prompt]]]) -> list[Component]:
    """Components of targets; the first part of each keeps the target's own number."""
    free = max(parts, default=0)
    found = []
    for target, groups in parts.items():
        for n, group in enumerate(groups):
            free += n > 0
            key = target if n == 0 else free
            own = PromptSet(replace(prompt, target=key) for prompt in group)
            found.append(Component(target, key, own))
    return found


def is_later(prompt: Prompt) -> TypeIs[Point | Scribble]:
    """True for a click or stroke on an earlier answer."""
    return isinstance(prompt, (Point, Scribble)) and prompt.role in (CORRECTION, BOTH, REFINE)


def only_clicks(prompts: PromptSet) -> bool:
    """True for several clicks inside a target and nothing else that says where it is."""
    clicks = [prompt for prompt in prompts if isinstance(prompt, Point)]
    return len(clicks) == len(prompts) and sum(click.positive for click in clicks) > 1


def assigned(prompt: Prompt, extents: Sequence[Extent], spacing: Sequence[float]) -> int | None:
    """Number of the part that a later prompt is about; None if it points at a new one.

    A click inside a target that lies far from all that was found of it starts a part of its own,
    rather than bending what is there.

    Args:
        prompt: A later click or stroke.
        extents: What is known of each part so far.
        spacing: (3,) mm.
    """
    places = places_of(prompt)
    if places is None:
        return 0
    away = [extent.away(places, spacing) for extent in extents]
    nearest = int(np.argmin(away))
    adds = isinstance(prompt, Scribble) or (isinstance(prompt, Point) and prompt.role != REFINE)
    adds = adds and getattr(prompt, "positive", False)
    if adds and all(far > e.reach(spacing) for far, e in zip(away, extents, strict=True)):
        return None
    return nearest


@dataclass(frozen=True, eq=False)
class Extent:
    """The box around a part in voxels, half-open.

    Args:
        low: (3,) first voxel.
        high: (3,) one past the last.
    """

    low: np.ndarray
    high: np.ndarray

    def away(self, places: np.ndarray, spacing: Sequence[float]) -> float:
        """Millimetres from the nearest of (N, 3) voxels; 0 inside."""
        outside = np.maximum(np.maximum(self.low - places, places - self.high + 1), 0)
        return float(np.linalg.norm(outside * np.array(spacing), axis=1).min())

    def reach(self, spacing: Sequence[float]) -> float:
        """Millimetres within which a click still belongs to the part."""
        return APART_SHARE * float(((self.high - self.low) * np.array(spacing)).max())

    def around(self, places: np.ndarray) -> Extent:
        """The same, with some voxels in it."""
        low = np.minimum(self.low, np.floor(places.min(0)))
        return Extent(low, np.maximum(self.high, np.floor(places.max(0)) + 1))


def with_prompt(extent: Extent, prompt: Prompt) -> Extent:
    """The same with what a later prompt marks inside."""
    places = places_of(prompt)
    if places is None or not getattr(prompt, "positive", True):
        return extent
    return extent.around(places)


def extent_of(prompts: Sequence[Prompt], found: Sequence[FrameMasks]) -> Extent:
    """Around what a part's prompts mark inside it and what was found of it."""
    marked = [p for p in prompts if getattr(p, "positive", True)]
    corners = [np.array([p.lo, np.subtract(p.hi, 1)]) for p in marked if isinstance(p, Box)]
    corners += [places for p in marked if (places := places_of(p)) is not None]
    corners += [np.array([low, high - 1]) for low, high in _found(found)]
    places = np.concatenate(corners)
    return Extent(np.floor(places.min(0)), np.floor(places.max(0)) + 1)


def _found(found: Sequence[FrameMasks]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for group in found:
        axis = group.frame.axis
        rows, cols = in_plane(axis)
        for masks in group.answers.values():
            filled = {i: e for i, m in masks.items() if (e := mask_extent(m, group.frame))}
            if not filled:
                continue
            low, high = np.zeros(3), np.zeros(3)
            low[axis], high[axis] = min(filled), max(filled) + 1
            for side, name in ((rows, "rows"), (cols, "cols")):
                ends = [getattr(extent, name) for extent in filled.values()]
                low[side], high[side] = min(e[0] for e in ends), max(e[1] for e in ends)
            yield low, high


def box_bounds(prompts: PromptSet, axis: int) -> tuple[int, int] | None:
    """Half-open range of the slices that a part's 3D boxes hold, and clicks beyond them.

    None without a 3D box, and where a whole mask says more.
    """
    if any(isinstance(p, Mask) and p.axis is None for p in prompts):
        return None
    boxes = [p for p in prompts if isinstance(p, Box)]
    if all(box.hi[axis] - box.lo[axis] == 1 for box in boxes):
        return None
    ends = [(int(box.lo[axis]), int(box.hi[axis])) for box in boxes]
    for prompt in prompts:
        places = None if isinstance(prompt, Box) else places_of(prompt)
        if places is not None and getattr(prompt, "positive", True):
            at = np.floor(places[:, axis] + 0.5).astype(int)
            ends.append((int(at.min()), int(at.max()) + 1))
    return min(low for low, _ in ends), max(high for _, high in ends)


def in_targets(answered: Sequence[FrameMasks], components: Sequence[Component]) -> list[FrameMasks]:
    """Answers of components as those of their targets, no target twice in one group."""
    target_of = {component.key: component.target for component in components}
    found = []
    for group in answered:
        left = dict(group.answers)
        while left:
            layer: dict[int, int] = {}
            for key in left:
                layer.setdefault(target_of.get(key, key), key)
            answers = {target: left.pop(key) for target, key in layer.items()}
            cut = tuple(target for target, key in layer.items() if key in group.cut)
            found.append(FrameMasks(group.frame, answers, layer, cut))
    return found
