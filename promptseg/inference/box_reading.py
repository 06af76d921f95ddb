"""What is meant in a box: views of several sizes, the box as it is and tighter, several levels.

A network is doubtful of what it has never seen, and draws too little of it: its logits stay below
0 in half of a target that fills its box. Which view is best differs too, an unknown target wants
to be seen near and a ring from farther away; and a box that was drawn with some room is better
answered as a tight one, but a tight one is not. What is drawn in it does not always say that it
has room: that of a ventricle reaches into the wall, and a network fills it with the wall, a ring
of Dice 0.1 with the ventricle. So a box is answered in a few ways, also as if it had `SPARE`, and a
ranking that was trained on boxes around known targets says which level of which is meant
(`inference.ranking`), and which Dice to expect of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from promptseg.inference.box_features import BoxView, features_of
from promptseg.inference.crop import frame_of, mask_extent, squared
from promptseg.inference.decoder import Request, SliceDecoder, SliceMask
from promptseg.inference.ranking import MaskRanking
from promptseg.inference.slice_prompts import BoxAnswer, SlicePrompts
from promptseg.volume.slicing import Frame, Region, in_plane

FACTORS = (1.3, 1.7, 2.4)
# Views in which the box is tried as large as what the middle one of the factors found in it.
TIGHTER = (1, 2)
# Share of a box that is taken for room on every side, a tenth of the target's own, and the views in
# which it is tried: those of the box as it is, which are encoded already.
SPARE, SPARED = 1 / 12, (0, 1)
LEVELS = (-3.0, -1.25, -0.5, 0.0, 0.75)
# Expected Dice by which a mask must be better than the usual one to be taken for it: what is
# expected is off by 0.1, and of masks that differ little the network knows best which (held-back
# chest X-rays 0.934 without, 0.947 with it; left atria 0.826 both; 0.05 loses 0.005 of those).
MARGIN = 0.03
# Shares of a box's side that it may be larger than its target and mean the same.
LEAST_ROOM, MOST_ROOM = 0.05, 0.25
Corners = tuple[tuple[float, ...], tuple[float, ...]]
OUTSIDE, MOST = -12.0, 12.0
# Logits between slice and view lie within ROOM; after so many rounds they come back as they were.
ROOM, ROUNDS = 36.0, 6


@dataclass(frozen=True, eq=False)
class BoxLooks:
    """What a box gave.

    Args:
        views: Of the box as it is, nearest first, as if it had room, and of the tighter one if
            that differs.
        planes: (V, H, W) logits on the whole slice.
        masks: (V * L, H, W) bool, by view and level.
        features: Gives their (V * L, F) numbers.
    """

    views: list[BoxView]
    planes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    features: Callable[[], NDArray[np.float32]]


def box_looks(
    decoder: SliceDecoder, axis: int, spacing: Sequence[float], index: int, place: SlicePrompts
) -> BoxLooks:
    """Answers of a box and nothing else in views of several sizes.

    Args:
        decoder: Of a network that is trained on crops.
        axis: Slice axis.
        spacing: (3,) mm.
        index: Slice number.
        place: The box.
    """
    if place.box is None or not place.only_box:
        raise ValueError("a box and nothing else is wanted")
    box = place.box

    def frames(bounds: Corners, factors: Sequence[float]) -> list[Frame]:
        around = region_of(bounds, axis)
        return [
            frame_of(decoder.encoder, axis, squared(around, axis, spacing, factor), spacing)
            for factor in factors
        ]

    def answered(asked: Sequence[tuple[Frame, Corners]]) -> list[SliceMask]:
        side = decoder.backbone.spec.mask_size
        return decoder.decode_in(
            [
                (frame, Request(index, replace(place, box=told).to_pixels(frame, index, side)))
                for frame, told in asked
            ]
        )

    own, spared = frames(box, FACTORS), without_room(box, axis)
    found = answered([(frame, box) for frame in own] + [(own[n], spared) for n in SPARED])
    plain, roomy = found[: len(own)], found[len(own) :]
    views = [BoxView(*one) for one in zip(own, FACTORS, plain, strict=True)]
    views += [
        BoxView(own[n], FACTORS[n] / (1 - 2 * SPARE), mask, spared=True)
        for n, mask in zip(SPARED, roomy, strict=True)
    ]
    middle = views[TIGHTER[0]]
    tight = tightened(box, mask_extent(middle.mask, middle.frame), axis)
    if tight != box:
        factors = [FACTORS[n] for n in TIGHTER]
        nearer = frames(tight, factors)
        found = answered([(frame, tight) for frame in nearer])
        views += [BoxView(*one, tighter=True) for one in zip(nearer, factors, found, strict=True)]
    planes = np.stack([on_slice(view.frame, view.mask.logits) for view in views])
    levels = np.array(LEVELS, np.float32)[:, None, None]
    masks = (planes[:, None] > levels).reshape(-1, *planes.shape[1:])

    def features() -> NDArray[np.float32]:
        return features_of(decoder.encoder, views, LEVELS, index, box, masks)

    return BoxLooks(views, planes, masks, features)


def region_of(box: Corners, axis: int) -> Region:
    """The whole voxels in the plane of a slice that a box has."""
    low, high = (np.floor(np.array(corner)[list(in_plane(axis))] + 0.5).astype(int)
                 for corner in (box[0], np.array(box[1]) - 1))  # fmt: skip
    return Region((low[0], high[0] + 1), (low[1], high[1] + 1))


def on_slice(frame: Frame, logits: torch.Tensor) -> NDArray[np.float32]:
    """(H, W) logits of the whole slice, out of (m, m) of a view."""
    rows, cols = in_plane(frame.axis)
    plane = np.full((frame.shape[rows], frame.shape[cols]), OUTSIDE, np.float32)
    image, region = frame.paste_slices()
    plane[image] = frame.restore(logits[None])[0].numpy()[region]
    return plane


def read_box(looks: BoxLooks, ranking: MaskRanking) -> BoxAnswer | None:
    """The mask that most is expected of, or the usual one; None where there is none."""
    expected = np.array(ranking.of_box(looks.features()))
    expected[~looks.masks.any((1, 2))] = -1.0
    best, usual = int(expected.argmax()), usual_place(looks.views)
    if 0 <= expected[best] < expected[usual] + MARGIN:
        best = usual
    if expected[best] < 0:
        return None
    view, level = divmod(best, len(LEVELS))
    logits = looks.planes[view] - np.float32(LEVELS[level])
    return BoxAnswer(logits, float(expected[best]), looks.views[view].mask.presence)


def usual_place(views: Sequence[BoxView]) -> int:
    """Place among the masks of the one that the network was trained to give, of a tight box."""
    middle = [n for n, view in enumerate(views) if view.factor == FACTORS[TIGHTER[0]]]
    return middle[-1] * len(LEVELS) + LEVELS.index(0.0)


def in_frame(answer: BoxAnswer, frame: Frame, side: int) -> SliceMask:
    """The answer of a slice in a view, at `side` pixels, so that the view gives it back.

    Each way between a slice and a view smooths a little, and an outline that is smoothed twice more
    loses its corners (0.02 of Dice on hippocampi): what is missing is added again.
    """
    wanted = np.clip(answer.logits, -MOST, MOST)
    image, region = frame.paste_slices()
    sent, logits = wanted.copy(), in_view(wanted, frame, side)
    for _ in range(ROUNDS):
        sent[image] += wanted[image] - frame.restore(logits[None])[0].numpy()[region]
        logits = in_view(sent, frame, side)
    return SliceMask(logits, answer.dice / (2 - answer.dice), answer.presence)


def in_view(logits: NDArray[np.float32], frame: Frame, side: int) -> torch.Tensor:
    """(H, W) logits of a slice at `side` pixels of a view; the least outside the image."""
    share = np.clip(logits / (2 * ROOM) + 0.5, 0, 1).astype(np.float32)
    return (frame.project(share, side) - 0.5) * (2 * ROOM)


def without_room(box: Corners, axis: int) -> Corners:
    """A box without `SPARE` of each side in the plane."""
    lo, hi = list(box[0]), list(box[1])
    for side in in_plane(axis):
        room = SPARE * (hi[side] - lo[side])
        lo[side], hi[side] = lo[side] + room, hi[side] - room
    return tuple(lo), tuple(hi)


def tightened(box: Corners, found: Region | None, axis: int) -> Corners:
    """A box as large as the mask found in it, where it is a little larger.

    One that is much larger than its mask says rather that the mask is too small.

    Args:
        box: Half-open corners in voxels.
        found: In-plane extent of the mask, None if it is empty.
        axis: Slice axis.
    """
    if found is None:
        return box
    lo, hi, shares = list(box[0]), list(box[1]), []
    for side, (first, last) in zip(in_plane(axis), (found.rows, found.cols), strict=True):
        whole = hi[side] - lo[side]
        lo[side], hi[side] = max(lo[side], first), min(hi[side], last)
        shares.append(1 - (hi[side] - lo[side]) / whole)
    loose = max(shares) > LEAST_ROOM and max(shares) <= MOST_ROOM
    return (tuple(lo), tuple(hi)) if loose else box
