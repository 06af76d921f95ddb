"""Answers of one view: prompted slices first, then the volume, then corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from promptseg.inference.crop import mask_extent, widened
from promptseg.inference.decoder import SliceMask
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import Answers, FrameMasks
from promptseg.predictor.lending import Lender
from promptseg.predictor.views import ByTarget, Views
from promptseg.propagation.coarse import CoarseAnswer, CoarseView
from promptseg.propagation.coarse_fusion import CoarseFusion
from promptseg.propagation.postprocessing import Consistency, cleaned
from promptseg.propagation.reach import CorrectionReach
from promptseg.propagation.tracker import Tracker
from promptseg.volume.slicing import Frame, Region, in_plane

# A view is widened like one of the coarse view (`propagation.coarse.WIDENED`), and as often.
GROWTH = 1.5
GROWTHS = 3
# Where there are many, targets below this size stay as tracked: two looks take most of a second.
SMALL_MM = 25.0
Limits = dict[int, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Answers before any correction, in a view that holds what they mark.

    Args:
        tracker: Of the view.
        starts: Of `answer_key_slices`.
        whole: What came of them, by target and slice.
        leaves: True if a target may go on outside.
    """

    tracker: Tracker
    starts: Answers
    whole: Answers
    leaves: bool = False

    def within(self, region: Region) -> bool:
        """True if nothing is marked outside a region."""
        extents = (
            mask_extent(mask, self.tracker.frame)
            for masks in self.whole.values()
            for mask in masks.values()
        )
        return all(extent is None or region.contains(extent) for extent in extents)


class GroupAnswerer:
    """Answers targets that are looked for in one view.

    Args:
        views: Of the volume.
        consistency: What is done so that neighbouring slices agree.
        coarse: Looks at whole targets; None to take what the tracks find.
        lender: Propagates in place of tracks; None for a network that goes its own way.
    """

    def __init__(
        self,
        views: Views,
        consistency: Consistency,
        coarse: CoarseView | None = None,
        lender: Lender | None = None,
    ) -> None:
        self.views, self.consistency, self._lender = views, consistency, lender
        self.axis, self.spacing = views.axis, views.spacing
        self._fusion: CoarseFusion | None = None
        if coarse is not None and consistency.coarse and not views.criteria.never:
            self._fusion = CoarseFusion(coarse, views.decoder, views.spacing)

    def answer(
        self,
        region: Region,
        by_target: ByTarget,
        limits: Limits | None,
        crowded: bool,
        progress: Progress | None,
    ) -> FrameMasks:
        """Answer in a view that is widened while a target reaches its edge.

        It is also widened where a target was last seen near its edge, and the wider answer is taken
        if it marks something outside of the narrower view.

        The prompted slices are fitted first, and then the tracks. Corrections widen nothing but by
        where they are: one whose answer runs out of the target would so change the view of every
        slice. A view that was widened often enough shows small targets badly: what still reaches
        its edge is named in `cut`.

        Args:
            region: The view to begin with.
            by_target: Prompts by target and slice.
            limits: Half-open slice range by target; None answers the prompted slices only.
            crowded: True where there are so many targets that the small ones stay as tracked.
            progress: Called with stage, done, total.
        """

        narrower: list[Fitted] = []

        def fitting(view: Region, last: bool) -> Fitted | None:
            tracker = self.views.tracker(view, progress)
            found = self._fitting(tracker, by_target, limits, crowded, last)
            if found is None:
                return None
            if narrower and found.within(narrower[-1].tracker.frame.region):
                return narrower[-1]
            if found.leaves and not last:
                narrower.append(found)
                return None
            return found

        grow = partial(Region.grow, factor=GROWTH)
        fitted = widened(region, fitting, grow, GROWTHS)
        frame, correct = fitted.tracker.frame, fitted.tracker.correct
        if self._lender is not None:
            correct = partial(self._lender.correct, frame)
        answers = take_up(fitted, by_target, limits, correct)
        cut = tuple(self.views.cut(frame, answers))
        if limits is not None and self.consistency.clean:
            answers = {t: cleaned(m, by_target.get(t, {})) for t, m in answers.items()}
        return FrameMasks(frame, answers, cut=cut)

    def _fitting(
        self,
        tracker: Tracker,
        by_target: ByTarget,
        limits: Limits | None,
        crowded: bool,
        last: bool,
    ) -> Fitted | None:
        """Answers in one view, None if it should be wider; `last` takes them as they are.

        Without limits nothing is propagated.
        """

        def narrow(answers: Answers) -> bool:
            return not last and bool(self.views.cut(tracker.frame, answers))

        key_masks = answer_key_slices(tracker, by_target)
        if narrow(key_masks):
            return None
        if limits is None:
            return Fitted(tracker, key_masks, key_masks)
        if self._lender is not None:
            frame, said = tracker.frame, without_corrections(by_target, key_masks)
            lent = self._lender.whole(frame, said, key_masks, limits, crowded, tracker.progress)
            return None if narrow(lent) else Fitted(tracker, key_masks, lent)
        tracked = tracker.propagate(key_masks, limits)
        if narrow(tracked):
            return None
        whole = self._fused(tracker, by_target, key_masks, tracked, limits, crowded)
        if narrow(whole):
            return None
        leaves = any(self.views.leaves(tracker.frame, one, limits) for one in (tracked, whole))
        return Fitted(tracker, key_masks, whole, leaves)

    def _fused(
        self,
        tracker: Tracker,
        by_target: ByTarget,
        key_masks: Answers,
        tracked: Answers,
        limits: Limits,
        crowded: bool,
    ) -> Answers:
        """Tracks and the coarse view together; a network with a memory goes its own way.

        Small targets among many stay as tracked.
        """
        if self._fusion is None or tracker.carries == "memory":
            return tracked
        found = {}
        for target, masks in tracked.items():
            if crowded and self._small(tracker.frame, key_masks[target].values()):
                found[target] = masks
                continue
            said = without_corrections(by_target, key_masks)[target]
            found[target] = self._fusion.fused(tracker.frame, said, masks, limits[target])
        return found

    def previewed(self, group: FrameMasks, by_target: ByTarget) -> dict[int, CoarseAnswer]:
        """What the coarse view takes targets for, from answers of their prompted slices alone."""
        if self._fusion is None:
            return {}
        found = {
            target: self._fusion.preview(group.frame, by_target[target], masks)
            for target, masks in group.answers.items()
        }
        return {target: seen for target, seen in found.items() if seen is not None}

    def _small(self, frame: Frame, masks: Iterable[SliceMask]) -> bool:
        """True for a target that is nowhere as large as `SMALL_MM`."""
        rows, cols = (self.spacing[side] for side in in_plane(self.axis))
        extents = [e for mask in masks if (e := mask_extent(mask, frame)) is not None]
        return all(max(e.shape[0] * rows, e.shape[1] * cols) < SMALL_MM for e in extents)


def answer_key_slices(tracker: Tracker, by_target: ByTarget) -> Answers:
    """Answers of the slices that say where a target is."""
    return {
        target: {
            i: tracker.answer(i, p.without_corrections() or p)
            for i, p in slices.items()
            if p.starts
        }
        for target, slices in by_target.items()
    }


def without_corrections(by_target: ByTarget, key_masks: Answers) -> ByTarget:
    """What was said of key slices before any answer."""
    return {
        target: {
            i: p.without_corrections() or p for i, p in by_target[target].items() if i in masks
        }
        for target, masks in key_masks.items()
    }


def take_up(
    fitted: Fitted,
    by_target: ByTarget,
    limits: Limits | None,
    correct: Callable[..., dict[int, SliceMask]],
) -> Answers:
    """Answers after the corrections, in their order.

    A correction changes the answers around it only, as far as its tracks differ from them.

    Args:
        fitted: Answers before.
        by_target: Prompts by target and slice.
        limits: Half-open slice range by target; None corrects the prompted slices only.
        correct: Called as `Tracker.correct`.
    """
    tracker = fitted.tracker
    reach = CorrectionReach(tracker.frame, tracker.spec.mask_size)
    key_masks, answers = {t: dict(s) for t, s in fitted.starts.items()}, dict(fitted.whole)
    for target, slices in by_target.items():
        for index, prompts in slices.items():
            if not prompts.corrects:
                continue
            own = answers[target]
            prior = None if prompts.starts else own.get(index)
            if prior is None and not prompts.includes:
                continue
            answer = tracker.answer(index, prompts, prior)
            # Who empties a slice says that the target ends: that has no bounds.
            marks = reach.marks(index, prompts, own) if answer.area else []
            known = {index: own[index]} if index in own else {}
            answer = reach.kept(marks, known, {index: answer}).get(index, answer)
            key_masks[target][index] = answer
            after = (
                {**own, index: answer}
                if limits is None
                else correct(own, key_masks[target], target, index, limits)
            )
            answers[target] = reach.kept(marks, own, after)
    return answers
