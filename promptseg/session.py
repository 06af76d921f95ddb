"""An interactive session: add prompts, look, correct, undo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np

from promptseg.ahead import prepare_refinement
from promptseg.candidates import Candidate, candidates
from promptseg.consistency import Consistency
from promptseg.embeddings import Progress, SliceEncoder
from promptseg.engine import Answered, Engine, Painted, Timings, paint, probabilities
from promptseg.errors import PromptError
from promptseg.intensity import choose_window, normalise
from promptseg.prompts import Point, Prompt, PromptSet, Scribble, Text
from promptseg.propagation import StopRules
from promptseg.slice_prompts import BOTH, CORRECTION, REFINE, margin_bounds, sort_prompts
from promptseg.slicing import choose_axis, resolve_axis
from promptseg.uncertainty import Asked, Question, Sources, Suggestion, suggest
from promptseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    from promptseg.segmenter import Segmenter
    from promptseg.text.answering import Spoken

RefineMode = Literal["graph_cut", "network", "both"]
REFINE_ROLES = {"graph_cut": REFINE, "network": CORRECTION, "both": BOTH}


class Session:
    """Prompts on one volume and what they gave.

    The result depends on the ordered prompts alone: `session.prompts.save(...)` and
    `Segmenter.segment` on the loaded file give the same mask. A click or a scribble added after an
    answer is a correction of it.

    Args:
        segmenter: Network, device and precision.
        volume: 3D image.
        axis: Slice axis or `auto`, decided by the first prompts.
        window: As in `Segmenter.segment`.
        consistency: As in `Segmenter.segment`.

    Attributes:
        rules: When a propagation stops, None for the rules that measured best; to be set before
            the first answer.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        volume: Volume,
        axis: int | str = "auto",
        window: str | None = "auto",
        consistency: str = "auto",
    ) -> None:
        self.segmenter, self.volume = segmenter, volume
        self.wanted_axis, self.wanted_window, self.wanted_consistency = axis, window, consistency
        active = segmenter.adapters.active
        if active is not None:
            window = active.info.window if window in ("auto", None) else window
        self.window = choose_window(volume, window)
        self._axis = axis if axis == "auto" else resolve_axis(axis, volume.affine)
        self._consistency = Consistency.named(consistency)
        self.rules: StopRules | None = None
        self._engine: Engine | None = None
        self._adapter = ""
        self._given: list[Prompt] = []
        self._undone: list[list[Prompt]] = []
        self._steps: list[int] = []
        self._pending = 0
        self._result: Segmentation | None = None
        self._asked: Asked | None = None
        self._spoken: Spoken | None = None
        self.changed: tuple[slice, slice, slice] | None = None

    @property
    def prompts(self) -> PromptSet:
        """All prompts so far, replayable."""
        return PromptSet(self._given)

    @property
    def result(self) -> Segmentation | None:
        """The latest answer."""
        return self._result

    def add(self, *prompts: Prompt) -> None:
        """Add prompts; a refused one leaves the session as it was.

        Raises:
            PromptError: If a prompt cannot be used on this volume.
        """
        PromptSet(prompts).validate(self.volume)
        marked = [self._marked(prompt) for prompt in prompts]
        resolved = PromptSet([*self._given, *marked]).to_voxel(self.volume)
        axis = choose_axis(self.volume, resolved, self._axis)
        sort_prompts(resolved, axis, self.volume.shape)
        if any(isinstance(prompt, Text) for prompt in marked):
            self._words().check(marked)
        self._steps.append(len(self._given))
        self._given.extend(marked)
        self._undone.clear()

    def _marked(self, prompt: Prompt) -> Prompt:
        """A plain click or stroke on a target that was answered before becomes a correction."""
        if self._corrects(prompt):
            return replace(prompt, role=prompt.role or CORRECTION)
        return prompt

    def _corrects(self, prompt: Prompt) -> TypeGuard[Point | Scribble]:
        answered = {p.target for p in self._given[: self._pending]}
        return isinstance(prompt, (Point, Scribble)) and prompt.target in answered

    def undo(self) -> None:
        """Take back the latest `add`; the next answer is exactly the earlier one.

        Raises:
            PromptError: If there is nothing to undo.
        """
        if not self._steps:
            raise PromptError("nothing to undo: no prompt was added")
        start = self._steps.pop()
        self._pending = min(self._pending, start)
        self._undone.append(self._given[start:])
        del self._given[start:]

    def redo(self) -> None:
        """Add again what was undone last.

        Raises:
            PromptError: If nothing was undone.
        """
        if not self._undone:
            raise PromptError("nothing to redo")
        self._steps.append(len(self._given))
        self._given.extend(self._undone.pop())

    def segment(self, progress: Progress | None = None) -> Segmentation:
        """Masks on the prompted slices only."""
        return self.answer(propagate=False, progress=progress)

    def propagate(self, progress: Progress | None = None) -> Segmentation:
        """Masks through the volume."""
        prepare_refinement()
        return self.answer(propagate=True, progress=progress)

    def refine(self, mode: RefineMode = "both", progress: Progress | None = None) -> Segmentation:
        """Take up the clicks added since the last answer.

        Args:
            mode: `graph_cut` cuts the 3D mask anew around the clicks without the network
                (information-fusion graph cut, METHODS A), at once; `network` asks the network
                again and propagates the corrected slices; `both` asks the network and then cuts,
                which measures best (`benchmarks/interaction.py`).
            progress: Called with stage, done, total.

        Raises:
            PromptError: If no click was added since the last answer, or the mode is unknown.
        """
        if mode not in REFINE_ROLES:
            raise PromptError(f"refine mode {mode!r} is unknown: use {', '.join(REFINE_ROLES)}")
        given, role = self._given, REFINE_ROLES[mode]
        fresh = given[self._pending :]
        if not any(self._corrects(prompt) for prompt in fresh):
            raise PromptError("nothing to refine: add a point where the mask is wrong")
        clicks = [
            replace(p, role=role) if isinstance(p, Point) and self._corrects(p) else p
            for p in fresh
        ]
        self._given = [*given[: self._pending], *clicks]
        try:
            return self.answer(propagate=True, progress=progress)
        except Exception:
            self._given = given
            raise

    def answer(
        self, propagate: bool, uncertainty: bool = False, progress: Progress | None = None
    ) -> Segmentation:
        """Answer all prompts so far.

        Args:
            propagate: False answers the prompted slices only.
            uncertainty: True to fill `result.uncertainty`; it takes several times as long.
            progress: Called with stage, done, total.

        Raises:
            PromptError: If there is no prompt, or none that says where a target is. With an
                adapter that has tokens, no prompt asks for all of its labels.
        """
        if not self._given:
            return self._unprompted(uncertainty, progress)
        if any(isinstance(prompt, Text) for prompt in self._given):
            return self._worded(propagate, uncertainty, progress)
        timings, began = Timings(), perf_counter()
        resolved = self.prompts.to_voxel(self.volume)
        engine = self.prepared(resolved, self._axis)
        timings.add("prepare", began)
        began = perf_counter()
        dense = self._dense(resolved, engine)
        answered = engine.run(resolved, propagate, progress, dense=dense)
        timings.add("segment", began)
        began = perf_counter()
        plain = paint(answered, engine.shape)
        timings.add("paint", began)
        began = perf_counter()
        painted = self._refined(plain, answered, resolved, engine, propagate)
        timings.add("refine", began)
        self._pending = len(self._given)
        question = Question(resolved, propagate, dense=dense)
        self._remember(engine, question, answered, plain.labels, painted.labels)
        result = self._keep(painted, engine, timings, propagate)
        return self._doubted(progress)[0] if uncertainty else result

    @property
    def _spoke(self) -> bool:
        """True if the latest answer was to words."""
        return self._asked is None and self._result is not None

    def _words(self) -> Spoken:
        from promptseg.text.answering import Spoken

        self._spoken = Spoken(self) if self._spoken is None else self._spoken
        return self._spoken

    def _worded(
        self, propagate: bool, uncertainty: bool, progress: Progress | None
    ) -> Segmentation:
        """What words name, each target by the adapter that knows it."""
        resolved = self.prompts.to_voxel(self.volume)
        result = self._words().answer(resolved, propagate, uncertainty, progress)
        previous = np.zeros_like(result.data) if self._result is None else self._result.data
        self.changed = bounding_box(previous != result.data)
        self._pending, self._result, self._asked = len(self._given), result, None
        return result

    def answered(
        self, engine: Engine, question: Question, answers: list[Answered], timings: Timings
    ) -> Segmentation:
        """Paint, correct and keep answers to a question that was asked elsewhere.

        Args:
            engine: Of `prepared`.
            question: What was asked.
            answers: Of the engine.
            timings: So far.
        """
        began = perf_counter()
        plain = paint(answers, engine.shape)
        timings.add("paint", began)
        painted = self._refined(plain, answers, question.prompts, engine, question.propagate)
        self._remember(engine, question, answers, plain.labels, painted.labels)
        return self._keep(painted, engine, timings, question.propagate)

    def _dense(self, resolved: PromptSet, engine: Engine) -> dict[int, np.ndarray]:
        """Geodesic maps of margin points, for a network that was trained with them."""
        if not self.segmenter.backbone.spec.geodesic:
            return {}
        from promptseg.refine.volume import margin_maps

        return margin_maps(resolved, engine.encoder.data, engine.spacing)

    def _refined(
        self,
        painted: Painted,
        answered: list[Answered],
        resolved: PromptSet,
        engine: Engine,
        propagated: bool,
    ) -> Painted:
        """The same after graph cut on the clicks that ask for it, and on margin points in 3D."""
        roles = (REFINE, BOTH)
        asking = {p.target for p in resolved if isinstance(p, Point) and p.role in roles}
        bounds = margin_bounds(resolved, engine.shape) if propagated else {}
        if not asking and not bounds:
            return painted
        from promptseg.refine.volume import certain_places, refined_labels

        clicks = certain_places(resolved, painted.labels, engine.axis)
        shares = {t: probabilities(answered, engine.shape, t) for t in sorted({*asking, *bounds})}
        labels = refined_labels(
            painted.labels, shares, engine.encoder.data, clicks, engine.spacing, bounds=bounds
        )
        return replace(painted, labels=labels)

    def _unprompted(self, uncertainty: bool, progress: Progress | None) -> Segmentation:
        """All labels of the active adapter, found by its tokens."""
        from promptseg.auto import segment_unprompted

        active = self.segmenter.adapters.active
        if active is None or not active.tokens:
            raise PromptError("there is no prompt: give a point, a box, a scribble or a mask")
        timings, began = Timings(), perf_counter()
        axis = active.info.axis if self._axis == "auto" else self._axis
        engine = self.prepared(PromptSet(), axis)
        timings.add("prepare", began)
        began = perf_counter()
        answered = segment_unprompted(engine, active.tokens, progress)
        timings.add("segment", began)
        began = perf_counter()
        painted = paint(answered, engine.shape)
        timings.add("paint", began)
        question = Question(PromptSet(), True, active.tokens)
        self._remember(engine, question, answered, painted.labels, painted.labels)
        result = self._keep(painted, engine, timings, True, active.info.labels)
        return self._doubted(progress)[0] if uncertainty else result

    def uncertainty(
        self, sources: Sources | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """How doubtful the latest answer is; `result.uncertainty` is filled too.

        The question is asked again of other views of the volume (mirrored, smaller, brighter),
        of the network's other candidate masks, and with dropout in the adapter if there is one.
        It takes several times as long as the answer.

        Args:
            sources: What varies; the usual if None.
            progress: Called with stage, done, total.

        Returns:
            (I, J, K) float32 in [0, 1]: twice the probability that the voxel's label is wrong,
            calibrated where weights/calibration.toml has constants for the model; 0 is certain,
            1 no better than a coin's.

        Raises:
            PromptError: If nothing was answered yet, or the adapter was switched since.
        """
        if self._spoke and self._result is not None:
            with self._words().latest() as session:
                doubt = session.uncertainty(sources, progress)
            self._result = replace(self._result, uncertainty=doubt)
            return doubt
        return self._doubted(progress, sources)[1]

    def suggest(self, target: int | None = None) -> Suggestion | None:
        """The slice most worth correcting next, found without asking the network.

        Args:
            target: Only this one; None looks at all.

        Returns:
            None if no target has a mask anywhere.

        Raises:
            PromptError: If nothing was answered yet.
        """
        if self._spoke:
            with self._words().latest() as session:
                return session.suggest(target)
        asked, _ = self._latest()
        targets = None if target is None else (target,)
        return suggest(asked.answered, asked.question.prompts, targets)

    def candidates(self, target: int = 1) -> list[Candidate]:
        """Every mask that the prompts on a target's first slice could mean, most trusted first.

        Raises:
            PromptError: If nothing was answered yet, or the target has no prompt that points.
        """
        if self._spoke:
            with self._words().latest() as session:
                return session.candidates(target)
        asked, _ = self._latest()
        return candidates(asked.engine, asked.question.prompts, asked.answered, target)

    def probability(self, target: int = 1) -> np.ndarray:
        """(I, J, K) float32 probability of a target as the network gave it in the latest answer.

        Raises:
            PromptError: If nothing was answered yet.
        """
        if self._spoke:
            with self._words().latest() as session:
                return session.probability(target)
        asked, _ = self._latest()
        groups = [group for group in asked.answered if target in group.answers]
        if not groups:
            return np.zeros(self.volume.shape, np.float32)
        return probabilities(groups, asked.engine.shape, target)

    def _latest(self) -> tuple[Asked, Segmentation]:
        if self._asked is None or self._result is None:
            raise PromptError("nothing was answered yet: call segment or propagate first")
        return self._asked, self._result

    def _remember(
        self,
        engine: Engine,
        question: Question,
        answered: list[Answered],
        before: np.ndarray,
        after: np.ndarray,
    ) -> None:
        asked = Asked(engine, self._adapter, question, answered, before, after)
        self._asked = asked.following(self._asked)

    def _doubted(
        self, progress: Progress | None = None, sources: Sources | None = None
    ) -> tuple[Segmentation, np.ndarray]:
        """The latest result with its uncertainty, and that."""
        asked, result = self._latest()
        if asked.adapter != self.segmenter.adapters.signature:
            raise PromptError("the adapter was switched since the latest answer: answer again")
        began = perf_counter()
        self._asked = asked.ready(sources)
        doubt = self._asked.uncertainty(progress)
        timings = dict(result.report["timings"])
        timings["uncertainty"] = perf_counter() - began
        report = {**result.report, "timings": timings}
        self._result = replace(result, uncertainty=doubt, report=report)
        return self._result, doubt

    def prepared(self, resolved: PromptSet, wanted: int | str) -> Engine:
        """The engine for some prompts along an axis; embeddings are kept where they can be."""
        axis = choose_axis(self.volume, resolved, wanted)
        adapter = self.segmenter.adapters.signature
        if self._engine is None or self._engine.axis != axis or self._adapter != adapter:
            held = self._engine if self._adapter == adapter else None
            encoder = self._encoder(adapter) if held is None else held.encoder
            self._engine = Engine(encoder, axis, self.volume.spacing, self.rules, self._consistency)
            self._adapter = adapter
        return self._engine

    def _encoder(self, adapter: str) -> SliceEncoder:
        owner = self.segmenter
        return SliceEncoder(
            owner.backbone,
            normalise(self.volume.data, self.window),
            f"{self.volume.sha256} {self.window}",
            owner.device,
            owner.precision,
            owner.batch_size,
            owner.cache,
            adapter,
        )

    def _keep(
        self,
        painted: Painted,
        engine: Engine,
        timings: Timings,
        propagate: bool,
        labels: Mapping[int, str] | None = None,
    ) -> Segmentation:
        previous = self._result.data if self._result is not None else np.zeros_like(painted.labels)
        self.changed = bounding_box(previous != painted.labels)
        self._result = Segmentation.from_volume(
            self.volume,
            painted.labels,
            score=painted.scores,
            uncertainty=painted.uncertainty,
            report=self._report(engine, timings, propagate),
            labels={} if labels is None else labels,
        )
        return self._result

    def _report(self, engine: Engine, timings: Timings, propagate: bool) -> dict[str, Any]:
        return {
            "axis": engine.axis,
            "window": self.window.to_dict(),
            "propagated": propagate,
            "precision": self.segmenter.precision,
            "device": str(self.segmenter.device),
            "encoded_slices": engine.encoder.encoded,
            "decoded_masks": engine.decoder.decoded,
            "cut_by_view": list(engine.cut),
            "timings": dict(timings.seconds),
        }


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Slices around the true voxels of an (I, J, K) mask; None if there are none."""
    if not mask.any():
        return None
    sides = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        sides.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return sides[0], sides[1], sides[2]
