"""From a question to labels: prepare the engine, ask it, paint its masks, cut around clicks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from promptseg.consistency import Consistency
from promptseg.embeddings import Progress, SliceEncoder
from promptseg.engine import Answered, Engine, Painted, Timings, paint, probabilities
from promptseg.intensity import Window, normalise
from promptseg.prompts import Point, PromptSet
from promptseg.slice_prompts import BOTH, REFINE, margin_bounds
from promptseg.slicing import choose_axis
from promptseg.stopping import StopRules
from promptseg.uncertainty import Asked, Question
from promptseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    from promptseg.segmenter import Segmenter


class Answerer:
    """Answers questions on one volume; what was encoded stays.

    Args:
        segmenter: Network, device and precision.
        volume: 3D image.
        window: Grey values shown to the network.
        consistency: What is done so that neighbouring slices agree.
    """

    def __init__(
        self, segmenter: Segmenter, volume: Volume, window: Window, consistency: Consistency
    ) -> None:
        self.segmenter, self.volume, self.window = segmenter, volume, window
        self.consistency = consistency
        self.engine: Engine | None = None
        self.adapter = ""

    def prepared(
        self, resolved: PromptSet, wanted: int | str, rules: StopRules | None = None
    ) -> Engine:
        """The engine for some prompts along an axis, made anew for another axis or adapter."""
        axis = choose_axis(self.volume, resolved, wanted)
        adapter = self.segmenter.adapters.signature
        held = self.engine if self.adapter == adapter else None
        if held is not None and held.axis == axis:
            return held
        encoder = self._encoder(adapter) if held is None else held.encoder
        engine = Engine(encoder, axis, self.volume.spacing, rules, self.consistency)
        self.engine, self.adapter = engine, adapter
        return engine

    def answered(
        self,
        engine: Engine,
        question: Question,
        answers: list[Answered],
        timings: Timings,
        labels: Mapping[int, str],
    ) -> tuple[Segmentation, Asked]:
        """The engine's answers painted and cut around clicks, and what was asked.

        Args:
            engine: Of `prepared`.
            question: What was asked.
            answers: Of the engine.
            timings: So far; `paint` and `refine` are added.
            labels: Names of the targets.
        """
        began = perf_counter()
        plain = paint(answers, engine.shape)
        timings.add("paint", began)
        began = perf_counter()
        painted = cut_anew(plain, answers, question, engine)
        timings.add("refine", began)
        result = Segmentation.from_volume(
            self.volume,
            painted.labels,
            score=painted.scores,
            uncertainty=painted.uncertainty,
            report=self._report(engine, timings, question.propagate),
            labels=labels,
        )
        asked = Asked(engine, self.adapter, question, answers, plain.labels, painted.labels)
        return result, asked

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


def with_margin_maps(question: Question, engine: Engine) -> Question:
    """The question with geodesic maps of margin points, for a network trained with them."""
    if not engine.encoder.backbone.spec.geodesic:
        return question
    from promptseg.refine.volume import margin_maps

    maps = margin_maps(question.prompts, engine.encoder.data, engine.spacing)
    return replace(question, dense=maps)


def ask(engine: Engine, question: Question, progress: Progress | None = None) -> list[Answered]:
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
    from promptseg.auto import segment_unprompted

    return segment_unprompted(engine, question.tokens, progress)


def cut_anew(
    painted: Painted, answered: list[Answered], question: Question, engine: Engine
) -> Painted:
    """Labels after graph cut on the clicks that ask for it, and on margin points in 3D."""
    prompts = question.prompts
    asking = {p.target for p in prompts if isinstance(p, Point) and p.role in (REFINE, BOTH)}
    bounds = margin_bounds(prompts, engine.shape) if question.propagate else {}
    if not asking and not bounds:
        return painted
    from promptseg.refine.volume import certain_places, refined_labels

    clicks = certain_places(prompts, painted.labels, engine.axis)
    shares = {
        t: engine.spanned(prompts.for_target(t), bounds[t])
        if t in bounds
        else probabilities(answered, engine.shape, t)
        for t in sorted({*asking, *bounds})
    }
    labels = refined_labels(
        painted.labels, shares, engine.encoder.data, clicks, engine.spacing, bounds=bounds
    )
    return replace(painted, labels=labels)
