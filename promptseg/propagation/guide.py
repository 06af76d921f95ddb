"""A track guided by what the other two axes say, and the vote of all three.

The track's own mask counts near the key slices, where it is sure; further away the other axes do,
since a mask that is carried keeps its size.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp

import torch
from torch import Tensor

from promptseg.inference.decoder import SliceMask
from promptseg.propagation.multiplanar import LIMIT, Crossing
from promptseg.volume.slicing import Frame

TRACK_MM, LEAST_TRACK, MOST_TRACK = 6.0, 0.25, 0.75
VOTE_MM, LEAST_VOTE = 3.0, 1 / 3
BRIDGE_QUALITY = 0.5


class Guide:
    """What the other axes say of one target, in the frame of its track.

    Args:
        crossing: Their answers.
        frame: Of the track.
        side: Of the network's masks.
    """

    def __init__(self, crossing: Crossing, frame: Frame, side: int) -> None:
        self.crossing, self.frame, self.side = crossing, frame, side
        self._held: dict[int, Tensor | None] = {}

    @property
    def name(self) -> str:
        """Differs where what the other axes say differs."""
        return self.crossing.name

    def views(self, index: int) -> Tensor | None:
        """(V, m, m) logits of one or two axes on a slice, None beyond what they see."""
        if index not in self._held:
            self._held[index] = self.crossing.project(self.frame, index, self.side)
        return self._held[index]

    def at(self, index: int) -> Tensor | None:
        """(m, m) their mean."""
        views = self.views(index)
        return None if views is None else views.mean(0)

    def lead(self, index: int, slices: int, carried: Tensor) -> Tensor:
        """The mask to be handed on: the track's, less and less with the slices it has gone."""
        seen = self.at(index)
        if seen is None:
            return carried
        share = LEAST_TRACK + (MOST_TRACK - LEAST_TRACK) * exp(-self._mm(slices) / TRACK_MM)
        return share * carried + (1 - share) * seen

    def vote(self, index: int, slices: int, answer: SliceMask) -> SliceMask:
        """Mean of the track's answer and the other axes', equal votes far from any key slice."""
        seen = self.at(index)
        if seen is None:
            return answer
        share = LEAST_VOTE + (1 - LEAST_VOTE) * exp(-self._mm(slices) / VOTE_MM)
        own = answer.logits.clamp(-LIMIT, LIMIT)
        return replace(answer, logits=share * own + (1 - share) * seen)

    def bridge(self, index: int, answer: SliceMask, least_area: float) -> SliceMask | None:
        """What stands in for an answer that cannot be trusted; None where nothing is seen."""
        seen = self.at(index)
        if seen is None or int((seen > 0).sum()) < least_area:
            return None
        return SliceMask(seen, BRIDGE_QUALITY, answer.presence)

    def sees_nothing(self, index: int, least_area: float) -> bool:
        """True if the other axes look at a slice and neither finds the target there."""
        views = self.views(index)
        return views is not None and int((views > 0).sum((1, 2)).max()) < least_area

    def _mm(self, slices: int) -> float:
        return slices * self.frame.spacing[self.frame.axis]


def absent(answer: SliceMask, logit: float) -> SliceMask:
    """The same with nothing in it."""
    return replace(answer, logits=torch.full_like(answer.logits, logit))
