"""An interactive session: add prompts, look, correct, undo."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from time import perf_counter
from typing import Literal

import numpy as np

from promptseg.adapters import Adapter
from promptseg.errors import PromptError
from promptseg.inference.encoder import Progress
from promptseg.inference.slice_prompts import BOTH, CORRECTION, REFINE, sort_prompts
from promptseg.predictor.candidates import MaskCandidate
from promptseg.predictor.history import History
from promptseg.predictor.learning import Effort
from promptseg.predictor.uncertainty import Sources, Suggestion
from promptseg.prompts.types import Prompt, PromptSet, Text
from promptseg.propagation.stopping import StopLike
from promptseg.refine.warmup import prepare_refinement
from promptseg.session.asker import Asker, Choices, Owner
from promptseg.session.spoken import Spoken
from promptseg.volume import Segmentation, Volume

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
        stop: As in `Segmenter.segment`.

    Attributes:
        asker: Prepares the network for the volume and holds what it answered.

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
        self.segmenter, self.volume = segmenter, volume
        self.asker = Asker(segmenter, volume, Choices(axis, window, consistency, stop))
        self.choices, self.window = self.asker.choices, self.asker.window
        self._history = History()

    @property
    def prompts(self) -> PromptSet:
        """All prompts so far, replayable."""
        return self._history.prompts

    @property
    def result(self) -> Segmentation | None:
        """The latest answer."""
        return self.asker.result

    @property
    def changed(self) -> tuple[slice, ...] | None:
        """(3,) slices around the voxels that the latest answer changed; None if none did."""
        return self.asker.changed

    def add(self, *prompts: Prompt) -> None:
        """Add prompts; a refused one leaves the session as it was.

        Raises:
            PromptError: If a prompt cannot be used on this volume.
        """
        PromptSet(prompts).validate(self.volume)
        marked = self._history.marked(prompts)
        resolved = PromptSet([*self.prompts, *marked]).to_voxel(self.volume)
        sort_prompts(resolved, self.asker.file_axis(resolved), self.volume.shape)
        if any(isinstance(prompt, Text) for prompt in marked):
            self._spoken.check(marked)
        self._history.add(marked)

    def copy(self) -> Session:
        """One with the same prompts and answers that goes its own way; embeddings are shared."""
        twin = copy.copy(self)
        twin._history, twin.asker = self._history.copy(), self.asker.copy()
        if "_spoken" in self.__dict__:
            twin.__dict__["_spoken"] = self._spoken.copy_for(twin.asker)
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

    def preview(self) -> Segmentation:
        """One look of the coarse 3D view, not kept as an answer; `score` is the Dice it expects.

        Raises:
            PromptError: If there is no coarse view, no prompt, or one that is words.
        """
        return self.asker.preview(self.prompts)

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
            resolved = self.prompts.to_voxel(self.volume)
            result = self._spoken.answer(resolved, propagate, uncertainty, progress)
            self.asker.keep(result, None, self.prompts)
        else:
            self.asker.ask(self.prompts, propagate, progress)
        self._history.answered()
        if uncertainty and not self._history.worded:
            self.uncertainty(progress=progress)
        return self.asker.latest

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
        with self._answered_by() as asker:
            doubt = asker.doubt(sources, progress)
        self.asker.doubted(doubt, perf_counter() - began)
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
        with self._answered_by() as asker:
            return asker.interaction.suggest(target, checked)

    def candidates(self, target: int = 1) -> list[MaskCandidate]:
        """Every mask that the prompts on a target's first slice could mean, most trusted first.

        Raises:
            PromptError: If nothing was answered yet, or the target has no prompt that points.
        """
        with self._answered_by() as asker:
            return asker.interaction.candidates(target)

    def probability(self, target: int = 1) -> np.ndarray:
        """(I, J, K) float32 probability of a target as the network gave it in the latest answer.

        Raises:
            PromptError: If nothing was answered yet.
        """
        with self._answered_by() as asker:
            return asker.interaction.probability(target)

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
        return self.asker.learn(self.prompts, labels, names, effort)

    @cached_property
    def _spoken(self) -> Spoken:
        return Spoken(self.asker)

    @contextmanager
    def _answered_by(self) -> Iterator[Asker]:
        """What gave the latest answer: after words the one of an adapter, which is then in use."""
        _ = self.asker.latest
        if self.asker.asked is not None:
            yield self.asker
            return
        with self._spoken.latest() as asker:
            yield asker
