"""Prompts of a volume -> masks of its slices.

The answer is a function of the ordered prompts alone, so a saved list of prompts gives the same
mask again; what earlier calls computed is reused, never recomputed and never mixed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from time import perf_counter

import numpy as np
from torch import Tensor

from promptseg.errors import PromptError
from promptseg.inference.caching import LRUCache
from promptseg.inference.crop import (
    choose_region,
    crop_factor,
    frame_of,
    group_regions,
    mask_extent,
    squared,
    touches_edge,
    whole_slice,
    widened,
)
from promptseg.inference.decoder import SliceDecoder, SliceMask
from promptseg.inference.encoder import Progress, SliceEncoder
from promptseg.inference.labels import Answers, FrameMasks
from promptseg.inference.multimask import MaskCandidate, mask_candidates
from promptseg.inference.slice_prompts import SlicePrompts, sort_prompts, target_limits
from promptseg.predictor.components import (
    Component,
    Extent,
    assigned,
    box_bounds,
    boxed_parts,
    extent_of,
    in_targets,
    is_later,
    numbered,
    with_prompt,
)
from promptseg.prompts.types import Prompt, PromptSet
from promptseg.propagation.extremes import Span, span_of, spanned
from promptseg.propagation.guide import Guide
from promptseg.propagation.intensities import without_odd_greys
from promptseg.propagation.multiplanar import FEWEST, STEP_MM
from promptseg.propagation.plane_votes import TargetTrack, Witnesses
from promptseg.propagation.postprocessing import Consistency, cleaned
from promptseg.propagation.stopping import StopCriteria
from promptseg.propagation.tracker import Tracker
from promptseg.volume import pasted
from promptseg.volume.slicing import Frame, Region, in_plane, take_slice

GROWTH = 1.5
GROWTHS = 3
CLICKS = 64
FEW = 4
# Shares of a box's side that it may be larger than its target and mean the same.
LEAST_ROOM, MOST_ROOM = 0.05, 0.25
FINEST_MM, COARSEST_MM = 0.5, 3.0
ROOM_INSIDE, ROOM_OUTSIDE = 1 / 6, 1 / 3
ByTarget = dict[int, dict[int, SlicePrompts]]


@dataclass
class Timings:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, began: float) -> None:
        """Count the time since `began` to `stage`."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - began


class Engine:
    """Answers prompts on one volume along one axis.

    Args:
        encoder: Embeddings of the volume's slices.
        axis: 0, 1 or 2.
        spacing: (3,) mm; see `reckoned_spacing`.
        criteria: When a propagation stops.
        consistency: What is done so that neighbouring slices agree; nothing by default.
    """

    def __init__(
        self,
        encoder: SliceEncoder,
        axis: int,
        spacing: np.ndarray,
        criteria: StopCriteria | None = None,
        consistency: Consistency | None = None,
    ) -> None:
        self.encoder, self.axis = encoder, axis
        self.decoder = SliceDecoder(encoder)
        self.spacing = reckoned_spacing(spacing, axis)
        self.criteria = StopCriteria() if criteria is None else criteria
        self.consistency = Consistency() if consistency is None else consistency
        self._trackers: dict[Frame, Tracker] = {}
        self._witnesses = Witnesses(self.decoder, axis, self.spacing, self.criteria)
        self._spans: dict[int, tuple[Span, np.ndarray]] = {}
        self._regions: dict[tuple[str, ...], Region] = {}
        self._crowded = False
        self._extents: LRUCache[str, Extent] = LRUCache(CLICKS, lambda _: 1)
        self._meanings: LRUCache[str, list[MaskCandidate]] = LRUCache(CLICKS, lambda _: 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K) of the volume."""
        i, j, k = self.encoder.data.shape
        return i, j, k

    def run(
        self,
        prompts: PromptSet,
        propagate: bool = True,
        progress: Progress | None = None,
        concepts: Mapping[int, Tensor] | None = None,
        dense: Mapping[int, np.ndarray] | None = None,
        views: Sequence[tuple[Region, list[int]]] | None = None,
    ) -> list[FrameMasks]:
        """Answer resolved prompts.

        Args:
            prompts: In voxels and checked.
            propagate: False answers the prompted slices only.
            progress: Called with stage, done, total.
            concepts: (C,) token by target, of targets that are named as well.
            dense: (I, J, K) map in [0, 1] by target, drawn where its prompts are.
            views: Where each group of targets, or of their parts by key, is looked for; found
                from the prompts if None.

        Raises:
            PromptError: If a target has nothing that says where it is.
        """
        check_starts(prompts, sort_prompts(prompts, self.axis, self.shape))
        further = concepts or {}, dense or {}
        components = self.components(prompts, propagate, *further, views)
        answered = self._run(components, propagate, progress, *further, views)
        return in_targets(answered, components)

    def components(
        self,
        prompts: PromptSet,
        propagate: bool,
        concepts: Mapping[int, Tensor],
        dense: Mapping[int, np.ndarray],
        views: Sequence[tuple[Region, list[int]]] | None = None,
    ) -> list[Component]:
        """The parts of every target that its prompts point at; arguments as in `run`."""
        parts: dict[int, list[list[Prompt]]] = {}
        for target in prompts.targets:
            mine = prompts.for_target(target)
            order = {id(prompt): n for n, prompt in enumerate(mine)}
            later = [prompt for prompt in mine if is_later(prompt)]
            groups = boxed_parts(PromptSet(p for p in mine if not is_later(p)), self.axis)
            extents: list[Extent] = []
            for prompt in later:
                if not extents:
                    extents = [self._extent(g, propagate, concepts, dense, views) for g in groups]
                chosen = assigned(prompt, extents, self.spacing)
                if chosen is None:
                    fresh = replace(prompt, role=None)
                    order[id(fresh)] = order[id(prompt)]
                    groups.append([fresh])
                    extents.append(self._extent([fresh], propagate, concepts, dense, views))
                    continue
                groups[chosen].append(prompt)
                extents[chosen] = with_prompt(extents[chosen], prompt)
            parts[target] = [sorted(group, key=lambda p: order[id(p)]) for group in groups]
        return numbered(parts)

    def _extent(
        self,
        prompts: list[Prompt],
        propagate: bool,
        concepts: Mapping[int, Tensor],
        dense: Mapping[int, np.ndarray],
        views: Sequence[tuple[Region, list[int]]] | None = None,
    ) -> Extent:
        """What is known of a part before any correction; kept."""
        own = PromptSet(prompts)
        target = own.targets[0]
        places = sort_prompts(own, self.axis, self.shape).get(target, {})
        key = f"{propagate} {target} {[(i, p.signature()) for i, p in places.items()]}"
        known = self._extents.get(key)
        if known is None:
            alone = [Component(target, target, own)]
            known = extent_of(prompts, self._run(alone, propagate, None, concepts, dense, views))
            self._extents.put(key, known)
        return known

    def _run(
        self,
        components: Sequence[Component],
        propagate: bool,
        progress: Progress | None,
        concepts: Mapping[int, Tensor],
        dense: Mapping[int, np.ndarray],
        views: Sequence[tuple[Region, list[int]]] | None,
    ) -> list[FrameMasks]:
        """Answers by the keys of components."""
        self._crowded = len(components) > FEW
        prompts = PromptSet(prompt for one in components for prompt in one.prompts)
        by_key = sort_prompts(prompts, self.axis, self.shape)
        for one in components:
            if one.key in by_key:
                token, volume = concepts.get(one.target), dense.get(one.target)
                named = self._marked(by_key[one.key], token, volume)
                by_key[one.key] = self._tightened(self._guessed(named))
        bounds = {one.key: box_bounds(one.prompts, self.axis) for one in components}
        limits = target_limits(prompts, self.axis, self.shape[self.axis])
        limits |= {key: (0, self.shape[self.axis]) for key, bound in bounds.items() if bound}
        answered = []
        for region, keys in self._views(by_key, views):
            chosen = {key: by_key[key] for key in keys}
            found = self._answer_group(region, chosen, limits, propagate, progress)
            answered.append(replace(found, answers=bounded(found.answers, bounds, by_key)))
        return answered

    def _views(
        self, by_key: ByTarget, given: Sequence[tuple[Region, list[int]]] | None
    ) -> list[tuple[Region, list[int]]]:
        """Where each group of components is looked for: as given, else around their prompts."""
        views = [(region, [k for k in keys if k in by_key]) for region, keys in given or ()]
        seen = {key for _, keys in views for key in keys}
        left = {key: self._region(s) for key, s in by_key.items() if key not in seen}
        return [*(view for view in views if view[1]), *group_regions(left)]

    def spanned(
        self, prompts: PromptSet, bound: tuple[slice, ...], progress: Progress | None = None
    ) -> np.ndarray:
        """(I, J, K) float32 probability of one target, from margin points on several slices.

        The latest of every target is kept.

        Args:
            prompts: Of that target, in voxels.
            bound: Part of the volume that holds all of it; 0 outside.
            progress: Called with stage, done, total.
        """
        target, span = prompts.targets[0], span_of(prompts, bound)
        known = self._spans.get(target)
        if known is None or known[0] != span:
            known = span, spanned(self.decoder, self.axis, self.spacing, span, progress=progress)
            self._spans[target] = known
        return pasted(known[1], bound, self.shape)

    def mask_candidates(self, index: int, click: SlicePrompts) -> list[MaskCandidate]:
        """What a click could mean, the likeliest first; nothing is computed twice.

        Empty for other prompts, and for a network that always sees the whole slice.
        """
        if not (click.lone and self.encoder.backbone.spec.crop):
            return []
        plain = replace(click, guess=None)
        key = f"{index}:{plain.signature()}"
        found = self._meanings.get(key)
        if found is None:
            found = mask_candidates(self.decoder, self.axis, self.spacing, index, plain)
            self._meanings.put(key, found)
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
        found = dict(prompted)
        for index, place in prompted.items() if self.encoder.backbone.spec.crop else ():
            alone = place.without_corrections() or place
            around = alone.extent(self.axis)
            if place.box is None or around is None or not alone.only_box:
                continue
            region = squared(around, self.axis, self.spacing, crop_factor(self.encoder))
            tracker = self._tracker(region, None)
            extent = mask_extent(tracker.answer(index, alone), tracker.frame)
            found[index] = replace(place, box=tightened(place.box, extent, self.axis))
        return found

    def _region(self, prompted: dict[int, SlicePrompts]) -> Region:
        """Where a target is looked for: around where it starts, with room about corrections."""
        starting = {i: p.without_corrections() or p for i, p in prompted.items() if p.starts}
        key = tuple(f"{i}:{p.signature()}" for i, p in starting.items())
        if key not in self._regions:
            self._regions[key] = choose_region(self.decoder, self.axis, self.spacing, starting)
        region, whole = self._regions[key], whole_slice(self.encoder, self.axis).shape
        side = max(region.shape)
        for prompts in prompted.values():
            extent = prompts.extent(self.axis)
            if extent is not None and (prompts.corrects or not region.contains(extent)):
                share = ROOM_INSIDE if region.contains(extent) else ROOM_OUTSIDE
                region = region.union(extent.grow(round(side * share)).clip(whole))
        return region

    def _answer_group(
        self,
        region: Region,
        by_target: ByTarget,
        limits: dict[int, tuple[int, int]],
        propagate: bool,
        progress: Progress | None,
    ) -> FrameMasks:
        """Answer in a view that is widened while a target reaches its edge.

        The prompted slices are fitted first, and then the walk. Corrections widen nothing but by
        where they are: one whose answer runs out of the target would so change the view of every
        slice. A view that was widened often enough shows small targets badly: what still reaches
        its edge is named in `cut`.
        """
        told = limits if propagate else None

        def fitting(view: Region, last: bool) -> tuple[Tracker, Answers] | None:
            tracker = self._tracker(view, progress)
            found = self._fitting(tracker, by_target, told, last)
            return None if found is None else (tracker, found)

        grow = partial(Region.grow, factor=GROWTH)
        propagator, answers = widened(region, fitting, grow, GROWTHS)
        cut = tuple(self._cut(propagator.frame, answers))
        if propagate and self.consistency.clean:
            answers = self._cleaned(propagator, by_target, answers)
        return FrameMasks(propagator.frame, answers, cut=cut)

    def _fitting(
        self,
        propagator: Tracker,
        by_target: ByTarget,
        limits: dict[int, tuple[int, int]] | None,
        last: bool,
    ) -> Answers | None:
        """Answers in one view, None if it should be wider; `last` takes them as they are.

        Without limits nothing is propagated.
        """

        def narrow(answers: Answers) -> bool:
            return not last and bool(self._cut(propagator.frame, answers))

        anchors = answer_starts(propagator, by_target)
        if narrow(anchors):
            return None
        if limits is None:
            return take_up(propagator, by_target, anchors, anchors)
        guides = self._guides(propagator, by_target, limits)
        walked = propagator.propagate(anchors, limits, guides)
        if narrow(walked):
            return None
        return take_up(propagator, by_target, anchors, walked, limits, guides)

    def _cleaned(self, propagator: Tracker, by_target: ByTarget, answers: Answers) -> Answers:
        """Answers without rims that look unlike the target, stray parts and cavities."""
        first, apart = answer_starts(propagator, by_target), self.spacing[self.axis]
        found = {}
        for target, masks in answers.items():
            kept = by_target.get(target, {})
            known = first.get(target, {})
            if len(known) > 1:
                greys = propagator.greys([*masks, *known])
                masks = without_odd_greys(masks, known, greys, kept)
            found[target] = cleaned(masks, kept, apart)
        return found

    def _cut(self, frame: Frame, answers: Answers) -> list[int]:
        """Targets that reach an edge of a view that could be wider."""
        if frame.region.contains(whole_slice(self.encoder, self.axis)):
            return []
        return [
            target
            for target, slices in answers.items()
            if any(touches_edge(mask, frame) for mask in slices.values())
        ]

    def _guides(
        self,
        propagator: Tracker,
        by_target: ByTarget,
        limits: dict[int, tuple[int, int]],
    ) -> dict[int, Guide]:
        """What the other two axes say of each target, from its prompts before any correction.

        Nothing of one whose extent the user gave, and of small ones where there are many: asking
        takes most of the time, and on 8 lesions of 6 to 14 mm it changed the mean Dice from 0.960
        to 0.955.
        """
        if not self.consistency.votes(propagator.spec, self.axis, self.spacing):
            return {}
        guides = {}
        for target, slices in by_target.items():
            if limits[target] != (0, self.shape[self.axis]):
                continue
            first = answer_starts(propagator, {target: slices})[target]
            if self._crowded and self._small(propagator.frame, first.values()):
                continue
            guide = self._witnesses.guide(TargetTrack(propagator, target, first, limits[target]))
            if guide is not None:
                guides[target] = guide
        return guides

    def _small(self, frame: Frame, masks: Iterable[SliceMask]) -> bool:
        """True for a target that the other axes could be asked of on fewest slices only."""
        rows, cols = (self.spacing[side] for side in in_plane(self.axis))
        most = STEP_MM * (FEWEST - 1)
        extents = [e for mask in masks if (e := mask_extent(mask, frame)) is not None]
        return all(e.shape[0] * rows < most and e.shape[1] * cols < most for e in extents)

    def _tracker(self, region: Region, progress: Progress | None) -> Tracker:
        frame = frame_of(self.encoder, self.axis, region, self.spacing)
        if frame not in self._trackers:
            self._trackers[frame] = Tracker(self.decoder, frame, self.criteria)
        self._trackers[frame].progress = progress
        return self._trackers[frame]


def bounded(
    answers: Answers, bounds: Mapping[int, tuple[int, int] | None], by_key: ByTarget
) -> Answers:
    """Answers within the slices of 3D boxes, and on slices that were prompted.

    A 3D box is its middle slice's box that is carried on as far as that would be, and then cut:
    what it tells more can only take away what lies outside it.
    """
    found: Answers = {}
    for key, masks in answers.items():
        low, high = bounds.get(key) or (-inf, inf)
        kept = by_key.get(key, {})
        found[key] = {i: m for i, m in masks.items() if low <= i < high or i in kept}
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


def reckoned_spacing(spacing: Sequence[float] | np.ndarray, axis: int) -> tuple[float, ...]:
    """Spacing by which lengths in millimetres are turned into voxels.

    Smoothing, lags and votes are given in millimetres, and were chosen on slices at least half a
    millimetre apart and pixels at most 3 mm wide. An image of a mouse or of a whole body is
    reckoned with as if its voxels were of that size: their proportions stay.

    Args:
        spacing: (3,) mm.
        axis: Slice axis.
    """
    up = max(1.0, FINEST_MM / float(spacing[axis]))
    down = min(1.0, COARSEST_MM / float(min(spacing)))
    return tuple(float(side) * up * down for side in spacing)


def check_starts(prompts: PromptSet, by_target: ByTarget) -> None:
    """Raise PromptError for a target whose prompts do not say where it is."""
    for target in prompts.targets:
        if not any(place.starts for place in by_target.get(target, {}).values()):
            raise PromptError(
                f"target {target} has no foreground prompt: add a positive point, a box, a "
                "scribble or a mask"
            )


def answer_starts(propagator: Tracker, by_target: ByTarget) -> Answers:
    """Answers of the slices that say where a target is."""
    return {
        target: {
            i: propagator.answer(i, p.without_corrections() or p)
            for i, p in slices.items()
            if p.starts
        }
        for target, slices in by_target.items()
    }


def take_up(
    propagator: Tracker,
    by_target: ByTarget,
    starts: Answers,
    walked: Answers,
    limits: dict[int, tuple[int, int]] | None = None,
    guides: Mapping[int, Guide] | None = None,
) -> Answers:
    """Answers after the corrections, in their order.

    A correction changes the answers around it only, as far as its walks differ from them.

    Args:
        propagator: Of the view.
        by_target: Prompts by target and slice.
        starts: Of `answer_starts`.
        walked: What came of them on all slices.
        limits: Half-open slice range by target; None corrects the prompted slices only.
        guides: What the other axes say, by target.
    """
    anchors, answers = {t: dict(slices) for t, slices in starts.items()}, dict(walked)
    for target, slices in by_target.items():
        for index, prompts in slices.items():
            if not prompts.corrects:
                continue
            own = answers[target]
            prior = None if prompts.starts else own.get(index)
            if prior is None and not prompts.includes:
                continue
            anchors[target][index] = propagator.answer(index, prompts, prior)
            answers[target] = (
                {**own, index: anchors[target][index]}
                if limits is None
                else propagator.correct(own, anchors[target], target, index, limits, guides)
            )
    return answers
