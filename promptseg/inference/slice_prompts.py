"""Prompts sorted by slice and target, and drawn in the pixels of a frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from promptseg.backbones.base import PixelPrompts
from promptseg.errors import PromptError
from promptseg.prompts.types import MARGIN, Box, Mask, Point, PromptSet, Scribble
from promptseg.prompts.validation import relaxed_box
from promptseg.volume.slicing import Frame, Region, in_plane, take_slice

CORRECTION, REFINE, BOTH = "correction", "refine", "correction+refine"
GIVEN_MASK_LOGIT = 8.0


@dataclass(frozen=True, eq=False)
class BoxAnswer:
    """What a box was taken to mean (`inference.box_reading`).

    Args:
        logits: (H, W) float32 on the whole slice, the mask where > 0.
        dice: Expected of it.
        presence: Probability that the target is there.
    """

    logits: np.ndarray
    dice: float
    presence: float


@dataclass
class SlicePrompts:
    """What the user said of one target on one slice, in voxels.

    Args:
        points: (i, j, k) of clicks.
        labels: 1 foreground, 0 background, one a click.
        correction: One a click, True if it was made on an earlier answer.
        box: Half-open (lo, hi) or None.
        strokes: (N, 3) voxels of foreground and of background strokes.
        mask: (H, W) bool or None.
        concept: (C,) token that names the target, None for "whatever is prompted".
        dense: (H, W) map in [0, 1] of where the target is, for networks trained with one.
        late: Strokes like `strokes` that were drawn on an earlier answer, to correct it.
        guess: (H, W) bool mask that a lone click most likely means; the network is told of it.
        read: What a box alone means; it is the answer.
    """

    points: list[tuple[float, ...]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    correction: list[bool] = field(default_factory=list)
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    strokes: tuple[list[np.ndarray], list[np.ndarray]] = field(default_factory=lambda: ([], []))
    mask: np.ndarray | None = None
    concept: torch.Tensor | None = None
    dense: np.ndarray | None = None
    late: tuple[list[np.ndarray], list[np.ndarray]] = field(default_factory=lambda: ([], []))
    guess: np.ndarray | None = None
    read: BoxAnswer | None = None

    @property
    def starts(self) -> bool:
        """True if a propagation can start here: something says where the target is."""
        clicked = any(
            positive and not late
            for positive, late in zip(self.labels, self.correction, strict=True)
        )
        return clicked or self.box is not None or self.mask is not None or bool(self.strokes[0])

    @property
    def verbatim(self) -> bool:
        """True if the user gave the mask itself and nothing else."""
        return self.mask is not None and not (self.points or self.box or self._strokes)

    @property
    def ambiguous(self) -> bool:
        """True for a single click of which nothing else is known."""
        return self.lone and self.guess is None

    @property
    def lone(self) -> bool:
        """True for a single click and nothing else from the user."""
        alone = self.box is None and self.mask is None and not self._strokes
        return alone and self.labels == [1]

    @property
    def only_box(self) -> bool:
        """True for a box and nothing else from the user."""
        return self.box is not None and self.mask is None and not (self.points or self._strokes)

    @property
    def corrects(self) -> bool:
        """True unless all that is said here says where the target is, before any answer."""
        return not self.starts or self.without_corrections() is not None

    @property
    def includes(self) -> bool:
        """True if something says that part of the slice is inside."""
        return self.starts or any(self.labels) or bool(self.late[0])

    @property
    def _strokes(self) -> list[np.ndarray]:
        return [stroke for kind in (self.strokes, self.late) for side in kind for stroke in side]

    def without_corrections(self) -> SlicePrompts | None:
        """The prompts given before any correction; None if there are no corrections."""
        if not (any(self.correction) or self.late[0] or self.late[1]) or not self.starts:
            return None
        kept = [n for n, late in enumerate(self.correction) if not late]
        return replace(
            self,
            points=[self.points[n] for n in kept],
            labels=[self.labels[n] for n in kept],
            correction=[False] * len(kept),
            late=([], []),
        )

    def signature(self) -> str:
        """Text that differs where the prompts differ."""
        strokes = [[s.tobytes().hex() for s in side] for side in (*self.strokes, *self.late)]
        mask = None if self.mask is None else np.packbits(self.mask).tobytes().hex()
        named = None if self.concept is None else self.concept.cpu().numpy().tobytes().hex()
        dense = None if self.dense is None else self.dense.tobytes()
        guess = None if self.guess is None else np.packbits(self.guess).tobytes().hex()
        given = self.points, self.labels, self.correction, self.box, strokes, mask, named, guess
        drawn = dense, None if self.read is None else self.read.logits.tobytes()
        digests = (None if d is None else hashlib.sha256(d).hexdigest() for d in drawn)
        return repr((*given, *digests))

    def extent(self, axis: int) -> Region | None:
        """Smallest in-plane region around what is in the foreground; None if nothing is."""
        rows, cols = in_plane(axis)
        corners = [np.array(p)[[rows, cols]] for p, label in zip(self.points, self.labels,
                   strict=True) if label]  # fmt: skip
        inner = [*self.strokes[0], *self.late[0]]
        corners += [stroke[:, [rows, cols]].min(0) for stroke in inner]
        corners += [stroke[:, [rows, cols]].max(0) for stroke in inner]
        if self.box is not None:
            corners += [
                np.array(self.box[0])[[rows, cols]],
                np.array(self.box[1])[[rows, cols]] - 1,
            ]
        for plane in (self.mask, self.guess):
            if plane is not None and plane.any():
                inside = np.argwhere(plane)
                corners += [inside.min(0), inside.max(0)]
        if not corners:
            return None
        low = np.floor(np.min(corners, 0) + 0.5).astype(int)
        high = np.floor(np.max(corners, 0) + 0.5).astype(int) + 1
        return Region((low[0], high[0]), (low[1], high[1]))

    def to_pixels(self, frame: Frame, index: int, mask_size: int) -> PixelPrompts:
        """The same in pixels of a frame's square input."""
        points = frame.to_pixels(np.array(self.points).reshape(-1, 3))
        box = None if self.box is None else torch.from_numpy(frame.box_to_pixels(*self.box)).float()
        known, mask = self.guess if self.lone else self.mask, None
        if known is not None:
            mask = (frame.project(known, mask_size) * 2 - 1) * GIVEN_MASK_LOGIT
        return PixelPrompts(
            torch.from_numpy(points).float(),
            torch.tensor(self.labels, dtype=torch.long),
            box,
            mask,
            self._drawn(frame),
        )

    def _drawn(self, frame: Frame) -> torch.Tensor | None:
        if not self._strokes and self.dense is None:
            return None
        sides = ([*early, *late] for early, late in zip(self.strokes, self.late, strict=True))
        drawn = torch.stack([draw_strokes(side, frame) for side in sides])
        if self.dense is not None:
            drawn[0] = torch.maximum(drawn[0], frame.project(self.dense, frame.size))
        return drawn


def draw_strokes(strokes: list[np.ndarray], frame: Frame) -> torch.Tensor:
    """(size, size) 1 where a stroke of (N, 3) voxels passes, however small a voxel appears."""
    rows, cols = in_plane(frame.axis)
    canvas = np.zeros((frame.shape[rows], frame.shape[cols]), np.float32)
    for stroke in strokes:
        canvas[stroke[:, rows], stroke[:, cols]] = 1
    drawn = (frame.project(canvas, frame.size) > 0.2).float()
    for stroke in strokes:
        x, y = np.floor(frame.to_pixels(stroke)).astype(int).T
        shown = (x >= 0) & (x < frame.size) & (y >= 0) & (y < frame.size)
        drawn[y[shown], x[shown]] = 1
    return drawn


BySlice = dict[int, dict[int, SlicePrompts]]


def sort_prompts(prompts: PromptSet, axis: int, shape: tuple[int, int, int]) -> BySlice:
    """Sort resolved prompts as {target: {slice: SlicePrompts}}, in the order they were given.

    A 3D box becomes a 2D box on its middle slice; `target_limits` keeps its extent. Margin points
    stay where their box is drawn: alone on a slice, one says nothing of the target's size. Words
    point at no slice: `promptseg.session.spoken` sees to them. Several masks of one target on one
    slice add up to their union.

    Raises:
        PromptError: If a 2D box lies along another axis than the slices, or a target has two
            different boxes on one slice.
    """
    sorted_prompts: BySlice = {}

    def at(target: int, index: int) -> SlicePrompts:
        return sorted_prompts.setdefault(target, {}).setdefault(int(index), SlicePrompts())

    for prompt in prompts:
        if isinstance(prompt, Point) and prompt.role != REFINE:
            index = int(np.floor(prompt.at[axis] + 0.5))
            if prompt.role == MARGIN and not boxed(sorted_prompts, prompt.target, index):
                continue
            place = at(prompt.target, index)
            place.points.append(prompt.at)
            place.labels.append(int(prompt.positive))
            place.correction.append(prompt.role in (CORRECTION, BOTH) or not prompt.positive)
        elif isinstance(prompt, Box):
            check_box(prompt, axis)
            index = int(prompt.lo[axis] + prompt.hi[axis] - 1) // 2
            at(prompt.target, index).box = prompt.lo, prompt.hi
        elif isinstance(prompt, Scribble) and prompt.role != REFINE:
            for index in np.unique(prompt.voxels[:, axis]):
                here = prompt.voxels[prompt.voxels[:, axis] == index]
                place = at(prompt.target, index)
                kind = place.late if prompt.role == CORRECTION else place.strokes
                kind[0 if prompt.positive else 1].append(here)
        elif isinstance(prompt, Mask):
            for index, plane in mask_slices(prompt, axis, shape):
                place = at(prompt.target, index)
                place.mask = plane if place.mask is None else place.mask | plane
    return sorted_prompts


def boxed(sorted_prompts: BySlice, target: int, index: int) -> bool:
    """True if the target has a box on the slice."""
    place = sorted_prompts.get(target, {}).get(index)
    return place is not None and place.box is not None


def check_box(box: Box, axis: int) -> None:
    """Raise PromptError for a box that is one voxel thin across the slices."""
    thin = [a for a in in_plane(axis) if box.hi[a] - box.lo[a] == 1]
    if thin and box.hi[axis] - box.lo[axis] > 1:
        raise PromptError(
            f"box {box.lo} to {box.hi} is flat along axis {thin[0]}, but slices are taken along "
            f"axis {axis}: use axis {thin[0]} or auto, or give a 3D box"
        )


def mask_slices(
    mask: Mask, axis: int, shape: tuple[int, int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Index and (H, W) plane of every slice on which a mask prompt has voxels."""
    dense = mask.dense(shape)
    others = tuple(a for a in range(3) if a != axis)
    for index in np.flatnonzero(dense.any(others)):
        yield int(index), take_slice(dense, axis, int(index)).copy()


def target_limits(prompts: PromptSet, axis: int, count: int) -> dict[int, tuple[int, int]]:
    """Half-open slice range that a target may fill: 3D boxes and masks bound it."""
    limits: dict[int, tuple[int, int]] = {}
    for prompt in prompts:
        extent = None
        if isinstance(prompt, Box) and prompt.hi[axis] - prompt.lo[axis] > 1:
            extent = int(prompt.lo[axis]), int(prompt.hi[axis])
        elif isinstance(prompt, Mask) and prompt.axis is None:
            filled = np.flatnonzero(prompt.data.any(tuple(a for a in range(3) if a != axis)))
            extent = (int(filled[0]), int(filled[-1]) + 1) if len(filled) > 1 else None
        if extent is not None:
            low, high = limits.get(prompt.target, extent)
            limits[prompt.target] = min(low, extent[0]), max(high, extent[1])
    return {target: limits.get(target, (0, count)) for target in prompts.targets}


def margin_bounds(prompts: PromptSet, shape: tuple[int, int, int]) -> dict[int, tuple[slice, ...]]:
    """The grown box of the margin points of every target that has them on several slices.

    A later click or stroke inside the target widens it.

    Args:
        prompts: In voxels.
        shape: (I, J, K) of the volume.
    """
    found: dict[int, tuple[slice, ...]] = {}
    for target in prompts.targets:
        mine = prompts.for_target(target)
        clicks = [p for p in mine if isinstance(p, Point) and p.positive]
        marked = np.array([p.at for p in clicks if p.role == MARGIN]).reshape(-1, 3)
        if len(marked) and np.ptp(marked, axis=0).all():
            strokes = [p.voxels for p in mine if isinstance(p, Scribble) and p.positive]
            places = np.concatenate([[p.at for p in clicks], *strokes])
            lo, hi = relaxed_box(np.floor(places + 0.5), shape)
            found[target] = tuple(slice(int(a), int(b)) for a, b in zip(lo, hi, strict=True))
    return found
