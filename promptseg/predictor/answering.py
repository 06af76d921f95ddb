"""From a question to labels: prepare the engine, ask it, fuse its masks, cut around clicks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from promptseg.inference.encoder import Progress, SliceEncoder
from promptseg.inference.labels import FrameMasks, FusedLabels, fuse_labels, probabilities
from promptseg.inference.slice_prompts import BOTH, REFINE, margin_bounds
from promptseg.predictor.engine import Engine, Timings
from promptseg.predictor.expected_dice import expected_dice_of
from promptseg.predictor.question import Question, Reply
from promptseg.predictor.runtime import Lent, Runtime
from promptseg.predictor.seen import Seen
from promptseg.prompts.types import Point, Prompt, PromptSet, Scribble
from promptseg.propagation.postprocessing import Consistency
from promptseg.propagation.stopping import StopCriteria
from promptseg.volume import Segmentation, Volume
from promptseg.volume.intensity import Window, normalise
from promptseg.volume.orientation import CANONICAL, axis_codes

if TYPE_CHECKING:
    from promptseg.inference.device import Precision
    from promptseg.propagation.coarse import CoarseView
    from promptseg.propagation.slice_step import SliceStep
    from promptseg.refine.corrector import Click, Corrector


class Answerer:
    """Answers questions on one volume; what was encoded stays.

    Args:
        runtime: Network, device and precision.
        volume: 3D image.
        window: Grey values shown to the network.
        consistency: What is done so that neighbouring slices agree.
        criteria: When a propagation stops; what measured best if None.
    """

    def __init__(
        self,
        runtime: Runtime,
        volume: Volume,
        window: Window,
        consistency: Consistency,
        criteria: StopCriteria | None = None,
    ) -> None:
        self.runtime, self.volume, self.window = runtime, volume, window
        self.consistency, self.criteria = consistency, criteria
        self.engine: Engine | None = None
        self.adapter = ""
        self._seen = Seen.of(volume)

    @property
    def seen(self) -> Seen:
        """The volume as the network sees it with the adapter that is in use."""
        active = self.runtime.adapters.active
        codes = CANONICAL if active is None else active.info.seen_as
        if codes != self._seen.codes:
            self._seen = Seen.of(self.volume, codes)
        return self._seen

    def prepared(self, prompts: PromptSet, wanted: int | str) -> Engine:
        """The engine for some prompts along an axis, made anew for another axis or adapter.

        Args:
            prompts: As the network sees them.
            wanted: Axis of the file, a name, or `auto`.
        """
        axis = self.seen.axis(prompts, wanted)
        adapter = self.runtime.adapters.signature
        held = self.engine if self.adapter == adapter else None
        if held is not None and held.axis == axis:
            return held
        encoder = self._encoder(adapter) if held is None else held.encoder
        coarse, lent, step = self._three_d()
        engine = Engine(
            encoder, axis, self.seen.volume.spacing, self.criteria, self.consistency,
            coarse, step, None if lent is None else self._lent_encoder(lent, encoder.data),
            # It knows the masks of the base: one that was taught an organ is its own judge.
            None if adapter else self.runtime.ranking,
        )  # fmt: skip
        self.engine, self.adapter = engine, adapter
        return engine

    def _three_d(self) -> tuple[CoarseView | None, Lent | None, SliceStep | None]:
        """What looks at whole targets, whose network propagates if not its own, and the step."""
        if not self.consistency.coarse:
            return None, None, None
        lent = self.runtime.lent
        return self.runtime.view, lent, self.runtime.step if lent is None else lent.step

    def answered(
        self,
        engine: Engine,
        question: Question,
        answers: list[FrameMasks],
        timings: Timings,
        labels: Mapping[int, str],
    ) -> Reply:
        """The engine's answers fused and cut around clicks.

        Args:
            engine: Of `prepared`.
            question: What was asked.
            answers: Of the engine.
            timings: So far; `paint` and `refine` are added.
            labels: Names of the targets.
        """
        began = perf_counter()
        plain = fuse_labels(answers, engine.shape)
        timings.add("paint", began)
        began = perf_counter()
        refined = self._refined(plain, answers, question, engine)
        fused = as_drawn(refined, answers, question, engine)
        timings.add("refine", began)
        result = Segmentation.from_volume(
            self.volume,
            self.seen.in_file(fused.labels),
            score=self._scores(answers, fused),
            report=self._report(engine, timings, question)
            | {
                "cut_by_view": sorted({target for group in answers for target in group.cut}),
                "slice_quality": by_slice(answers, self.seen),
                "larger_than_trained": _larger(plain.labels, engine, question),
            },
            labels=labels,
        )
        return Reply(result, plain.labels, fused.labels)

    def _scores(self, answers: list[FrameMasks], fused: FusedLabels) -> dict[int, float]:
        """The Dice expected of every target; its mean predicted overlap where none was fitted.

        It was fitted on answers of the model itself: of what an adapter has learned it knows
        nothing (left atria answered with no prompt, 0.90 reached, 0.64 expected).
        """
        expected = None if self.adapter else expected_dice_of(self.runtime.backbone.spec.sha256)
        if expected is None:
            return fused.scores
        return {target: expected.of(answers, target) for target in fused.scores}

    def _refined(
        self, fused: FusedLabels, answers: list[FrameMasks], question: Question, engine: Engine
    ) -> FusedLabels:
        """After the clicks that ask for it, by the corrector and graph cut."""
        corrector, precision = self._corrector(question), self.runtime.precision
        return cut_anew(fused, answers, question, engine, corrector, precision)

    def _corrector(self, question: Question) -> Corrector | None:
        """What corrects in 3D, None where no click asks for it."""
        return self.runtime.corrector if asks_refinement(question.prompts) else None

    def _encoder(self, adapter: str) -> SliceEncoder:
        owner = self.runtime
        return SliceEncoder(
            owner.backbone,
            normalise(self.seen.volume.data, self.window),
            f"{self.seen.volume.sha256} {self.window}",
            owner.device,
            owner.precision,
            owner.batch_size,
            owner.cache,
            adapter,
            owner.crop_factor,
        )

    def _lent_encoder(self, lent: Lent, data: np.ndarray) -> SliceEncoder:
        owner = self.runtime
        return SliceEncoder(
            lent.backbone,
            data,
            f"{self.seen.volume.sha256} {self.window}",
            owner.device,
            owner.precision,
            owner.batch_size,
            owner.cache,
            crop_factor=lent.backbone.spec.crop_factor,
        )

    def _report(self, engine: Engine, timings: Timings, question: Question) -> dict[str, Any]:
        corrector, spec = self._corrector(question), self.runtime.backbone.spec
        return {
            "model": {"name": spec.name, "family": spec.family, "sha256": spec.sha256},
            "adapter": _adapter(self.runtime),
            "axis": self.seen.orientation.file_axis(engine.axis),
            "orientation": {"file": axis_codes(self.volume.affine), "seen": self.seen.codes},
            "window": self.window.to_dict(),
            "propagated": question.propagate,
            "corrector": None if corrector is None else corrector.sha256,
            "coarse": None if engine.coarse is None else engine.coarse.sha256,
            "step": None if engine.step is None else engine.step.sha256,
            "lent": None if engine.lent is None else engine.lent.backbone.spec.sha256,
            "ranking": None if engine.ranking is None else engine.ranking.sha256,
            "precision": self.runtime.precision,
            "device": str(self.runtime.device),
            "encoded_slices": engine.encoder.encoded,
            "decoded_masks": engine.decoder.decoded,
            "timings": dict(timings.seconds),
        }


def by_slice(answers: list[FrameMasks], seen: Seen) -> dict[int, dict[int, float]]:
    """Predicted quality by target and slice of the file."""
    found: dict[int, dict[int, float]] = {}
    for group in answers:
        for target, slices in group.answers.items():
            own = found.setdefault(target, {})
            for index, mask in slices.items():
                place = seen.file_slice(group.frame.axis, index)[1]
                own[place] = min(own.get(place, 1.0), round(float(mask.quality), 3))
    return {target: dict(sorted(slices.items())) for target, slices in found.items()}


def _larger(
    labels: np.ndarray, engine: Engine, question: Question
) -> dict[int, tuple[float, float]]:
    """What no prompt found and is larger than in training, see `oversized`."""
    alone = question.sections.keys() - set(question.prompts.targets)
    if not alone:
        return {}
    from promptseg.predictor.automatic import oversized

    return oversized(engine, labels, {target: question.sections[target] for target in alone})


def _adapter(runtime: Runtime) -> dict[str, Any] | None:
    """Which version of which adapter is in use."""
    active = runtime.adapters.active
    if active is None:
        return None
    info = active.info
    return {
        "name": active.name,
        "organ": info.organ,
        "created": info.created,
        "digest": active.digest,
    }


def with_margin_maps(question: Question, engine: Engine) -> Question:
    """The question with geodesic maps of margin points, for a network trained with them."""
    if not engine.encoder.backbone.spec.geodesic:
        return question
    from promptseg.refine.volume import margin_maps

    maps = margin_maps(question.prompts, engine.encoder.data, engine.spacing)
    return replace(question, dense=maps)


def ask(engine: Engine, question: Question, progress: Progress | None = None) -> list[FrameMasks]:
    """Answer prompts, or the tokens of a question without any.

    Raises:
        PromptError: If a target has nothing that says where it is.
    """
    if question.prompts:
        prompts, propagate = question.prompts, question.propagate
        answers = engine.run(prompts, propagate, progress, dense=question.dense)
        for target, bound in margin_bounds(prompts, engine.shape).items() if propagate else ():
            engine.spanned(prompts.for_target(target), bound, progress)
        return answers
    from promptseg.predictor.automatic import segment_unprompted

    return segment_unprompted(engine, question.tokens, progress, question.sections)


def asks_refinement(prompts: PromptSet) -> set[int]:
    """Targets with a click that asks for refinement in 3D."""
    return {p.target for p in prompts if _asks(p)}


def _asks(prompt: Prompt) -> TypeGuard[Point]:
    return isinstance(prompt, Point) and prompt.role in (REFINE, BOTH)


def is_local(prompt: Prompt) -> TypeGuard[Scribble]:
    """True for a stroke that corrects where it was drawn, without the network."""
    return isinstance(prompt, Scribble) and prompt.role == REFINE


def as_drawn(
    painted: FusedLabels, answered: list[FrameMasks], question: Question, engine: Engine
) -> FusedLabels:
    """Labels after the strokes that correct where they were drawn, all clicks and strokes obeyed.

    Clicks and strokes are hard constraints, however the rest was found.
    """
    from promptseg.refine.strokes import obeyed, stroked

    labels, image, spacing = painted.labels, engine.encoder.data, engine.spacing
    for stroke in filter(is_local, question.prompts):
        share = probabilities(answered, engine.shape, stroke.target)
        labels = stroked(labels, share, image, stroke, spacing)
    labels = obeyed(labels, question.prompts)
    return painted if labels is painted.labels else replace(painted, labels=labels)


def clicks_and_known(places: PromptSet) -> tuple[list[Click], tuple[np.ndarray, np.ndarray]]:
    """Clicks that ask for refinement, in their order, and the voxels known without them."""
    from promptseg.refine.volume import click_voxels

    known = click_voxels(PromptSet([p for p in places if not _asks(p)]))
    late = [p for p in places if _asks(p)]
    return [(tuple(int(np.floor(x + 0.5)) for x in p.at), p.positive) for p in late], known


def cut_anew(
    fused: FusedLabels,
    answered: list[FrameMasks],
    question: Question,
    engine: Engine,
    corrector: Corrector | None = None,
    precision: Precision = "fp32",
) -> FusedLabels:
    """Labels after graph cut on the clicks that ask for it, and on margin points in 3D.

    A corrector changes the probability of a target that clicks ask for before it is cut.
    """
    prompts = question.prompts
    asking = asks_refinement(prompts)
    bounds = margin_bounds(prompts, engine.shape) if question.propagate else {}
    if not asking and not bounds:
        return fused
    from promptseg.refine.geodesic import KeptDistances
    from promptseg.refine.volume import certain_places, refined_labels

    others = PromptSet(p for p in prompts if not is_local(p))
    clicks = certain_places(others, fused.labels, engine.axis)
    image, spacing = engine.encoder.data, engine.spacing
    shares = {}
    for t in sorted({*asking, *bounds}):
        if t in bounds:
            shares[t] = engine.spanned(prompts.for_target(t), bounds[t])
            continue
        shares[t] = probabilities(answered, engine.shape, t)
        if corrector is not None:
            told = clicks_and_known(clicks.for_target(t))
            shares[t] = corrector.corrected(shares[t], image, told[0], spacing, told[1], precision)
    kept = {t: engine.distances.get(t) or KeptDistances() for t in shares}
    labels = refined_labels(fused.labels, shares, image, clicks, spacing, bounds=bounds, kept=kept)
    for t, held in kept.items():
        if held.nbytes <= engine.distances.most:
            engine.distances.put(t, held)
    return replace(fused, labels=labels)
