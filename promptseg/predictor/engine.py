"""Prompts of a volume -> masks of its slices.

The answer is a function of the ordered prompts alone, so a saved list of prompts gives the same
mask again; what earlier calls computed is reused, never recomputed and never mixed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from promptseg.errors import PromptError
from promptseg.inference.caching import LRUCache
from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.encoder import Progress, SliceEncoder
from promptseg.inference.labels import Answers, FrameMasks, FusedLabels
from promptseg.inference.multimask import MaskCandidate
from promptseg.inference.ranking import MaskRanking
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
    only_clicks,
    with_prompt,
)
from promptseg.predictor.group import GroupAnswerer
from promptseg.predictor.interpreting import PromptInterpreter
from promptseg.predictor.lending import Lender
from promptseg.predictor.views import ByTarget, View, Views
from promptseg.prompts.types import Point, Prompt, PromptSet
from promptseg.propagation.coarse import CoarseView
from promptseg.propagation.extremes import Span, span_of, spanned
from promptseg.propagation.postprocessing import Consistency
from promptseg.propagation.slice_step import SliceStep
from promptseg.propagation.stopping import StopCriteria
from promptseg.volume import pasted

if TYPE_CHECKING:
    from promptseg.refine.geodesic import KeptDistances

EXTENTS = 64
# Of the distances around clicks, so that the next click costs what it changes: at 14 bytes a
# voxel, the surroundings of a liver in voxels of 1 mm and of a dozen targets of ten centimetres.
DISTANCES_BYTES = 1 << 28
FEW = 4
FINEST_MM, COARSEST_MM = 0.5, 3.0


@dataclass(frozen=True)
class Hints:
    """What is known of targets besides their prompts.

    Args:
        concepts: (C,) token by target.
        dense: (I, J, K) map in [0, 1] by target.
        views: Where each group of targets is looked for; None finds it from the prompts.
    """

    concepts: Mapping[int, Tensor]
    dense: Mapping[int, np.ndarray]
    views: Sequence[View] | None = None


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
        coarse: Looks at whole targets; None to take what the tracks find.
        step: Trained to go from slice to slice; None to ask the network alone.
        lent: Encoder of the network that the step belongs to, where that is another one.
        ranking: Of the masks that a click or a box could mean; None to go by predicted quality.
    """

    def __init__(
        self,
        encoder: SliceEncoder,
        axis: int,
        spacing: np.ndarray,
        criteria: StopCriteria | None = None,
        consistency: Consistency | None = None,
        coarse: CoarseView | None = None,
        step: SliceStep | None = None,
        lent: SliceEncoder | None = None,
        ranking: MaskRanking | None = None,
    ) -> None:
        self.encoder, self.axis, self.ranking = encoder, axis, ranking
        self.decoder = SliceDecoder(encoder)
        self.spacing = reckoned_spacing(spacing, axis)
        self.magnified = self.spacing[axis] / float(spacing[axis])
        self.criteria = StopCriteria() if criteria is None else criteria
        self.consistency = Consistency() if consistency is None else consistency
        self.coarse, self.step, self.lent = coarse, step, lent
        own = step if lent is None else None
        self._views = Views(self.decoder, axis, self.spacing, self.criteria, own)
        self._interpreter = PromptInterpreter(self._views, ranking)
        lender = None if lent is None else self._lender(lent)
        self._answerer = GroupAnswerer(self._views, self.consistency, coarse, lender)
        self._spans: dict[int, tuple[Span, np.ndarray]] = {}
        self._extents: LRUCache[str, Extent] = LRUCache(EXTENTS, lambda _: 1)
        self.distances: LRUCache[int, KeptDistances] = LRUCache(
            DISTANCES_BYTES, lambda kept: kept.nbytes
        )

    def _lender(self, encoder: SliceEncoder) -> Lender:
        views = Views(SliceDecoder(encoder), self.axis, self.spacing, self.criteria, self.step)
        return Lender(GroupAnswerer(views, self.consistency, self.coarse), self.decoder)

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
        views: Sequence[View] | None = None,
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
        hints = Hints(concepts or {}, dense or {}, views)
        components = self._components(prompts, propagate, hints)
        return in_targets(self._run(components, propagate, progress, hints), components)

    def _components(self, prompts: PromptSet, propagate: bool, hints: Hints) -> list[Component]:
        """The parts of every target that its prompts point at."""
        parts = {t: self._parts(prompts.for_target(t), propagate, hints) for t in prompts.targets}
        return numbered(parts)

    def _parts(self, prompts: PromptSet, propagate: bool, hints: Hints) -> list[list[Prompt]]:
        """Prompts of one target by its parts, each in the order in which they were given."""
        order = {id(prompt): n for n, prompt in enumerate(prompts)}
        first = PromptSet(p for p in prompts if not is_later(p))
        groups = boxed_parts(first, self.axis)
        if propagate and only_clicks(first):
            groups = self._clicked_parts(first, hints)
        extents: list[Extent] = []
        for prompt in filter(is_later, prompts):
            if not extents:
                extents = [self._extent(group, propagate, hints) for group in groups]
            chosen = assigned(prompt, extents, self.spacing)
            if chosen is None:
                fresh = replace(prompt, role=None)
                order[id(fresh)] = order[id(prompt)]
                groups.append([fresh])
                extents.append(self._extent([fresh], propagate, hints))
                continue
            groups[chosen].append(prompt)
            extents[chosen] = with_prompt(extents[chosen], prompt)
        return [sorted(group, key=lambda p: order[id(p)]) for group in groups]

    def _clicked_parts(self, clicks: PromptSet, hints: Hints) -> list[list[Prompt]]:
        """Clicks given at once by the part that they point at, as if given one after the other.

        What a click gives on its own slice mostly tells that the next one belongs to it; only one
        that lies far from that is compared with what it gives in the volume.
        """
        inside = [p for p in clicks if isinstance(p, Point) and p.positive]
        near = self._extent([inside[0]], False, hints)
        if all(assigned(p, [near], self.spacing) is not None for p in inside[1:]):
            return [list(clicks)]
        groups: list[list[Prompt]] = [[inside[0]]]
        extents = [self._extent([inside[0]], True, hints)]
        rest: list[Prompt] = [p for p in clicks if p is not inside[0]]
        for prompt in sorted(rest, key=lambda p: not getattr(p, "positive", True)):
            chosen = assigned(prompt, extents, self.spacing)
            if chosen is None:
                groups.append([prompt])
                extents.append(self._extent([prompt], True, hints))
            else:
                groups[chosen].append(prompt)
                extents[chosen] = with_prompt(extents[chosen], prompt)
        return groups if len(groups) > 1 else [list(clicks)]

    def _extent(self, prompts: list[Prompt], propagate: bool, hints: Hints) -> Extent:
        """What is known of a part before any correction; kept."""
        own = PromptSet(prompts)
        target = own.targets[0]
        places = sort_prompts(own, self.axis, self.shape).get(target, {})
        key = f"{propagate} {target} {[(i, p.signature()) for i, p in places.items()]}"
        known = self._extents.get(key)
        if known is None:
            alone = [Component(target, target, own)]
            known = extent_of(prompts, self._run(alone, propagate, None, hints))
            self._extents.put(key, known)
        return known

    def _run(
        self,
        components: Sequence[Component],
        propagate: bool,
        progress: Progress | None,
        hints: Hints,
    ) -> list[FrameMasks]:
        """Answers by the keys of components."""
        prompts = prompts_of(components)
        by_key = self._by_key(components, prompts, hints)
        bounds = {one.key: box_bounds(one.prompts, self.axis) for one in components}
        limits = target_limits(prompts, self.axis, self.shape[self.axis])
        limits |= {key: (0, self.shape[self.axis]) for key, bound in bounds.items() if bound}
        reach, crowded = limits if propagate else None, len(components) > FEW
        answered = []
        for region, keys in self._views.groups(by_key, hints.views):
            chosen = {key: by_key[key] for key in keys}
            found = self._answerer.answer(region, chosen, reach, crowded, progress)
            answered.append(replace(found, answers=bounded(found.answers, bounds, by_key)))
        return answered

    def _by_key(
        self, components: Sequence[Component], prompts: PromptSet, hints: Hints
    ) -> ByTarget:
        """Prompts by the key of their part and slice, as they are to be taken."""
        by_key = sort_prompts(prompts, self.axis, self.shape)
        for one in components:
            if one.key in by_key:
                token, volume = hints.concepts.get(one.target), hints.dense.get(one.target)
                by_key[one.key] = self._interpreter.read(by_key[one.key], token, volume)
        return by_key

    def preview(self, prompts: PromptSet) -> FusedLabels:
        """What the coarse view takes the targets for, from their prompted slices alone.

        Args:
            prompts: In voxels and checked.

        Returns:
            Labels, the earlier target where two meet, and the Dice that the view expects of each;
            both empty without a coarse view.

        Raises:
            PromptError: If a target has nothing that says where it is.
        """
        check_starts(prompts, sort_prompts(prompts, self.axis, self.shape))
        components = self._components(prompts, False, Hints({}, {}))
        answered = self._run(components, False, None, Hints({}, {}))
        by_key = sort_prompts(prompts_of(components), self.axis, self.shape)
        labels = np.zeros(self.shape, np.uint16)
        scores: dict[int, float] = {}
        targets = {one.key: one.target for one in components}
        for group in answered:
            for key, seen in self._answerer.previewed(group, by_key).items():
                labels[seen.mask(self.shape) & (labels == 0)] = targets[key]
                scores[targets[key]] = min(scores.get(targets[key], 1.0), seen.quality)
        return FusedLabels(labels, None, scores)

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
        """What a click on a slice could mean, the likeliest first."""
        return self._interpreter.mask_candidates(index, click)


def prompts_of(components: Sequence[Component]) -> PromptSet:
    """Of all parts, by their keys."""
    return PromptSet(prompt for one in components for prompt in one.prompts)


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


def reckoned_spacing(spacing: Sequence[float] | np.ndarray, axis: int) -> tuple[float, ...]:
    """Spacing by which lengths in millimetres are turned into voxels.

    Smoothing and lags are given in millimetres, and were chosen on slices at least half a
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
