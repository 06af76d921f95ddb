"""Which slice to correct next, from what the session knows already."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.inference.decoder import SliceMask
from promptseg.inference.labels import FrameMasks
from promptseg.inference.slice_prompts import sort_prompts
from promptseg.prompts.types import Point, PromptSet

REACH, LEAST_REACH = 0.1, 1.0
POOR = 0.15
TRUST = 0.5
GIVEN = 0.3
LEAST_LEFT = 0.005
"""Share of a target's area below which a further look is not worth it."""

Place = tuple[int, int, int]
"""Axis, slice and target."""


@dataclass(frozen=True)
class Suggestion:
    """A slice worth looking at.

    Args:
        axis: 0, 1 or 2.
        index: Slice number along it.
        target: Label whose mask is doubted there.
        score: Expected wrong area that a correction there reaches, as a share of the target's
            area over all slices; more is worse.
        reason: What speaks for it, for a person.
    """

    axis: int
    index: int
    target: int
    score: float
    reason: str


@dataclass(frozen=True)
class SliceState:
    """What is known of one target on one slice.

    Areas are in pixels of the network's mask.

    Args:
        area: Of the mask.
        doubt: Sum of min(p, 1 - p): the wrong area if every probability were right.
        poor: The wrong area by predicted quality and presence.
        change: The area that differs from the neighbours, mean of both.
        given: Prompts on the slice.
    """

    area: float
    doubt: float
    poor: float
    change: float
    given: int

    @property
    def wrong(self) -> float:
        """Expected wrong area; predicted quality counts little, it is not calibrated."""
        return (self.doubt + self.change) / 2 + POOR * self.poor


States = dict[int, SliceState]


def suggest(
    answered: Sequence[FrameMasks],
    prompts: PromptSet,
    targets: Collection[int] | None = None,
    checked: Collection[Place] = (),
) -> Suggestion | None:
    """The slice where a correction should help most.

    A correction repairs its slice and, less and less, those up to the next prompted ones; so a
    slice counts by the wrong area expected there and, discounted by distance, around it. Large
    masks are corrected more surely than the tips of a target, and slices that were prompted
    before, and those next to them, have less left to gain. What is expected to be wrong was
    chosen on left atrium cases outside 57-68: unsure edges and change between neighbours
    agreed with the true errors (correlation 0.9 in five of six), predicted quality did not.

    Args:
        answered: What `Engine.run` gave.
        prompts: Resolved prompts that were answered.
        targets: Only these; None takes all.
        checked: Slices that were looked at and need nothing: they and what lies near them count
            as prompted, and are not suggested again.

    Returns:
        None if no target has a mask anywhere, or nothing worth a look is left beside `checked`.
    """
    least = LEAST_LEFT if checked else 0.0
    best: Suggestion | None = None
    for group in answered:
        axis = group.frame.axis
        for target, masks in group.answers.items():
            if targets is not None and target not in targets:
                continue
            given = prompted_slices(prompts, axis, group.frame.shape, target)
            seen = {i for along, i, of in checked if (along, of) == (axis, target)}
            states = slice_states(masks, {i: given.get(i, 0) + (i in seen) for i in masks})
            values = {i: v for i, v in slice_values(states).items() if i not in seen}
            if not values:
                continue
            index = max(values, key=lambda i: values[i])
            whole = sum(state.area for state in states.values())
            score = min(1.0, values[index] / whole)
            if score >= least and (best is None or score > best.score):
                best = Suggestion(axis, index, target, score, reason(index, states))
    return best


def prompted_slices(
    prompts: PromptSet, axis: int, shape: tuple[int, int, int], target: int
) -> dict[int, int]:
    """Number of prompts by slice of one target."""
    own = prompts.for_target(target)
    clicks = [int(np.floor(p.at[axis] + 0.5)) for p in own if isinstance(p, Point)]
    others = PromptSet(p for p in own if not isinstance(p, Point))
    drawn = list(sort_prompts(others, axis, shape).get(target, {}))
    return {index: (clicks + drawn).count(index) for index in {*clicks, *drawn}}


def slice_states(masks: Mapping[int, SliceMask], given: Mapping[int, int]) -> States:
    """State of every slice on which a target has a mask.

    Args:
        masks: Answers by slice.
        given: Prompts by slice.
    """
    filled = {i: mask for i, mask in masks.items() if mask.area}
    shares = {i: np.asarray(mask.logits.sigmoid()) for i, mask in filled.items()}
    states = {}
    for index, mask in filled.items():
        share, area = shares[index], float(mask.area)
        near = [shares[i] for i in (index - 1, index + 1) if i in shares]
        known = mask.given is not None
        states[index] = SliceState(
            area=area,
            doubt=0.0 if known else float(np.minimum(share, 1 - share).sum()),
            poor=0.0 if known else area * (1 - mask.quality * mask.presence),
            change=float(np.mean([np.abs(share - n).sum() for n in near])) / 2 if near else 0.0,
            given=given.get(index, 0),
        )
    return states


def slice_values(states: States) -> dict[int, float]:
    """Expected wrong area that a correction on each slice reaches."""
    if not states:
        return {}
    reach = max(LEAST_REACH, REACH * len(states))
    largest = max(state.area for state in states.values())
    fixed = [i for i, state in states.items() if state.given]
    values = {}
    for index, state in states.items():
        stretch = between(index, states, fixed)
        reached = sum(states[i].wrong * math.exp(-abs(i - index) / reach) for i in stretch)
        trust = (state.area / largest) ** TRUST
        values[index] = reached * trust * fresh(index, states, fixed, reach)
    return values


def between(index: int, states: States, fixed: Iterable[int]) -> list[int]:
    """Slices that a correction reaches: up to the prompted slices on both sides."""
    low = max((i for i in fixed if i < index), default=-1)
    high = min((i for i in fixed if i > index), default=max(states) + 1)
    return [i for i in states if low < i < high]


def fresh(index: int, states: States, fixed: Iterable[int], reach: float) -> float:
    """How much is left to gain, from a share on prompted slices to 1 far from them."""
    if states[index].given:
        return GIVEN ** states[index].given
    far = min((abs(index - i) for i in fixed), default=math.inf)
    return 1 - (1 - GIVEN) * math.exp(-far / reach)


def reason(index: int, states: States) -> str:
    """What is most out of the ordinary on a slice, in words."""
    state = states[index]
    parts = {
        "its edge is unsure": "doubt",
        "the network predicts a poor mask": "poor",
        "it differs from its neighbours": "change",
    }
    usual = {
        name: float(np.median([getattr(s, name) / s.area for s in states.values()]))
        for name in parts.values()
    }
    excess = {
        words: getattr(state, name) / state.area - usual[name] for words, name in parts.items()
    }
    words = max(excess, key=lambda key: excess[key])
    wrong = min(1.0, state.wrong / state.area)
    if excess[words] <= 0:
        words = "much of the target depends on it"
    return f"{words}; about {wrong:.0%} of its area may be wrong"
