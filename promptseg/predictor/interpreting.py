"""What the prompts of a part mean, before a view is chosen: lone clicks and loose boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from promptseg.inference.box_reading import box_looks, read_box, tightened
from promptseg.inference.caching import LRUCache
from promptseg.inference.crop import crop_factor, mask_extent, squared
from promptseg.inference.multimask import MaskCandidate, mask_candidates
from promptseg.inference.ranking import MaskRanking
from promptseg.inference.slice_prompts import BoxAnswer, SlicePrompts
from promptseg.predictor.views import Views
from promptseg.volume.slicing import Region, take_slice

CLICKS, BOXES = 64, 64


class PromptInterpreter:
    """Reads the prompts of one part of a target; what clicks could mean is kept.

    Args:
        views: Of the volume.
        ranking: Of the masks that a click or a box could mean; None to go by predicted quality, and
            to take what the network draws in a box.
    """

    def __init__(self, views: Views, ranking: MaskRanking | None = None) -> None:
        self.views, self.axis, self.ranking = views, views.axis, ranking
        self.crops = views.decoder.encoder.backbone.spec.crop
        self._candidates: LRUCache[str, list[MaskCandidate]] = LRUCache(CLICKS, lambda _: 1)
        self._read: LRUCache[str, BoxAnswer] = LRUCache(BOXES, lambda _: 1)

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
        """With what boxes mean, and those that are a little too large as large as that.

        A view of them, and what the other axes are asked, is then that of a tight box. On the
        synthetic CT two voxels of room on every side of a kidney cost 0.35 of Dice without.
        """
        found = dict(prompted)
        for index, place in prompted.items() if self.crops else ():
            alone = place.without_corrections() or place
            if place.box is None or not alone.only_box:
                continue
            read = self._box_answer(index, alone)
            extent = self._drawn(index, alone) if read is None else extent_of(read.logits)
            found[index] = replace(place, box=tightened(place.box, extent, self.axis), read=read)
        return found

    def _box_answer(self, index: int, place: SlicePrompts) -> BoxAnswer | None:
        """What a box alone means; None where nothing was trained to say it.

        A name or a map beside it tells the network more than the ranking has seen.
        """
        if self.ranking is None or place.concept is not None or place.dense is not None:
            return None
        key = f"{index}:{place.signature()}"
        found = self._read.get(key)
        if found is None:
            views = self.views
            looks = box_looks(views.decoder, self.axis, views.spacing, index, place)
            found = read_box(looks, self.ranking)
            if found is not None:
                self._read.put(key, found)
        return found

    def _drawn(self, index: int, place: SlicePrompts) -> Region | None:
        """In-plane extent of what the network draws in a box."""
        around, views = place.extent(self.axis), self.views
        if around is None:
            return None
        factor = crop_factor(views.decoder.encoder)
        tracker = views.tracker(squared(around, self.axis, views.spacing, factor))
        return mask_extent(tracker.answer(index, place), tracker.frame)


def extent_of(logits: np.ndarray) -> Region | None:
    """In-plane extent of (H, W) logits above 0; None where there are none."""
    rows, cols = np.nonzero(logits > 0)
    if not len(rows):
        return None
    return Region((rows.min(), rows.max() + 1), (cols.min(), cols.max() + 1))
