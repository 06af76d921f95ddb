"""The network that ships, propagating what another network has found on prompted slices.

Following a target through a volume is learned (`propagation.slice_step`), and what was learned
belongs to the features of one network. Another one answers the slices that are prompted; from
there the shipped network follows those masks, and every slice that it reaches is asked of the
other network again, with the mask that arrived there.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from promptseg.inference.caching import LRUCache
from promptseg.inference.decoder import ABSENT_LOGIT, SliceDecoder, SliceMask
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import Answers, FrameMasks, slice_logits
from promptseg.inference.slice_prompts import BoxAnswer, SlicePrompts
from promptseg.predictor.views import ByTarget, Views
from promptseg.propagation.coarse_fusion import asked_again, planes_of
from promptseg.propagation.track import masks_bytes, tensor_key
from promptseg.volume.slicing import Frame, Region, in_plane

Limits = Mapping[int, tuple[int, int]]
KEPT_BYTES = 64 << 20


class Answers3D(Protocol):
    """Answers targets that are looked for in one view, as `predictor.group` does."""

    views: Views

    def answer(
        self,
        region: Region,
        by_target: ByTarget,
        limits: dict[int, tuple[int, int]] | None,
        crowded: bool,
        progress: Progress | None,
    ) -> FrameMasks:
        """Answers in a view that is widened while a target reaches its edge."""
        ...


class Lender:
    """Propagates for another network.

    Args:
        answerer: Of the network that ships, with its slice step.
        borrower: Decoder of the other network.
    """

    def __init__(self, answerer: Answers3D, borrower: SliceDecoder) -> None:
        self.answerer, self.borrower = answerer, borrower
        self._known: LRUCache[Hashable, dict[int, SliceMask]] = LRUCache(KEPT_BYTES, masks_bytes)

    @property
    def views(self) -> Views:
        """Of the network that ships."""
        return self.answerer.views

    def whole(
        self,
        frame: Frame,
        prompts: ByTarget,
        key_masks: Answers,
        limits: Limits,
        crowded: bool,
        progress: Progress | None = None,
    ) -> Answers:
        """Answers of every target on every slice that it reaches, in a frame of the borrower.

        Args:
            frame: Of the borrower's masks.
            prompts: By target and slice.
            key_masks: The borrower's answers on prompted slices; they stay as they are.
            limits: Half-open slice range by target.
            crowded: True where there are many targets.
            progress: Called with stage, done, total.
        """
        told = {target: told_of(frame, prompts[target], m) for target, m in key_masks.items()}
        told = {target: slices for target, slices in told.items() if slices}
        found: Answers = {target: dict(masks) for target, masks in key_masks.items()}
        for region, targets in self.views.groups(told):
            chosen = {t: told[t] for t in targets}
            group = self.answerer.answer(region, chosen, dict(limits), crowded, progress)
            for target in targets:
                arrived = group.answers[target]
                new = {i: m for i, m in arrived.items() if i not in key_masks[target]}
                found[target] |= self._asked(frame, group.frame, new)
        return found

    def correct(
        self,
        frame: Frame,
        answers: dict[int, SliceMask],
        key_masks: dict[int, SliceMask],
        target: int,
        index: int,
        limits: dict[int, tuple[int, int]],
    ) -> dict[int, SliceMask]:
        """Answers of one target after one of its slices was corrected, as `Tracker.correct`.

        Args:
            frame: Of the borrower's masks.
            answers: By slice, before.
            key_masks: Prompted slices, the corrected one among them.
            target: The target.
            index: The corrected slice.
            limits: Half-open slice range by target.
        """
        key = (
            frame, target, index, limits[target],
            *((i, tensor_key(held[i])) for held in (key_masks, answers) for i in sorted(held)),
        )  # fmt: skip
        known = self._known.get(key)
        if known is None:
            known = self._correct(frame, answers, key_masks, target, index, limits)
            self._known.put(key, known)
        return dict(known)

    def _correct(
        self,
        frame: Frame,
        answers: dict[int, SliceMask],
        key_masks: dict[int, SliceMask],
        target: int,
        index: int,
        limits: dict[int, tuple[int, int]],
    ) -> dict[int, SliceMask]:
        """The same, not yet known."""
        held = {**answers, index: key_masks[index]}
        shown = {i: SlicePrompts(mask=p) for i, p in planes_of(frame, held).items() if p.any()}
        if not shown:
            return held
        region = self.views.groups({target: shown})[0][0]
        tracker = self.views.tracker(region)
        size = tracker.spec.mask_size
        before = carried_over(frame, tracker.frame, answers, size)
        keys = carried_over(frame, tracker.frame, key_masks, size)
        after = tracker.correct(before, keys, target, index, limits)
        same = {i for i in after.keys() & before.keys() if alike(after[i], before[i])}
        moved = {i: mask for i, mask in after.items() if i not in same and i not in key_masks}
        kept = {i: answers[i] for i in same} | {i: m for i, m in key_masks.items() if i in after}
        return kept | self._asked(frame, tracker.frame, moved)

    def _asked(
        self, frame: Frame, lent: Frame, masks: Mapping[int, SliceMask]
    ) -> dict[int, SliceMask]:
        """What the borrower makes of masks that arrived; each is the mean of both."""
        key = frame, lent, *((i, tensor_key(mask)) for i, mask in sorted(masks.items()))
        known = self._known.get(key)
        if known is None:
            known = self._answered(frame, lent, masks)
            self._known.put(key, known)
        return dict(known)

    def _answered(
        self, frame: Frame, lent: Frame, masks: Mapping[int, SliceMask]
    ) -> dict[int, SliceMask]:
        """The same, not yet known."""
        size = self.borrower.backbone.spec.mask_size
        shown = carried_over(lent, frame, masks, size)
        filled = {i: mask.logits for i, mask in shown.items() if mask.area}
        found = asked_again(self.borrower, frame, filled)
        return {i: replace(mask, looked=masks[i].looked) for i, mask in found.items()}


def told_of(
    frame: Frame, prompts: Mapping[int, SlicePrompts], masks: Mapping[int, SliceMask]
) -> dict[int, SlicePrompts]:
    """What the lender is told of prompted slices: their masks, and a box where that is all."""
    told = {}
    for index, plane in planes_of(frame, masks).items():
        said, mask = prompts.get(index), masks[index]
        if not plane.any():
            continue
        if said is not None and said.only_box:
            read = BoxAnswer(whole_plane(frame, mask), mask.quality, mask.presence)
            told[index] = SlicePrompts(box=said.box, read=read)
        else:
            told[index] = SlicePrompts(mask=plane)
    return told


def whole_plane(frame: Frame, mask: SliceMask) -> np.ndarray:
    """(H, W) float32 logits of an answer on its whole slice, plainly absent beyond its frame."""
    rows, cols = in_plane(frame.axis)
    plane = np.full((frame.shape[rows], frame.shape[cols]), ABSENT_LOGIT, np.float32)
    for _, place, logits in slice_logits([FrameMasks(frame, {1: {0: mask}})], 0):
        plane[place] = logits.clip(ABSENT_LOGIT, -ABSENT_LOGIT)
    return plane


def carried_over(
    frame: Frame, other: Frame, masks: Mapping[int, SliceMask], size: int
) -> dict[int, SliceMask]:
    """Answers in one frame as they lie in another, (size, size) pixels."""

    def moved(mask: SliceMask) -> Tensor:
        share = 1 / (1 + np.exp(-whole_plane(frame, mask)))
        return other.project(share, size).clamp(1e-3, 1 - 1e-3).logit()

    return {i: replace(mask, logits=moved(mask), given=None) for i, mask in masks.items()}


def alike(one: SliceMask, other: SliceMask) -> bool:
    """True if two answers are the same."""
    return torch.equal(one.logits, other.logits)
