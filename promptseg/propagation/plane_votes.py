"""The other two axes as other planes of where a target goes.

They are asked twice, the second time with what came of the first, and are not heard where they
miss slices that a track alone is sure of: a target much longer than wide, which a network that
knows organs cuts short.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptseg.inference.caching import LRUCache
from promptseg.inference.decoder import ABSENT_LOGIT, SliceDecoder, SliceMask
from promptseg.inference.multimask import plane_mask
from promptseg.propagation.guide import Guide
from promptseg.propagation.multiplanar import Crossing, cross
from promptseg.propagation.stopping import StopCriteria, criteria_for
from promptseg.propagation.tracker import Guides, Tracker
from promptseg.volume.slicing import Frame, take_slice

CROSSINGS = 8
SURE, MISSED_SHARE = 0.97, 0.25


@dataclass(frozen=True)
class TargetTrack:
    """The track of one target in one view.

    Args:
        propagator: Of the view.
        target: Its number.
        first: Answers of the slices that say where it is.
        limits: Half-open range of the slices it may reach.
    """

    propagator: Tracker
    target: int
    first: dict[int, SliceMask]
    limits: tuple[int, int]

    def answers(self, propagator: Tracker, guides: Guides | None = None) -> dict[int, SliceMask]:
        """Answers by slice."""
        limits = {self.target: self.limits}
        return propagator.propagate({self.target: self.first}, limits, guides)[self.target]

    def sure(self, criteria: StopCriteria) -> set[int]:
        """Slices beyond the first ones that it finds alone and without doubt."""
        own = criteria_for(criteria, self.propagator.lag)
        strict = replace(own, similarity=SURE, trusted_quality=1.01, patience=0)
        alone = Tracker(self.propagator.decoder, self.propagator.frame, strict, as_given=True)
        return self.answers(alone).keys() - self.first.keys()

    def led(self, guide: Guide, sure: set[int]) -> dict[int, SliceMask] | None:
        """Answers where the other axes lead; None if they miss what a track alone is sure of."""
        found = self.answers(self.propagator, {self.target: guide})
        return None if len(sure - found.keys()) > MISSED_SHARE * len(sure) else found


class PlaneVotes:
    """Asks the other two axes of a volume, and keeps what they said.

    Args:
        decoder: Answers them.
        axis: The axis of the track.
        spacing: (3,) mm.
        criteria: When a track stops.
    """

    def __init__(
        self, decoder: SliceDecoder, axis: int, spacing: Sequence[float], criteria: StopCriteria
    ) -> None:
        self.decoder, self.axis, self.spacing, self.criteria = decoder, axis, spacing, criteria
        self._said: LRUCache[str, tuple[Crossing | None]] = LRUCache(CROSSINGS, lambda _: 1)

    def guide(self, track: TargetTrack) -> Guide | None:
        """What they say of one target; None where they are not heard."""
        frame = track.propagator.frame
        known = {i: whole_mask(frame, mask) for i, mask in track.first.items()}
        name = f"{known_digest(known)} {frame.region} {track.limits}"
        said = self._said.get(name)
        if said is None:
            said = (self._ask(track, known, name),)
            self._said.put(name, said)
        (crossing,) = said
        return None if crossing is None else self._guide(track, crossing)

    def _ask(self, track: TargetTrack, known: dict[int, np.ndarray], name: str) -> Crossing | None:
        made = cross(self.decoder, self.axis, self.spacing, known, name)
        if made is None:
            return None
        guide, sure = self._guide(track, made), track.sure(self.criteria)
        if self._blind(guide, sure):
            return None
        found = track.led(guide, sure)
        if found is None:
            return None
        i, j, k = self.decoder.encoder.data.shape
        earlier = logit_volume(track.propagator.frame, found, (i, j, k))
        again = cross(self.decoder, self.axis, self.spacing, known, f"{name} again", earlier)
        if again is None or track.led(self._guide(track, again), sure) is None:
            return None
        return again

    def _blind(self, guide: Guide, sure: set[int]) -> bool:
        """True if they find nothing on too many of the sure slices that they look at."""
        seen = [index for index in sure if guide.at(index) is not None]
        missed = [index for index in seen if guide.sees_nothing(index, self.criteria.least_area)]
        return len(missed) > MISSED_SHARE * len(seen)

    @staticmethod
    def _guide(track: TargetTrack, crossing: Crossing) -> Guide:
        propagator = track.propagator
        return Guide(crossing, propagator.frame, propagator.spec.mask_size)


def whole_mask(frame: Frame, mask: SliceMask) -> np.ndarray:
    """(H, W) bool of an answer on its whole slice."""
    return plane_mask(frame, mask.logits) if mask.given is None else mask.given


def logit_volume(
    frame: Frame, masks: dict[int, SliceMask], shape: tuple[int, int, int]
) -> np.ndarray:
    """(I, J, K) float16 logits of answers, plainly absent elsewhere."""
    volume = np.full(shape, ABSENT_LOGIT, np.float16)
    image, region = frame.paste_slices()
    for index, mask in masks.items():
        restored = frame.restore(mask.logits[None].clamp(ABSENT_LOGIT, -ABSENT_LOGIT))[0].numpy()
        take_slice(volume, frame.axis, index)[image] = restored[region]
    return volume


def known_digest(known: dict[int, np.ndarray]) -> str:
    """Differs where masks on slices differ."""
    state = hashlib.sha256()
    for index in sorted(known):
        state.update(f"{index} {known[index].shape}".encode())
        state.update(np.packbits(known[index]).tobytes())
    return state.hexdigest()
