"""When a walk through the slices has lost its target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from torch import Tensor

from promptseg.inference.decoder import SliceMask

THICK_SLICES = 0.7


@dataclass(frozen=True)
class StopRules:
    """When a walk has lost its target.

    Args:
        presence: Least predicted probability that the target is in the slice.
        quality: Least predicted overlap with the truth.
        overlap: Least Dice with the mask that was carried here.
        growth: Greatest ratio of areas from one slice to the next.
        shrink: Least ratio of areas from one slice to the next.
        patience: Poor slices bridged before the walk ends.
        least_area: Fewest pixels of a mask at the network's resolution.
        likeness: Least likeness of the grey levels inside to those inside the anchor's mask.
        trusted: Predicted overlap from which on a thick slice is believed without likeness.
        unlike: Least likeness of any slice, however much the network believes in it.
        taper: True to cut what lies beyond the outermost of several prompted slices to the area
            that those between them foretell.
    """

    presence: float = 0.5
    quality: float = 0.3
    overlap: float = 0.25
    growth: float = 2.5
    shrink: float = 0.15
    patience: int = 1
    least_area: int = 6
    likeness: float = 0.9
    trusted: float = 0.7
    taper: bool = True
    unlike: float = 0.1

    def poor(self, answer: SliceMask, carried: Tensor) -> bool:
        """True if `answer` should not be trusted after the mask `carried` (m, m) logits."""
        before, now = carried > 0, answer.logits > 0
        area, previous = int(now.sum()), int(before.sum())
        if area < self.least_area or answer.presence < self.presence:
            return True
        dice = 2 * int((before & now).sum()) / max(area + previous, 1)
        ratio = area / max(previous, 1)
        return (
            answer.quality < self.quality
            or answer.likeness < min(self.unlike, self.likeness)
            or (answer.likeness < self.likeness and answer.quality < self.trusted)
            or dice < self.overlap
            or not self.shrink <= ratio <= self.growth
        )


def rules_for(rules: StopRules, lag: int) -> StopRules:
    """Ask for likeness always on thin slices, where small errors add up unseen; else less."""
    if lag > 1:
        return replace(rules, trusted=1.01)
    return replace(rules, likeness=rules.likeness * THICK_SLICES)


def rules_where_told(rules: StopRules) -> StopRules:
    """Where the user gave the extent, only a target that is plainly absent ends a walk."""
    return replace(
        rules, presence=0.2, quality=0.1, overlap=0.1, growth=4.0, shrink=0.05, patience=3,
        likeness=0.0,
    )  # fmt: skip


NEVER = StopRules(
    presence=-1.0, quality=-1.0, overlap=-1.0, growth=inf, shrink=-1.0, patience=0, least_area=0,
    likeness=0.0, trusted=0.0, unlike=0.0, taper=False,
)  # fmt: skip
"""Trusts every answer, as a network that tracks a video does."""
