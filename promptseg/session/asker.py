"""Asks one network about one volume, and keeps its latest answer to look back at."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

import numpy as np

from promptseg.adapters import Adapter
from promptseg.errors import PromptError, VolumeError
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import FrameMasks
from promptseg.predictor.answering import Answerer, ask, with_margin_maps
from promptseg.predictor.engine import Engine, Timings
from promptseg.predictor.learning import Effort
from promptseg.predictor.lessons import take_lesson
from promptseg.predictor.notes import notes_on
from promptseg.predictor.question import Question
from promptseg.predictor.runtime import Runtime
from promptseg.predictor.seen import Seen
from promptseg.predictor.uncertainty import Interaction, Sources
from promptseg.prompts.types import PromptSet, Text
from promptseg.propagation.postprocessing import Consistency
from promptseg.propagation.stopping import StopLike, stop_criteria
from promptseg.volume import Segmentation, Volume, bounding_slices
from promptseg.volume.intensity import choose_window
from promptseg.volume.slicing import resolve_axis


class Owner(Protocol):
    """What a session needs of the segmenter that it belongs to."""

    @property
    def runtime(self) -> Runtime: ...


@dataclass(frozen=True)
class Choices:
    """How a volume is to be answered; all as in `Segmenter.segment`."""

    axis: int | str = "auto"
    window: str | None = "auto"
    consistency: str = "auto"
    stop: StopLike = None


class Asker:
    """A volume, the choices made for it, and the latest answer.

    Args:
        owner: Its runtime is asked anew each time.
        volume: 3D image.
        choices: Axis, window, consistency and when to stop.

    Attributes:
        result: The latest answer, None before.
        asked: What was asked for it; None where several networks answered.
        changed: (3,) slices around the voxels that it changed; None if none did.

    Raises:
        VolumeError: If the window is unknown, or `volume` is no Volume.
        PromptError: If the axis is unknown.
    """

    def __init__(self, owner: Owner, volume: Volume, choices: Choices) -> None:
        if not isinstance(volume, Volume):
            raise VolumeError(
                f"volume is a {type(volume).__name__}: give what promptseg.read returns, or make "
                "Volume(data, affine) of an array"
            )
        self.owner, self.volume = owner, volume
        active, window = owner.runtime.adapters.active, choices.window
        if active is not None:
            window = active.info.window if window in ("auto", None) else window
        self.window = choose_window(Seen.of(volume).volume, window)
        axis, stop = choices.axis, stop_criteria(choices.stop)
        self.choices = replace(choices, stop=stop)
        self._axis = axis if axis == "auto" else resolve_axis(axis, volume.affine)
        consistency = Consistency.named(choices.consistency)
        self.answerer = Answerer(owner.runtime, volume, self.window, consistency, stop)
        self.result: Segmentation | None = None
        self.asked: Interaction | None = None
        self.changed: tuple[slice, ...] | None = None

    @property
    def runtime(self) -> Runtime:
        """What answers are computed with."""
        return self.owner.runtime

    @property
    def wanted_axis(self) -> int | str:
        """Slice axis of the file, a name, or `auto`."""
        return self.choices.axis

    @property
    def seen(self) -> Seen:
        """The volume as the network sees it with the adapter that is in use."""
        return self.answerer.seen

    @property
    def latest(self) -> Segmentation:
        """The latest answer.

        Raises:
            PromptError: If there is none.
        """
        if self.result is None:
            raise PromptError("nothing was answered yet: call segment or propagate first")
        return self.result

    @property
    def interaction(self) -> Interaction:
        """The latest question with its answer.

        Raises:
            PromptError: If there is none.
        """
        if self.asked is None:
            raise PromptError("nothing was answered yet: call segment or propagate first")
        return self.asked

    def copy(self) -> Asker:
        """One with the same answer that goes its own way; what was encoded is shared."""
        return copy.copy(self)

    def beside(self) -> Asker:
        """One of the same volume with the same choices, for one adapter."""
        return Asker(self.owner, self.volume, self.choices)

    def file_axis(self, resolved: PromptSet) -> int:
        """The file's axis along which some prompts in voxels of the file are answered."""
        axis = self.seen.axis(self.seen.prompts(resolved), self._axis)
        return self.seen.orientation.file_axis(axis)

    def ask(self, given: PromptSet, propagate: bool, progress: Progress | None) -> Segmentation:
        """Answer prompts as the user gave them.

        Raises:
            PromptError: If there are none, and no adapter with tokens, or none that says where a
                target is.
        """
        timings, began = Timings(), perf_counter()
        question, axis, labels = self._question(given, propagate)
        engine = self.prepared(question.prompts, axis)
        timings.add("prepare", began)
        began = perf_counter()
        question = with_margin_maps(question, engine)
        answers = ask(engine, question, progress)
        timings.add("segment", began)
        return self.answered(engine, question, answers, timings, labels, given)

    def preview(self, given: PromptSet) -> Segmentation:
        """What the coarse view takes the targets for; the latest answer stays what it was.

        Raises:
            PromptError: If there is no coarse view, no prompt, or one that is words.
        """
        if self.runtime.coarse is None or not self.answerer.consistency.coarse:
            raise PromptError(
                "a preview needs the coarse 3D view: load the segmenter with coarse='auto' and "
                "leave consistency at 'auto'"
            )
        if not given:
            raise PromptError("there is no prompt: give a point, a box, a scribble or a mask")
        if any(isinstance(prompt, Text) for prompt in given):
            raise PromptError("words have no preview: call propagate, or give a point or a box")
        resolved = self.seen.prompts(given.to_voxel(self.volume))
        found = self.prepared(resolved, self._axis).preview(resolved)
        return Segmentation.from_volume(
            self.volume, self.seen.in_file(found.labels), score=found.scores
        )

    def learn(
        self,
        given: PromptSet,
        labels: np.ndarray | None,
        names: Mapping[int, str] | None,
        effort: Effort | None,
    ) -> Adapter:
        """As `Session.learn`, after the prompts of a session."""
        known = self.latest.data if labels is None else np.asarray(labels)
        named = {**({} if self.result is None else self.result.labels), **(names or {})}
        axis = self.file_axis(given.to_voxel(self.volume))
        return take_lesson(self.runtime, self.volume, self.window, axis, known, named, effort)

    def _question(
        self, given: PromptSet, propagate: bool
    ) -> tuple[Question, int | str, Mapping[int, str]]:
        """What the prompts ask, along which axis, and the names of the targets."""
        if given:
            resolved = self.seen.prompts(given.to_voxel(self.volume))
            return Question(resolved, propagate), self._axis, {}
        active = self.runtime.adapters.active
        if active is None or not active.tokens:
            raise PromptError("there is no prompt: give a point, a box, a scribble or a mask")
        own = self._axis == "auto"
        sections = active.info.sections if own else {}
        question = Question(PromptSet(), True, active.tokens, sections=sections)
        return question, active.info.axis if own else self._axis, active.info.labels

    def prepared(self, prompts: PromptSet, wanted: int | str) -> Engine:
        """The engine for some prompts along an axis; embeddings are kept where they can be.

        Args:
            prompts: As the network sees them, see `seen`.
            wanted: Axis of the file, a name, or `auto`.
        """
        return self.answerer.prepared(prompts, wanted)

    def answered(
        self,
        engine: Engine,
        question: Question,
        answers: list[FrameMasks],
        timings: Timings,
        labels: Mapping[int, str] | None = None,
        given: PromptSet | None = None,
    ) -> Segmentation:
        """Take what an engine of `prepared` answered for the latest answer."""
        reply = self.answerer.answered(engine, question, answers, timings, labels or {})
        masks = reply.network, reply.labels
        asked = Interaction(engine, self.answerer.adapter, question, answers, *masks, self.seen)
        return self.keep(reply.result, asked.following(self.asked), given or PromptSet())

    def keep(
        self, result: Segmentation, asked: Interaction | None, given: PromptSet
    ) -> Segmentation:
        """Take an answer for the latest, with notes on it and on the prompts as given."""
        active = self.runtime.adapters.active
        unsaid = None if active is None or active.info.orientation else active.name
        trained_on = None if active is None else active.info.modality
        other = None if active is None or self.runtime.fits_view else active.name
        notes = notes_on(self.volume, given, result, unsaid, self.window, trained_on, other)
        result = replace(result, report={**result.report, "notes": notes})
        before = np.zeros_like(result.data) if self.result is None else self.result.data
        self.changed = bounding_slices(before != result.data)
        self.result, self.asked = result, asked
        return result

    def doubt(self, sources: Sources | None, progress: Progress | None) -> np.ndarray:
        """(I, J, K) float32 in [0, 1]: how doubtful the latest answer is, asked in other ways.

        Raises:
            PromptError: If nothing was answered yet, or the adapter was switched since.
        """
        asked = self.interaction
        if asked.adapter != self.runtime.adapters.signature:
            raise PromptError("the adapter was switched since the latest answer: answer again")
        self.asked = asked.ready(sources)
        return self.asked.uncertainty(progress)

    def doubted(self, doubt: np.ndarray, seconds: float) -> None:
        """Fill `uncertainty` of the latest answer, found in some seconds."""
        timings = {**self.latest.report["timings"], "uncertainty": seconds}
        report = {**self.latest.report, "timings": timings}
        self.result = replace(self.latest, uncertainty=doubt, report=report)

    def uncertainty(self, *, progress: Progress | None = None) -> np.ndarray:
        """`doubt` by the usual sources, filled in."""
        began = perf_counter()
        doubt = self.doubt(None, progress)
        self.doubted(doubt, perf_counter() - began)
        return doubt
