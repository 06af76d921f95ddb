"""A target in 3D from points just inside its boundary, seen along every axis.

Points near the extremes of a target bound it on every slice along every axis: each side of its
box is met where the point near that side lies, and from there the bound closes like an ellipse to
the points near the two ends. So every slice is asked with a box of its own, and nothing has to be
carried from slice to slice. The axes vote, and then every slice is asked once more with the vote
as its mask.

The points are those of MIDeepSeg, section 3.2.1 of the thesis (METHODS A); there a 3D network sees
the box that they bound. What single steps give is measured in `benchmarks/margin_choices.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from promptseg.backbones.base import PixelPrompts
from promptseg.inference.crop import CROP, frame_of, squared, stored_or
from promptseg.inference.decoder import ABSENT_LOGIT, Request, SliceDecoder
from promptseg.inference.encoder import Progress
from promptseg.inference.slice_prompts import REFINE, SlicePrompts
from promptseg.prompts.types import Point, PromptSet
from promptseg.volume.slicing import Frame, Region, in_plane, take_slice

# Once and twice are compared in benchmarks/margin_choices.py.
ROUNDS = 2
# Voxels longer than this many times their width show too little of a target along other axes.
THICKEST = 3.0
LIMIT = -ABSENT_LOGIT
Bound = tuple[slice, ...]
Corners = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Span:
    """What is known of a target before the network is asked.

    Args:
        points: N times (i, j, k) just inside the target near its extremes, flat along no axis.
        bound: Part of the volume that holds all of it.
        clicks: Points in voxels; each is told to the slices that it lies on.
    """

    points: tuple[tuple[float, ...], ...]
    bound: Bound
    clicks: tuple[Point, ...]

    @property
    def places(self) -> np.ndarray:
        """(N, 3) float64 of the points."""
        return np.array(self.points, float)


def span_of(prompts: PromptSet, bound: Bound) -> Span:
    """What the prompts of one target tell; clicks that only the graph cut takes up tell nothing.

    A later click inside the target counts among the points, so that one beyond them widens it.

    Args:
        prompts: In voxels, margin points among them.
        bound: Part of the volume that holds all of the target.
    """
    clicks = tuple(p for p in prompts if isinstance(p, Point) and p.role != REFINE)
    return Span(tuple(p.at for p in clicks if p.positive), bound, clicks)


def spanned(
    decoder: SliceDecoder,
    axis: int,
    spacing: Sequence[float],
    span: Span,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
) -> np.ndarray:
    """Probability of a target from points near its extremes.

    Args:
        decoder: Answers the slices.
        axis: The axis that is asked in any case.
        spacing: (3,) mm.
        span: Where the target is.
        rounds: How often every slice is asked, from the second time on with the vote.
        progress: Called with "segment", axes asked, axes to ask.

    Returns:
        float32 in [0, 1] of the shape of the span's bound.
    """
    axes = axes_asked(decoder, axis, spacing)
    vote, total = np.zeros(0, np.float32), rounds * len(axes)
    for done in range(0, total, len(axes)):
        views = []
        for number, view in enumerate(axes, start=1):
            views.append(_along(decoder, view, spacing, span, vote if done else None))
            if progress is not None:
                progress("segment", done + number, total)
        vote = np.asarray(np.mean(views, axis=0), np.float32)
    return 1 / (1 + np.exp(-vote))


def axes_asked(decoder: SliceDecoder, axis: int, spacing: Sequence[float]) -> list[int]:
    """The axis of the slices and, where slices are thin, the others.

    A network that does not look at crops around its prompt would have to encode every slice of
    the volume for them.
    """
    if not decoder.backbone.spec.crop:
        return [axis]
    return [a for a in range(3) if a == axis or max(spacing) <= THICKEST * min(spacing)]


def section(points: np.ndarray, axis: int, index: int) -> Corners:
    """Half-open corners of the box that bounds the target on one slice.

    Args:
        points: (N, 3) voxels near the target's extremes.
        axis: Of the slices.
        index: Slice, at most one beyond the points.
    """
    low, high = np.zeros(3), np.zeros(3)
    low[axis], high[axis] = index, index + 1
    for side in in_plane(axis):
        low[side] = _bound(points, axis, index, side, -1)
        high[side] = _bound(points, axis, index, side, 1) + 1
    return low, high


def _bound(points: np.ndarray, axis: int, index: int, side: int, sign: int) -> float:
    """Where the target ends on a slice towards one side: a quarter of an ellipse."""
    first, last = points[:, axis].min() - 1, points[:, axis].max() + 1
    outermost = points[(sign * points[:, side]).argmax()]
    widest = float(outermost[axis])
    end = first if index < widest else last
    tip = points[points[:, axis].argmin() if index < widest else points[:, axis].argmax()][side]
    closed = min(1.0, abs((index - widest) / (end - widest)))
    return float(tip + (outermost[side] + sign - tip) * np.sqrt(1 - closed**2))


def _along(
    decoder: SliceDecoder,
    axis: int,
    spacing: Sequence[float],
    span: Span,
    vote: np.ndarray | None,
) -> np.ndarray:
    """Logits in the bound, of every slice along one axis on which the target is."""
    encoder, bound = decoder.encoder, span.bound
    rows, cols = in_plane(axis)
    low, high = span.places.min(0).astype(int) - 1, span.places.max(0).astype(int) + 2
    region = Region((low[rows], high[rows]), (low[cols], high[cols]))
    holds = Region(*((bound[side].start, bound[side].stop) for side in (rows, cols)))
    factor = stored_or(decoder.encoder, CROP.margin_points)
    seen = squared(region, axis, spacing, factor).union(holds)
    frame = frame_of(encoder, axis, seen, spacing)
    indices = range(max(0, low[axis]), min(encoder.data.shape[axis], high[axis]))
    requests = [Request(i, _pixels(decoder, frame, span, i, vote)) for i in indices]
    masks = decoder.decode(frame, requests)
    planes = frame.restore(torch.stack([m.logits.clamp(-LIMIT, LIMIT) for m in masks])).numpy()
    top, left = bound[rows].start - frame.region.rows[0], bound[cols].start - frame.region.cols[0]
    found = np.full([side.stop - side.start for side in bound], -LIMIT, np.float32)
    height, width = found.shape[rows], found.shape[cols]
    for index, plane in zip(indices, planes, strict=True):
        shown = plane[top : top + height, left : left + width]
        take_slice(found, axis, index - bound[axis].start)[...] = shown
    return found


def handed(frame: Frame, plane: np.ndarray, side: int) -> Tensor:
    """(side, side) logits of an (H, W) plane of logits."""
    share = (plane.astype(np.float32).clip(-LIMIT, LIMIT) + LIMIT) / (2 * LIMIT)
    return frame.project(share, side) * 2 * LIMIT - LIMIT


def _pixels(
    decoder: SliceDecoder, frame: Frame, span: Span, index: int, vote: np.ndarray | None
) -> PixelPrompts:
    """What a slice is asked: its box, the clicks on it, and the vote of all axes."""
    axis, side = frame.axis, decoder.backbone.spec.mask_size
    pixels = _prompts(span, axis, index).to_pixels(frame, index, side)
    if vote is None:
        return pixels
    rows, cols = in_plane(axis)
    plane = np.full((frame.shape[rows], frame.shape[cols]), -LIMIT, np.float32)
    bound = span.bound
    plane[bound[rows], bound[cols]] = take_slice(vote, axis, index - bound[axis].start)
    return replace(pixels, mask=handed(frame, plane, side))


def _prompts(span: Span, axis: int, index: int) -> SlicePrompts:
    low, high = section(span.places, axis, index)
    here = [p for p in span.clicks if int(np.floor(p.at[axis] + 0.5)) == index]
    return SlicePrompts(
        points=[p.at for p in here],
        labels=[int(p.positive) for p in here],
        correction=[False] * len(here),
        box=(tuple(low.tolist()), tuple(high.tolist())),
    )
