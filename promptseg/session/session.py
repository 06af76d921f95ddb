"""An interactive session: add prompts, look, correct, undo."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import Literal, Protocol

import numpy as np

from promptseg.adapters import Adapter
from promptseg.errors import PromptError, VolumeError
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import FrameMasks
from promptseg.inference.slice_prompts import BOTH, CORRECTION, REFINE, sort_prompts
from promptseg.predictor.answering import Answerer, ask, with_margin_maps
from promptseg.predictor.candidates import MaskCandidate
from promptseg.predictor.engine import Engine, Timings
from promptseg.predictor.history import History
from promptseg.predictor.learning import Effort
from promptseg.predictor.lessons import take_lesson
from promptseg.predictor.notes import notes_on
from promptseg.predictor.question import Question
from promptseg.predictor.runtime import Runtime
from promptseg.predictor.seen import Seen
from promptseg.predictor.uncertainty import Interaction, Sources, Suggestion
from promptseg.prompts.types import Prompt, PromptSet, Text
from promptseg.propagation.postprocessing import Consistency
from promptseg.propagation.stopping import StopLike, stop_criteria
from promptseg.refine.warmup import prepare_refinement
from promptseg.text.answering import Spoken
from promptseg.volume import Segmentation, Volume, bounding_slices
from promptseg.volume.intensity import choose_window
from promptseg.volume.slicing import resolve_axis

RefineMode = Literal["graph_cut", "network", "both"]
REFINE_ROLES = {"graph_cut": REFINE, "network": CORRECTION, "both": BOTH}


class Owner(Protocol):
    """What a session needs of the segmenter that it belongs to."""

    @property
    def runtime(self) -> Runtime: ...


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
        stop: As in `Segmenter.segment`.

    Attributes:
        changed: (3,) slices around the voxels that the latest answer changed; None if none did.

    Raises:
        VolumeError: If the window is unknown, or `volume` is no Volume.
        PromptError: If the axis is unknown.

    Example:
        >>> session = segmenter.session(volume)                        # doctest: +SKIP
        >>> session.add(Box((60, 72, 44), (95, 110, 45)))              # doctest: +SKIP
        >>> session.propagate()                                        # doctest: +SKIP
        >>> session.add(Point((90, 80, 46), positive=False))           # doctest: +SKIP
        >>> session.refine().save("mask.nii.gz")                       # doctest: +SKIP
        >>> session.undo()                                             # doctest: +SKIP
    """

    def __init__(
        self,
        segmenter: Owner,
        volume: Volume,
        axis: int | str = "auto",
        window: str | None = "auto",
        consistency: str = "auto",
        stop: StopLike = None,
    ) -> None:
        if not isinstance(volume, Volume):
            raise VolumeError(
                f"volume is a {type(volume).__name__}: give what promptseg.read returns, or make "
                "Volume(data, affine) of an array"
            )
        self.segmenter, self.volume = segmenter, volume
        self.wanted_axis, self.wanted_window, self.wanted_consistency = axis, window, consistency
        active = segmenter.runtime.adapters.active
        if active is not None:
            window = active.info.window if window in ("auto", None) else window
        self.window = choose_window(Seen.of(volume).volume, window)
        self.stop = stop_criteria(stop)
        self.changed: tuple[slice, ...] | None = None
        self._axis = axis if axis == "auto" else resolve_axis(axis, volume.affine)
        self._history = History()
        self._answerer = Answerer(
            segmenter.runtime, volume, self.window, Consistency.named(consistency), self.stop
        )
        self._asked: Interaction | None = None
        self._result: Segmentation | None = None

    @property
    def runtime(self) -> Runtime:
        """What the session's answers are computed with."""
        return self.segmenter.runtime

    @property
    def prompts(self) -> PromptSet:
        """All prompts so far, replayable."""
        return self._history.prompts

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
        marked = self._history.marked(prompts)
        resolved = PromptSet([*self.prompts, *marked]).to_voxel(self.volume)
        sort_prompts(resolved, self._file_axis(resolved), self.volume.shape)
        if any(isinstance(prompt, Text) for prompt in marked):
            self._spoken.check(marked)
        self._history.add(marked)

    def copy(self) -> Session:
        """A session with the same prompts and answers that goes its own way from here.

        What was encoded is shared, so trying something on a copy costs what it would cost here.
        """
        twin = copy.copy(self)
        twin._history = self._history.copy()
        if "_spoken" in self.__dict__:
            twin.__dict__["_spoken"] = self._spoken.copy_for(twin, twin._beside)
        return twin

    def undo(self) -> None:
        """Take back the latest `add`; the next answer is exactly the earlier one.

        Raises:
            PromptError: If there is nothing to undo.
        """
        self._history.undo()

    def redo(self) -> None:
        """Add again what was undone last.

        Raises:
            PromptError: If nothing was undone.
        """
        self._history.redo()

    def segment(self, progress: Progress | None = None) -> Segmentation:
        """Masks on the prompted slices only; raises as `answer` does."""
        return self.answer(propagate=False, progress=progress)

    def propagate(self, progress: Progress | None = None) -> Segmentation:
        """Masks through the volume; raises as `answer` does."""
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
        with self._history.refining(REFINE_ROLES[mode]):
            return self.answer(propagate=True, progress=progress)

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
        if self._history.worded:
            return self._worded(propagate, uncertainty, progress)
        timings, began = Timings(), perf_counter()
        question, axis, labels = self._question(propagate)
        engine = self.prepared(question.prompts, axis)
        timings.add("prepare", began)
        began = perf_counter()
        question = with_margin_maps(question, engine)
        answers = ask(engine, question, progress)
        timings.add("segment", began)
        self.answered(engine, question, answers, timings, labels)
        self._history.answered()
        if uncertainty:
            self.uncertainty(progress=progress)
        return self._latest()

    @property
    def seen(self) -> Seen:
        """The volume as the network sees it with the adapter that is in use."""
        return self._answerer.seen

    def prepared(self, prompts: PromptSet, wanted: int | str) -> Engine:
        """The engine for some prompts along an axis; embeddings are kept where they can be.

        Args:
            prompts: As the network sees them, see `seen`.
            wanted: Axis of the file, a name, or `auto`.
        """
        return self._answerer.prepared(prompts, wanted)

    def answered(
        self,
        engine: Engine,
        question: Question,
        answers: list[FrameMasks],
        timings: Timings,
        labels: Mapping[int, str] | None = None,
    ) -> Segmentation:
        """Take what an engine of `prepared` answered for the latest answer of the session."""
        answerer = self._answerer
        reply = answerer.answered(engine, question, answers, timings, labels or {})
        masks, seen = (reply.network, reply.labels), answerer.seen
        asked = Interaction(engine, answerer.adapter, question, answers, *masks, seen)
        return self._keep(reply.result, asked.following(self._asked))

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
        began = perf_counter()
        with self._looking_back() as (session, asked):
            if asked.adapter != self.runtime.adapters.signature:
                raise PromptError("the adapter was switched since the latest answer: answer again")
            session._asked = ready = asked.ready(sources)
            doubt = ready.uncertainty(progress)
        result = self._latest()
        timings = {**result.report["timings"], "uncertainty": perf_counter() - began}
        report = {**result.report, "timings": timings}
        self._result = replace(result, uncertainty=doubt, report=report)
        return doubt

    def suggest(
        self, target: int | None = None, checked: Collection[tuple[int, int, int]] = ()
    ) -> Suggestion | None:
        """The slice most worth correcting next, found without asking the network.

        Args:
            target: Only this one; None looks at all.
            checked: Axis, slice and target of what was looked at since and needs nothing; other
                slices are suggested, as long as any is worth a look.

        Returns:
            None if no target has a mask anywhere, or no further slice is worth a look.

        Raises:
            PromptError: If nothing was answered yet.
        """
        with self._looking_back() as (_, asked):
            return asked.suggest(target, checked)

    def candidates(self, target: int = 1) -> list[MaskCandidate]:
        """Every mask that the prompts on a target's first slice could mean, most trusted first.

        Raises:
            PromptError: If nothing was answered yet, or the target has no prompt that points.
        """
        with self._looking_back() as (_, asked):
            return asked.candidates(target)

    def probability(self, target: int = 1) -> np.ndarray:
        """(I, J, K) float32 probability of a target as the network gave it in the latest answer.

        Raises:
            PromptError: If nothing was answered yet.
        """
        with self._looking_back() as (_, asked):
            return asked.probability(target)

    def learn(
        self,
        labels: np.ndarray | None = None,
        names: Mapping[int, str] | None = None,
        effort: Effort | None = None,
    ) -> Adapter:
        """Accept this case's mask and learn from it, and from those accepted before, in seconds.

        A token that names each label and the decoder are fitted to the accepted cases, without a
        training run; the encoder is not touched. The adapter `learned` is then in use: the next
        session on this segmenter answers without a prompt. Keep it with `write_adapter`.

        Args:
            labels: (I, J, K) corrected labels; None takes the latest answer.
            names: By label, so that words can ask for it too.
            effort: How long to learn; at most 24 seconds if None.

        Raises:
            PromptError: If there is no answer and no mask, or it holds nothing to learn from.
            VolumeError: If the labels are not on the volume's grid.
            AdapterError: If the network takes no token that names a target.
        """
        known = self._latest().data if labels is None else np.asarray(labels)
        named = (
            dict(names or {}) if self._result is None else {**self._result.labels, **(names or {})}
        )
        axis = self._file_axis(self.prompts.to_voxel(self.volume))
        return take_lesson(self.runtime, self.volume, self.window, axis, known, named, effort)

    def _file_axis(self, resolved: PromptSet) -> int:
        """The file's axis along which some prompts in voxels of the file are answered."""
        axis = self.seen.axis(self.seen.prompts(resolved), self._axis)
        return self.seen.orientation.file_axis(axis)

    def _question(self, propagate: bool) -> tuple[Question, int | str, Mapping[int, str]]:
        """What the prompts ask, along which axis, and the names of the targets."""
        if self.prompts:
            resolved = self.seen.prompts(self.prompts.to_voxel(self.volume))
            return Question(resolved, propagate), self._axis, {}
        active = self.runtime.adapters.active
        if active is None or not active.tokens:
            raise PromptError("there is no prompt: give a point, a box, a scribble or a mask")
        axis = active.info.axis if self._axis == "auto" else self._axis
        return Question(PromptSet(), True, active.tokens), axis, active.info.labels

    @cached_property
    def _spoken(self) -> Spoken[Session]:
        return Spoken(self, self._beside)

    def _beside(self) -> Session:
        """A session on the same volume with the same choices, for one adapter."""
        return Session(
            self.segmenter,
            self.volume,
            self.wanted_axis,
            self.wanted_window,
            self.wanted_consistency,
            self.stop,
        )

    def _worded(
        self, propagate: bool, uncertainty: bool, progress: Progress | None
    ) -> Segmentation:
        """What words name, each target by the adapter that knows it."""
        resolved = self.prompts.to_voxel(self.volume)
        result = self._spoken.answer(resolved, propagate, uncertainty, progress)
        self._history.answered()
        return self._keep(result, None)

    def _keep(self, result: Segmentation, asked: Interaction | None) -> Segmentation:
        active = self.runtime.adapters.active
        trained_on = None if active is None else active.info.modality
        unsaid = self._unsaid_orientation()
        notes = notes_on(self.volume, self.prompts, result, unsaid, self.window, trained_on)
        result = replace(result, report={**result.report, "notes": notes})
        before = np.zeros_like(result.data) if self._result is None else self._result.data
        self.changed = bounding_slices(before != result.data)
        self._result, self._asked = result, asked
        return result

    def _unsaid_orientation(self) -> str | None:
        """Name of an adapter in use that does not say which orientation it was trained in."""
        active = self.runtime.adapters.active
        return None if active is None or active.info.orientation else active.name

    def _latest(self) -> Segmentation:
        if self._result is None:
            raise PromptError("nothing was answered yet: call segment or propagate first")
        return self._result

    @contextmanager
    def _looking_back(self) -> Iterator[tuple[Session, Interaction]]:
        """The latest question and the session that answered it: after words one of an adapter."""
        self._latest()
        if self._asked is not None:
            yield self, self._asked
            return
        with self._spoken.latest() as session, session._looking_back() as found:
            yield found
