"""Answers of several tracks on one slice, and of a track where there was an answer before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from promptseg.inference.decoder import ABSENT_LOGIT, SliceMask, mean_mask
from promptseg.propagation.track import TrackState

# Set by hand before there was a development set, as is how often tracks must agree.
AGREED_DICE, AGREEING = 0.97, 2
STRAY_MOVES, STRAY_SHARE = 2, 0.5


def merge_tracks(
    states: Sequence[TrackState], key_masks: dict[int, dict[int, SliceMask]]
) -> dict[int, dict[int, SliceMask]]:
    """One answer a slice: key slices as they are, between two key slices the weighted mean."""
    merged: dict[int, dict[int, SliceMask]] = {t: {} for t in key_masks}
    for target, slices in key_masks.items():
        own = [s for s in states if s.track.target == target]
        reached = {i for s in own for i in s.answers}
        for index in reached:
            merged[target][index] = meet(index, own)
        merged[target].update(slices)
    return merged


def meet(index: int, states: Sequence[TrackState]) -> SliceMask:
    """Mean of the tracks that have found the target on `index`, weighted by nearness.

    Between two prompted slices that see the target a track that has lost it has no vote: it is
    there, as the other track shows.
    """
    finding = [s for s in states if index in s.answers]
    weights = [1 / abs(index - s.track.start) for s in finding]
    total = sum(weights)
    return mean_mask([s.answers[index] for s in finding], [weight / total for weight in weights])


def agree(one: SliceMask | None, other: SliceMask | None) -> bool:
    """True if two answers, of which None is an empty one, are nearly the same."""
    inside = [m.logits > 0 for m in (one, other) if m is not None and m.area]
    if len(inside) < 2:
        return not inside
    both, total = int((inside[0] & inside[1]).sum()), int(inside[0].sum() + inside[1].sum())
    return 2 * both >= AGREED_DICE * total


def changed(one: SliceMask | None, other: SliceMask | None) -> int:
    """Pixels inside one of two answers only; None is an empty one."""
    inside = [m.logits > 0 for m in (one, other) if m is not None]
    if len(inside) < 2:
        return int(inside[0].sum()) if inside else 0
    return int((inside[0] ^ inside[1]).sum())


def strays(own: SliceMask, before: SliceMask | None, moved: int) -> bool:
    """True if an answer on the way from a corrected slice has run out of its target.

    It then changes more than `STRAY_MOVES` times the `moved` pixels of the correction itself, and
    more than `STRAY_SHARE` of the mask that was there.
    """
    change = changed(own, before)
    area = 0 if before is None else before.area
    return change > STRAY_MOVES * moved and change > STRAY_SHARE * area


def between(one: SliceMask | None, other: SliceMask | None, share: float) -> SliceMask | None:
    """Weighted mean of two answers of which None is an empty one; None if both are."""
    held = one if one is not None else other
    if held is None:
        return None
    lost = SliceMask(torch.full_like(held.logits, ABSENT_LOGIT), 0.0, 0.0)
    first, second = lost if one is None else one, lost if other is None else other
    return mean_mask([first, second], [share, 1 - share])


def bridged(
    answers: Mapping[int, SliceMask], start: int, stop: int, least_area: float
) -> dict[int, SliceMask]:
    """What is missing between two slices that see the target.

    It is between them too: each gap gets the weighted mean of its ends, if they overlap.

    Args:
        answers: By slice, `start` and `stop` among them.
        start: One of the two slices.
        stop: The other.
        least_area: Fewest pixels of a mask.
    """
    way = range(min(start, stop), max(start, stop) + 1)
    seen = [i for i in way if i in answers and answers[i].area]
    found = {}
    for low, high in pairwise(seen):
        ends = answers[low], answers[high]
        if not bool(((ends[0].logits > 0) & (ends[1].logits > 0)).any()):
            continue
        for index in range(low + 1, high):
            mask = between(*ends, (high - index) / (high - low))
            if mask is not None and mask.area >= least_area:
                found[index] = mask
    return found


def without_ends(
    answers: dict[int, SliceMask], key_masks: Mapping[int, SliceMask], index: int
) -> dict[int, SliceMask]:
    """Answers without those on a side of an emptied slice where no prompt sees the target."""
    filled = [i for i, mask in key_masks.items() if mask.area]
    low = any(i < index for i in filled)
    high = any(i > index for i in filled)
    return {i: m for i, m in answers.items() if i == index or (low if i < index else high)}
