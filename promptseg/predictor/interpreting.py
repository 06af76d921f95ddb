"""What the prompts of a part mean, before a view is chosen: lone clicks and loose boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from promptseg.inference.caching import LRUCache
from promptseg.inference.crop import crop_factor, mask_extent, squared
from promptseg.inference.multimask import MaskCandidate, mask_candidates
from promptseg.inference.ranking import MaskRanking
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.predictor.views import Views
from promptseg.volume.slicing import Region, in_plane, take_slice

CLICKS = 64
# Shares of a box's side that it may be larger than its target and mean the same.
LEAST_ROOM, MOST_ROOM = 0.05, 0.25


class PromptInterpreter:
    """Reads the prompts of one part of a target; what clicks could mean is kept.

    Args:
        views: Of the volume.
        ranking: Of the masks that a click could mean; None to go by predicted quality.
    """

    def __init__(self, views: Views, ranking: MaskRanking | None = None) -> None:
        self.views, self.axis, self.ranking = views, views.axis, ranking
        self.crops = views.decoder.encoder.backbone.spec.crop
        self._candidates: LRUCache[str, list[MaskCandidate]] = LRUCache(CLICKS, lambda _: 1)

    def read(
        self, slices: dict[int, SlicePrompts], token: Tensor | None, volume: np.ndarray | None
    ) -> dict[int, SlicePrompts]:
        """Prompts of a part as they are to be taken.

        Args:
            slices: Its prompts by slice.
            token: Names it.
            volume: (I, J, K) map that is drawn where its prompts are.
        """
        return self._tightened(self._guessed(self._marked(slices, token, volume)))

    def mask_candidates(self, index: int, click: SlicePrompts) -> list[MaskCandidate]:
        """What a click could mean, the likeliest first; nothing is computed twice.

        Empty for other prompts, and for a network that always sees the whole slice.
        """
        if not (click.lone and self.crops):
            return []
        plain = replace(click, guess=None)
        key = f"{index}:{plain.signature()}"
        found = self._candidates.get(key)
        if found is None:
            views = self.views
            found = mask_candidates(
                views.decoder, self.axis, views.spacing, index, plain, self.ranking
            )
            self._candidates.put(key, found)
        return found

    def _marked(
        self, slices: dict[int, SlicePrompts], token: Tensor | None, volume: np.ndarray | None
    ) -> dict[int, SlicePrompts]:
        """Prompts of a part with the token that names it and the map drawn where they are."""
        return {
            index: replace(
                place,
                concept=token,
                dense=place.dense if volume is None else take_slice(volume, self.axis, index),
            )
            for index, place in slices.items()
        }

    def _guessed(self, prompted: dict[int, SlicePrompts]) -> dict[int, SlicePrompts]:
        """With what each most likely means, where a target has nothing but lone clicks."""
        firsts = {i: p.without_corrections() or p for i, p in prompted.items() if p.starts}
        if not all(first.lone for first in firsts.values()):
            return prompted
        guessed = dict(prompted)
        for index, first in firsts.items():
            found = self.mask_candidates(index, first)
            guessed[index] = replace(prompted[index], guess=found[0].mask if found else None)
        return guessed

    def _tightened(self, prompted: dict[int, SlicePrompts]) -> dict[int, SlicePrompts]:
        """With boxes that were drawn a little too large as large as what is found in them.

        A view of them, and what the other axes are asked, is then that of a tight box. On the
        synthetic CT two voxels of room on every side of a kidney cost 0.35 of Dice without.
        """
        found, views = dict(prompted), self.views
        for index, place in prompted.items() if self.crops else ():
            alone = place.without_corrections() or place
            around = alone.extent(self.axis)
            if place.box is None or around is None or not alone.only_box:
                continue
            factor = crop_factor(views.decoder.encoder)
            tracker = views.tracker(squared(around, self.axis, views.spacing, factor))
            extent = mask_extent(tracker.answer(index, alone), tracker.frame)
            found[index] = replace(place, box=tightened(place.box, extent, self.axis))
        return found


def tightened(
    box: tuple[tuple[float, ...], tuple[float, ...]], found: Region | None, axis: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
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
