"""Carrying a segmentation from prompted slices to the rest of a volume.

Independent of the backbone: walkers leave every anchor (a slice that the user prompted) in both
directions, hand the mask of one slice to the next as a prompt, and stop when the target is
lost. Between two anchors the two walks meet, weighted by distance.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from promptseg.backbones.base import BackboneSpec, PixelPrompts
from promptseg.decoding import Request, SliceDecoder, SliceMask
from promptseg.embeddings import Progress
from promptseg.guiding import Guide, absent
from promptseg.keeping import Kept
from promptseg.slice_prompts import GIVEN_MASK_LOGIT, SlicePrompts
from promptseg.slicing import Frame, take_slice
from promptseg.tapering import tapered

Carried = Literal["mask", "box"]
ABSENT_LOGIT = -8.0
CARRIED_MM = 3.0
CARRIED_MOST = 5
GREY_BINS = 16
THICK_SLICES = 0.7
AGREEING, AGREED_DICE = 2, 0.97
WALK_BYTES, ANSWER_BYTES = 256 << 20, 64 << 20


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


@dataclass(frozen=True)
class Walk:
    """One way from an anchor: slices `start + step`, `start + 2 step`, ... before `stop`.

    `told` is true if the user said that the target reaches as far as `stop`.
    """

    target: int
    start: int
    step: int
    stop: int
    told: bool = False


@dataclass
class WalkState:
    """Where a walk stands.

    Args:
        walk: The way.
        index: The next slice.
        carried: (m, m) logits that the last trusted slice handed on.
        misses: Poor slices since then.
        lost: True once the walk has ended early.
        answers: By slice, trusted or bridged.
        pending: Poor slices that become part of the answer if the target comes back.
        known_at: Slice whose answer settled that of each slice: itself, or the end of a gap.
        origin: (m, m) logits of the anchor, by default those carried at the start.
        given: True if the anchor's mask is the user's own.
        before: Answers that a correction may change; the walk ends where it agrees with them.
        agreed: Slices in a row on which it did.
        settled: True once it has ended that way.
    """

    walk: Walk
    index: int
    carried: Tensor
    misses: int = 0
    lost: bool = False
    answers: dict[int, SliceMask] = field(default_factory=dict)
    pending: dict[int, SliceMask] = field(default_factory=dict)
    known_at: dict[int, int] = field(default_factory=dict)
    origin: Tensor | None = None
    given: bool = False
    before: Mapping[int, SliceMask] | None = None
    agreed: int = 0
    settled: bool = False

    def __post_init__(self) -> None:
        if self.origin is None:
            self.origin = self.carried

    def handed_on(self, lag: int) -> Tensor:
        """Logits of the latest trusted slice at least `lag` slices back, else of the anchor."""
        back = [i for i in self.answers if abs(self.index - i) >= lag]
        if back:
            return self.answers[max(back, key=lambda i: i * self.walk.step)].logits
        return self.carried if self.origin is None else self.origin

    @property
    def active(self) -> bool:
        """True while there are slices left and the target is not lost."""
        return self.index != self.walk.stop and not self.lost and not self.settled

    @property
    def reach(self) -> int:
        """Slices from the anchor to the next one."""
        return abs(self.index - self.walk.start)

    def take(self, answer: SliceMask, rules: StopRules) -> None:
        """Digest the answer on the next slice."""
        if rules.poor(answer, self.carried):
            self.pending[self.index] = answer
            self.misses += 1
            self.lost = self.misses > rules.patience
        else:
            self._bridge(answer)
            self.answers[self.index], self.known_at[self.index] = answer, self.index
            self.carried = answer.logits
        self.index += self.walk.step

    def _bridge(self, answer: SliceMask) -> None:
        for index in self.pending:
            mean = (self.carried + answer.logits) / 2
            self.answers[index], self.known_at[index] = replace(answer, logits=mean), self.index
        self.pending, self.misses = {}, 0


def mask_bytes(mask: SliceMask) -> int:
    """Memory that an answer holds."""
    given = 0 if mask.given is None else mask.given.nbytes
    return mask.logits.numel() * mask.logits.element_size() + given


def masks_bytes(masks: dict[int, SliceMask]) -> int:
    """Memory that answers by slice hold."""
    return sum(mask_bytes(mask) for mask in masks.values())


def walk_bytes(state: WalkState) -> int:
    """Memory that a walk holds."""
    return masks_bytes(state.answers) + masks_bytes(state.pending)


def carried_by(spec: BackboneSpec) -> Carried:
    """What a network understands of its neighbour's mask: ours the mask, others its box."""
    return "mask" if spec.family == "promptseg" else "box"


def lag_of(frame: Frame) -> int:
    """How many slices back the handed-on mask is taken from.

    On thin slices a mask barely differs from its neighbour's, and handing it on at every slice
    adds up small errors and hides where the target ends.
    """
    return max(1, min(CARRIED_MOST, round(CARRIED_MM / frame.spacing[frame.axis])))


def rules_for(rules: StopRules, lag: int) -> StopRules:
    """Ask for likeness always on thin slices, where small errors add up unseen; else less."""
    if lag > 1:
        return replace(rules, trusted=1.01)
    return replace(rules, likeness=rules.likeness * THICK_SLICES)


def box_of(logits: Tensor, size: int, grow: float = 0.03) -> Tensor:
    """(4,) box around a mask in pixels of the input, grown by a share of its sides."""
    inside = torch.nonzero(logits > 0).float()
    scale = size / logits.shape[-1]
    low, high = inside.min(0).values * scale, (inside.max(0).values + 1) * scale
    extra = (high - low) * grow
    corners = torch.cat([(low - extra).flip(0), (high + extra).flip(0)])
    return corners.clamp(0, size)


def rules_where_told(rules: StopRules) -> StopRules:
    """Where the user gave the extent, only a target that is plainly absent ends a walk."""
    return replace(
        rules, presence=0.2, quality=0.1, overlap=0.1, growth=4.0, shrink=0.05, patience=3,
        likeness=0.0,
    )  # fmt: skip


class Propagator:
    """Propagates the targets of one frame.

    Args:
        decoder: Answers requests.
        frame: The view of the volume.
        rules: When to stop.
        progress: Called with "propagate", slices answered, slices that may have to be.
    """

    def __init__(
        self,
        decoder: SliceDecoder,
        frame: Frame,
        rules: StopRules | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.decoder, self.frame = decoder, frame
        self.progress = progress
        self.spec = decoder.backbone.spec
        self.carries = carried_by(self.spec)
        self.lag = lag_of(frame) if self.carries == "mask" else 1
        self.rules = rules_for(StopRules() if rules is None else rules, self.lag)
        self.told = rules_where_told(self.rules)
        self.guides: dict[int, Guide] = {}
        self._greys: dict[int, Tensor] = {}
        self._walked: Kept[tuple[int | str, ...], WalkState] = Kept(WALK_BYTES, walk_bytes)
        self._corrected: Kept[Hashable, dict[int, SliceMask]] = Kept(WALK_BYTES, masks_bytes)
        self._answered: Kept[tuple[int, str, int], SliceMask] = Kept(ANSWER_BYTES, mask_bytes)

    def answer(
        self, index: int, prompts: SlicePrompts, prior: SliceMask | None = None
    ) -> SliceMask:
        """Mask of one prompted slice.

        Corrective clicks refer to an answer: `prior`, or what the other prompts give.

        Args:
            index: Slice number.
            prompts: What the user said there.
            prior: An earlier answer on this slice.
        """
        key = (index, prompts.signature(), tensor_key(prior))
        answered = self._answered.get(key)
        if answered is None:
            first = prompts.without_corrections()
            if prior is None and first is not None:
                prior = self.answer(index, first)
            answered = self._decode(index, prompts, prior)
            self._answered.put(key, answered)
        return answered

    def _decode(self, index: int, prompts: SlicePrompts, prior: SliceMask | None) -> SliceMask:
        if prompts.verbatim and prompts.mask is not None:
            share = self.frame.project(prompts.mask, self.spec.mask_size)
            return SliceMask((share * 2 - 1) * GIVEN_MASK_LOGIT, 1.0, 1.0, prompts.mask)
        pixels = prompts.to_pixels(self.frame, index, self.spec.mask_size)
        if prior is not None and pixels.mask is None:
            handed = self._handed(prior.logits)
            box = handed.box if pixels.box is None else pixels.box
            pixels = replace(pixels, mask=handed.mask, box=box)
        ambiguous = prompts.ambiguous and prior is None
        request = Request(index, pixels, ambiguous, prompts.concept)
        return self.decoder.decode(self.frame, [request])[0]

    def _handed(self, logits: Tensor) -> PixelPrompts:
        """What the network is told of a mask that it gave before or next door."""
        if not bool((logits > 0).any()):
            return PixelPrompts()
        if self.carries == "mask":
            return PixelPrompts(mask=logits)
        return PixelPrompts(box=box_of(logits, self.spec.input_size))

    def propagate(
        self, anchors: dict[int, dict[int, SliceMask]], limits: dict[int, tuple[int, int]]
    ) -> dict[int, dict[int, SliceMask]]:
        """Answers of every target on every slice that it reaches.

        A walk made before is not made again: after a correction only the stretches next to it
        are new.

        Args:
            anchors: Answers on the slices where walks start, {target: {slice: answer}}.
            limits: Half-open slice range by target.
        """
        count = self.frame.shape[self.frame.axis]
        walks = plan_walks(anchors, limits, count)
        keys = [
            (
                w.target,
                w.start,
                w.step,
                w.told,
                self._guided_by(w.target),
                tensor_key(anchors[w.target][w.start]),
            )
            for w in walks
        ]
        states = [self._resume(walk, key, anchors) for walk, key in zip(walks, keys, strict=True)]
        self._advance(states)
        for key, state in zip(keys, states, strict=True):
            known = self._walked.get(key)
            if known is None or known.reach <= state.reach:
                self._walked.put(key, state, keys)
        merged = self._voted(merge_walks(states, anchors), anchors)
        untold = {t for t in merged if self.rules.taper and limits[t] == (0, count)}
        return {t: tapered(m, anchors[t]) if t in untold else m for t, m in merged.items()}

    def _guided_by(self, target: int) -> str:
        return self.guides[target].name if target in self.guides else ""

    def _voted(
        self, merged: dict[int, dict[int, SliceMask]], anchors: dict[int, dict[int, SliceMask]]
    ) -> dict[int, dict[int, SliceMask]]:
        """The same after the vote of the other axes; anchors have no need of one."""
        for target in merged.keys() & self.guides.keys():
            guide, own = self.guides[target], anchors[target]
            for index in merged[target].keys() - own.keys():
                away = min(abs(index - start) for start in own)
                merged[target][index] = guide.vote(index, away, merged[target][index])
        return merged

    def correct(
        self,
        answers: dict[int, SliceMask],
        anchors: dict[int, SliceMask],
        target: int,
        index: int,
        limits: dict[int, tuple[int, int]],
    ) -> dict[int, SliceMask]:
        """Answers of one target after one of its slices was corrected.

        Walks leave the corrected slice, and end where they agree with the answers there were.
        Beyond, and on the far side of the next prompted slice, those stay.

        Args:
            answers: By slice, before.
            anchors: Prompted slices, the corrected one among them.
            target: The target.
            index: The corrected slice.
            limits: Half-open slice range by target.
        """
        key = (
            target, index, limits[target], self._guided_by(target), tensor_key(anchors[index]),
            *((i, tensor_key(held[i])) for held in (anchors, answers) for i in sorted(held)),
        )  # fmt: skip
        known = self._corrected.get(key)
        if known is None:
            known = self._correct(answers, anchors, target, index, limits)
            self._corrected.put(key, known)
        return dict(known)

    def _correct(
        self,
        answers: dict[int, SliceMask],
        anchors: dict[int, SliceMask],
        target: int,
        index: int,
        limits: dict[int, tuple[int, int]],
    ) -> dict[int, SliceMask]:
        count = self.frame.shape[self.frame.axis]
        planned = plan_walks({target: anchors}, {target: limits[target]}, count)
        walks = [walk for walk in planned if walk.start == index]
        states = [
            WalkState(w, index + w.step, anchors[index].logits, before=answers) for w in walks
        ]
        self._advance(states)
        found = {**answers, index: anchors[index]}
        if not walks:
            return without_ends(found, anchors, index)
        for state in states:
            self._take_over(found, state, anchors)
        return found

    def _take_over(
        self, found: dict[int, SliceMask], state: WalkState, anchors: dict[int, SliceMask]
    ) -> None:
        """Put the answers of a walk from a corrected slice into `found`, as far as it differs."""
        walk, guide = state.walk, self.guides.get(state.walk.target)
        end = state.index if state.settled else walk.stop
        for index in range(walk.start + walk.step, end, walk.step):
            own, before = state.answers.get(index), found.get(index)
            if own is not None and guide is not None:
                own = guide.vote(index, abs(index - walk.start), own)
            if walk.stop in anchors:
                share = 1 - abs(index - walk.start) / abs(walk.stop - walk.start)
                own = between(own, before, share)
            if own is None:
                found.pop(index, None)
            else:
                found[index] = own

    def _resume(
        self, walk: Walk, key: tuple[int | str, ...], anchors: dict[int, dict[int, SliceMask]]
    ) -> WalkState:
        """The same walk made before, cut or continued; else a new one."""
        known = self._walked.get(key)
        if known is None:
            anchor = anchors[walk.target][walk.start]
            given = anchor.given is not None
            return WalkState(walk, walk.start + walk.step, anchor.logits, given=given)
        wanted = abs(walk.stop - walk.start)
        if known.reach <= wanted:
            return replace(
                known,
                walk=walk,
                answers=dict(known.answers),
                pending=dict(known.pending),
                known_at=dict(known.known_at),
            )
        settled = {i for i, at in known.known_at.items() if abs(at - walk.start) < wanted}
        answers = {i: a for i, a in known.answers.items() if i in settled}
        return WalkState(walk, walk.stop, known.carried, answers=answers)

    def _advance(self, states: Sequence[WalkState]) -> None:
        """Move all walks slice by slice until each has arrived or lost its target."""
        total = sum(abs(s.walk.stop - s.index) for s in states if s.active)
        done = 0
        while active := [s for s in states if s.active]:
            self._prefetch(active)
            requests = [Request(s.index, self._handed(self._lead(s))) for s in active]
            answers = self.decoder.decode(self.frame, requests)
            for state, answer in zip(active, answers, strict=True):
                rules = self.told if state.walk.told else self.rules
                state.take(self._judged(state, answer, rules), rules)
                self._settle(state)
            done += len(active)
            if self.progress is not None:
                self.progress("propagate", done, total)

    def _settle(self, state: WalkState) -> None:
        """End a walk of a correction that has come to what was known before."""
        if state.before is None:
            return
        index = state.index - state.walk.step
        own, before = state.answers.get(index), state.before.get(index)
        guide = self.guides.get(state.walk.target)
        if own is not None and guide is not None:
            own = guide.vote(index, abs(index - state.walk.start), own)
        state.agreed = state.agreed + 1 if agree(own, before) else 0
        state.settled = state.agreed >= AGREEING

    def _lead(self, state: WalkState) -> Tensor:
        """The mask to be handed to the next slice."""
        carried = state.handed_on(self.lag)
        guide = self.guides.get(state.walk.target)
        return carried if guide is None else guide.lead(state.index, state.reach, carried)

    def _judged(self, state: WalkState, answer: SliceMask, rules: StopRules) -> SliceMask:
        """An answer as the walk takes it: likened to the anchor, or checked by the other axes.

        Where those see the target they stand in for a poor answer, and where they see that it
        is not there the answer is empty.
        """
        guide = self.guides.get(state.walk.target)
        seen = None if guide is None else guide.at(state.index)
        if guide is None or seen is None:
            return replace(answer, likeness=self._likeness(state, answer))
        if guide.sees_nothing(state.index, rules.least_area):
            return answer if state.walk.told else absent(answer, ABSENT_LOGIT)
        likeness = self._likeness(state, answer)
        if likeness < rules.likeness and answer.quality < rules.trusted:
            return replace(answer, likeness=likeness)
        stand_in = guide.bridge(state.index, answer, rules.least_area)
        return stand_in if stand_in is not None and rules.poor(answer, seen) else answer

    def _likeness(self, state: WalkState, answer: SliceMask) -> float:
        """Bhattacharyya coefficient of the grey levels inside this mask and the anchor's.

        Raised for a mask that has shrunk: partial volume changes its grey levels, and it is
        about to end anyway. One that has kept its size must look like the anchor. A mask that the
        user gave may lie well inside its organ, or beyond it: there the first answer of the walk,
        which is next to it, says as well how the organ looks.
        """
        origin = state.carried if state.origin is None else state.origin
        known = [(state.walk.start, origin)]
        if state.given:
            place = state.walk.start + state.walk.step
            first = state.answers.get(place)
            if first is None:
                return 1.0
            known.append((place, first.logits))
        here = grey_levels(self._grey(state.index), answer.logits)
        alike = max(
            float((grey_levels(self._grey(place), logits) * here).sqrt().sum())
            for place, logits in known
        )
        shrunk = answer.area / max(int((origin > 0).sum()), 1)
        return min(1.0, alike / max(min(shrunk, 1.0), 0.01) ** 0.25)

    def greys(self, indices: Iterable[int]) -> dict[int, Tensor]:
        """(m, m) grey values in [0, 1] of slices in the frame."""
        return {index: self._grey(index) for index in indices}

    def _grey(self, index: int) -> Tensor:
        """(m, m) grey values of a slice in the frame, in [0, 1]."""
        if index not in self._greys:
            plane = take_slice(self.decoder.encoder.data, self.frame.axis, index)
            self._greys[index] = self.frame.project(plane, self.spec.mask_size)
        return self._greys[index]

    def _prefetch(self, active: Sequence[WalkState]) -> None:
        """Encode the next slices of every walk in one batch, once one of them is missing."""
        encoder = self.decoder.encoder
        if not encoder.missing(self.frame, [s.index for s in active]):
            return
        ahead = max(1, encoder.batch_size // len({(s.index, s.walk.step) for s in active}))
        ways = (range(s.index, s.walk.stop, s.walk.step)[:ahead] for s in active)
        encoder.embed(self.frame, [index for way in ways for index in way])


def grey_levels(grey: Tensor, logits: Tensor) -> Tensor:
    """(16,) shares of the grey levels inside a mask, smoothed; equal shares if it is empty."""
    inside = grey[logits > 0]
    if not len(inside):
        return torch.full((GREY_BINS,), 1 / GREY_BINS)
    counts = torch.histc(inside, GREY_BINS, 0.0, 1.0)
    padded = torch.nn.functional.pad(counts, (1, 1))
    smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return smooth / smooth.sum()


def tensor_key(answer: SliceMask | None) -> int:
    """Number that differs where the logits differ; 0 for none."""
    return 0 if answer is None else hash(answer.logits.numpy().tobytes())


def agree(one: SliceMask | None, other: SliceMask | None) -> bool:
    """True if two answers, of which None is an empty one, are nearly the same."""
    inside = [m.logits > 0 for m in (one, other) if m is not None and m.area]
    if len(inside) < 2:
        return not inside
    both, total = int((inside[0] & inside[1]).sum()), int(inside[0].sum() + inside[1].sum())
    return 2 * both >= AGREED_DICE * total


def between(one: SliceMask | None, other: SliceMask | None, share: float) -> SliceMask | None:
    """Weighted mean of two answers of which None is an empty one; None if both are."""
    held = one if one is not None else other
    if held is None:
        return None
    lost = SliceMask(torch.full_like(held.logits, ABSENT_LOGIT), 0.0, 0.0)
    first, second = lost if one is None else one, lost if other is None else other
    return SliceMask(
        share * first.logits + (1 - share) * second.logits,
        share * first.quality + (1 - share) * second.quality,
        share * first.presence + (1 - share) * second.presence,
    )


def without_ends(
    answers: dict[int, SliceMask], anchors: Mapping[int, SliceMask], index: int
) -> dict[int, SliceMask]:
    """Answers without those on a side of an emptied slice where no prompt sees the target."""
    filled = [i for i, mask in anchors.items() if mask.area]
    low = any(i < index for i in filled)
    high = any(i > index for i in filled)
    return {i: m for i, m in answers.items() if i == index or (low if i < index else high)}


def plan_walks(
    anchors: dict[int, dict[int, SliceMask]],
    limits: dict[int, tuple[int, int]],
    count: int | None = None,
) -> list[Walk]:
    """Both ways from every anchor, up to the next anchor or the limit.

    Limits other than all `count` slices are what the user said of the target's extent.
    """
    walks = []
    for target, slices in anchors.items():
        low, high = limits[target]
        told = count is not None and (low, high) != (0, count)
        indices = sorted(slices)
        for n, index in enumerate(indices):
            after = indices[n + 1] if n + 1 < len(indices) else max(high, index + 1)
            before = indices[n - 1] if n else min(low - 1, index - 1)
            if slices[index].area:
                walks += [Walk(target, index, step, stop, told)
                          for step, stop in ((1, after), (-1, before))]  # fmt: skip
    return walks


def merge_walks(
    states: Sequence[WalkState], anchors: dict[int, dict[int, SliceMask]]
) -> dict[int, dict[int, SliceMask]]:
    """One answer a slice: anchors as they are, between two anchors the weighted mean."""
    merged: dict[int, dict[int, SliceMask]] = {t: {} for t in anchors}
    for target, slices in anchors.items():
        own = [s for s in states if s.walk.target == target]
        reached = {i for s in own for i in s.answers}
        for index in reached:
            merged[target][index] = meet(index, own)
        merged[target].update(slices)
    return merged


def meet(index: int, states: Sequence[WalkState]) -> SliceMask:
    """Mean of the walks that have found the target on `index`, weighted by nearness to their start.

    Between two prompted slices that see the target a walk that has lost it has no vote: it is
    there, as the other walk shows.
    """
    finding = [s for s in states if index in s.answers]
    weights = [1 / abs(index - s.walk.start) for s in finding]
    answers = [s.answers[index] for s in finding]
    total = sum(weights)
    shares = [weight / total for weight in weights]
    logits = torch.stack([w * a.logits for w, a in zip(shares, answers, strict=True)]).sum(0)
    quality = sum(w * a.quality for w, a in zip(shares, answers, strict=True))
    presence = sum(w * a.presence for w, a in zip(shares, answers, strict=True))
    return SliceMask(logits, quality, presence)
