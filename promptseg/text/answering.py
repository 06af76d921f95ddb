"""Words in a session: which adapter answers which target, alone or with the user's clicks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor

from promptseg.errors import PromptError, WeightsError
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import FrameMasks, fuse_labels
from promptseg.inference.slice_prompts import BOTH, CORRECTION, REFINE
from promptseg.predictor.automatic import segment_unprompted
from promptseg.predictor.engine import Engine, Timings
from promptseg.predictor.question import Question
from promptseg.predictor.runtime import Runtime
from promptseg.predictor.seen import Seen
from promptseg.prompts.types import Mask, Point, Prompt, PromptSet, Text
from promptseg.text.folding import Folded, fold
from promptseg.text.proposal_prompts import Meant, Proposer, english, in_file, nowhere
from promptseg.text.proposals import Proposal
from promptseg.text.reporting import repeats_told, summed_report, told_of
from promptseg.text.selecting import Choice, Selector
from promptseg.text.targets import merge, regrouped, renumbered, without_absent, worded_alone
from promptseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    from typing_extensions import Self


class Asks(Protocol):
    """What words need of the session that they are said in."""

    volume: Volume

    @property
    def wanted_axis(self) -> int | str: ...

    @property
    def runtime(self) -> Runtime: ...

    @property
    def seen(self) -> Seen: ...

    def prepared(self, prompts: PromptSet, wanted: int | str) -> Engine: ...

    def answered(
        self, engine: Engine, question: Question, answers: list[FrameMasks], timings: Timings
    ) -> Segmentation: ...

    def uncertainty(self, *, progress: Progress | None = None) -> np.ndarray: ...

    def copy(self) -> Self: ...


S = TypeVar("S", bound=Asks)


@dataclass
class Group:
    """What one adapter is asked.

    Args:
        choices: By target, of those that words name.
        pixels: Prompts that point at something.
        concepts: (C,) token by target of words given along with such prompts.
        alone: (C,) token by key of words given alone.
        targets: Target by key.
        meant: By target, of those that only the image-text model knows.
        absent: Targets that it does not see.
    """

    choices: dict[int, Choice] = field(default_factory=dict)
    pixels: list[Prompt] = field(default_factory=list)
    concepts: dict[int, Tensor] = field(default_factory=dict)
    alone: dict[int, Tensor] = field(default_factory=dict)
    targets: dict[int, int] = field(default_factory=dict)
    meant: dict[int, Meant] = field(default_factory=dict)
    absent: list[int] = field(default_factory=list)


class Spoken(Generic[S]):
    """The part of a session that understands words.

    Every adapter that words ask for gets a session of its own, in which its embeddings stay; the
    segmenter's active adapter is the same afterwards.

    Args:
        owner: The session that the prompts were given to.
        beside: Makes another one with the same choices, for one adapter.
    """

    def __init__(self, owner: S, beside: Callable[[], S]) -> None:
        self.owner, self._beside = owner, beside
        self.selector = Selector(owner.runtime.adapters)
        model = owner.runtime.text_model
        self.proposer = None if model is None else Proposer(model, owner.volume.modality)
        self.sessions: dict[str | None, S] = {}
        self._names: tuple[str | None, ...] = ()
        self._wholes: dict[tuple[Any, ...], np.ndarray] = {}

    def copy_for(self, owner: S, beside: Callable[[], S]) -> Spoken[S]:
        """The same knowledge for a copy of the session."""
        twin = copy.copy(self)
        twin.owner, twin._beside, twin._wholes = owner, beside, dict(self._wholes)
        twin.sessions = {name: session.copy() for name, session in self.sessions.items()}
        return twin

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise PromptError unless the words of all prompts can be answered."""
        for prompt in prompts:
            if isinstance(prompt, Text):
                self._choose(prompt.words)

    def answer(
        self, prompts: PromptSet, propagate: bool, uncertainty: bool, progress: Progress | None
    ) -> Segmentation:
        """Answer resolved prompts of which some are words.

        Words given alone are looked for in the whole volume, whatever `propagate` says. Those that
        mean what earlier words mean, and those that are found nowhere, add no target: what became
        of them is in `report["text"]`.
        """
        asked, repeated = self._distinct(renumbered(prompts))
        groups = self._groups(asked, progress)
        results: dict[str | None, Segmentation] = {}
        for name, group in groups.items():
            with self.owner.runtime.adapters.using(name):
                results[name] = self._answer(name, group, propagate, uncertainty, progress)
        self._names = tuple(results)
        choices = {t: c for group in groups.values() for t, c in group.choices.items()}
        meant = {t: m for group in groups.values() for t, m in group.meant.items()}
        merged = merge(list(results.values()))
        told = [*self._told(choices, merged), *self._proposed(meant, merged)]
        told += repeats_told(repeated, told)
        names = {t: c.name for t, c in choices.items()} | {t: m.name for t, m in meant.items()}
        merged = without_absent(merged, worded_alone(asked))
        return replace(
            merged,
            labels={t: name for t, name in names.items() if t in merged.targets},
            report={**summed_report(results), "text": told,
                    "vocabulary": list(self.selector.known())},
        )  # fmt: skip

    def session(self, name: str | None) -> S:
        """The session of an adapter, made while it is active."""
        if name not in self.sessions:
            self.sessions[name] = self._beside()
        return self.sessions[name]

    @contextmanager
    def latest(self) -> Iterator[S]:
        """The session that gave the latest answer, with its adapter in use meanwhile.

        Raises:
            PromptError: Several adapters gave it, or none.
        """
        if len(self._names) != 1:
            raise PromptError(
                f"{len(self._names)} adapters gave the latest answer: ask for one target alone"
            )
        with self.owner.runtime.adapters.using(self._names[0]):
            yield self.sessions[self._names[0]]

    def _choose(self, words: str) -> Choice | None:
        """Adapter and labels of words; None where only the image-text model can say."""
        try:
            return self.selector.choose(words, self.owner.volume.modality)
        except (PromptError, WeightsError):
            if self.proposer is None:
                raise
            return None

    def _distinct(self, prompts: PromptSet) -> tuple[PromptSet, list[tuple[Text, int]]]:
        """Prompts without words alone that repeat others' meaning, and these with whose target."""
        alone = worded_alone(prompts)
        meant: dict[Folded, int] = {}
        kept: list[Prompt] = []
        repeated: list[tuple[Text, int]] = []
        for prompt in prompts:
            if isinstance(prompt, Text):
                choice = self._choose(prompt.words)
                meaning = fold(english(prompt.words) if choice is None else choice.name)
                if meaning in meant and prompt.target in alone:
                    repeated.append((prompt, meant[meaning]))
                    continue
                meant.setdefault(meaning, prompt.target)
            kept.append(prompt)
        return PromptSet(kept), repeated

    def _groups(self, prompts: PromptSet, progress: Progress | None) -> dict[str | None, Group]:
        active = self.owner.runtime.adapters.active
        groups: dict[str | None, Group] = {}
        for target in prompts.targets:
            mine = prompts.for_target(target)
            words = [prompt.words for prompt in mine if isinstance(prompt, Text)]
            others: list[Prompt] = [prompt for prompt in mine if not isinstance(prompt, Text)]
            name = None if active is None else active.name
            if not words:
                groups.setdefault(name, Group()).pixels += others
                continue
            choice = self._choose(words[0])
            if choice is None:
                group = groups.setdefault(name, Group())
                self._propose(group, name, target, words[0], others, progress)
                continue
            tokens = self.selector.tokens(choice)
            group = groups.setdefault(choice.adapter, Group())
            group.choices[target] = choice
            self._place(group, target, others, tokens, prompts.targets)
        return groups

    def _place(
        self,
        group: Group,
        target: int,
        pixels: list[Prompt],
        tokens: Mapping[int, Tensor],
        taken: Sequence[int],
    ) -> None:
        """Sort one target's words and pixels into what its adapter is asked."""
        late = [p for p in pixels if isinstance(p, Point) and p.role in (CORRECTION, BOTH, REFINE)]
        if any(_starts(prompt) for prompt in pixels):
            group.pixels += pixels
            if len(tokens) == 1:
                group.concepts[target] = next(iter(tokens.values()))
        elif late or pixels:
            group.pixels += self._corrected(group.choices[target], tokens, target, pixels)
        else:
            free = max([*taken, *group.targets, 0]) + 1
            keys = [target, *range(free, free + len(tokens) - 1)]
            group.alone |= dict(zip(keys, tokens.values(), strict=True))
            group.targets |= dict.fromkeys(keys, target)

    def _propose(
        self,
        group: Group,
        name: str | None,
        target: int,
        words: str,
        pixels: list[Prompt],
        progress: Progress | None,
    ) -> None:
        """The image-text model's mask and the clicks on it; prompts that point go before it."""
        if self.proposer is None or any(_starts(prompt) for prompt in pixels):
            group.meant[target] = Meant(words, english(words), None)
            group.pixels += pixels
            return
        with self.owner.runtime.adapters.using(name):
            session = self.session(name)
            engine = session.prepared(PromptSet(), self._axis(session))
            meant = in_file(self.proposer.find(engine, name, words, progress), session.seen)
        group.meant[target] = meant
        if isinstance(meant.found, Proposal):
            group.pixels += [meant.found.prompt(target), *pixels]
        else:
            group.absent.append(target)

    def _proposed(self, meant: Mapping[int, Meant], result: Segmentation) -> list[dict[str, Any]]:
        """What became of words that the image-text model was asked for, for the report."""
        if self.proposer is None:
            return []
        return [
            one.told(target, self.proposer.model, bool((result.data == target).any()))
            for target, one in meant.items()
        ]

    def _corrected(
        self, choice: Choice, tokens: Mapping[int, Tensor], target: int, clicks: list[Prompt]
    ) -> list[Prompt]:
        """Clicks on what the words alone gave: that mask, and the clicks after it."""
        key = (choice.adapter, choice.labels, choice.words)
        if key not in self._wholes:
            with self.owner.runtime.adapters.using(choice.adapter):
                session = self.session(choice.adapter)
                engine = session.prepared(PromptSet(), self._axis(session))
                found = fuse_labels(segment_unprompted(engine, dict(tokens)), engine.shape)
                self._wholes[key] = session.seen.in_file(found.labels > 0)
        mask = self._wholes[key]
        if mask.any():
            return [Mask(mask, target), *clicks]
        return [replace(p, role=None) if isinstance(p, Point) else p for p in clicks]

    def _answer(
        self,
        name: str | None,
        group: Group,
        propagate: bool,
        uncertainty: bool,
        progress: Progress | None,
    ) -> Segmentation:
        session, timings, began = self.session(name), Timings(), perf_counter()
        pixels = session.seen.prompts(PromptSet(group.pixels))
        wanted = session.wanted_axis if group.pixels else self._axis(session)
        engine = session.prepared(pixels, wanted)
        timings.add("prepare", began)
        began = perf_counter()
        answered: list[FrameMasks] = []
        if group.pixels:
            answered += engine.run(pixels, propagate, progress, group.concepts)
        if group.alone:
            answered += segment_unprompted(engine, group.alone, progress)
        if group.absent:
            answered.append(nowhere(engine, group.absent))
        timings.add("segment", began)
        question = Question(pixels, propagate, {**group.concepts, **group.alone})
        result = session.answered(engine, question, answered, timings)
        if uncertainty and (group.pixels or group.alone):
            doubt = session.uncertainty(progress=progress)
            result = replace(result, uncertainty=doubt)
        return regrouped(result, group.targets)

    def _axis(self, session: S) -> int | str:
        active = session.runtime.adapters.active
        if active is None or session.wanted_axis != "auto":
            return session.wanted_axis
        return active.info.axis

    def _told(self, choices: Mapping[int, Choice], result: Segmentation) -> list[dict[str, Any]]:
        """What became of the words, for the report."""
        adapters, selector = self.owner.runtime.adapters, self.selector
        return [
            told_of(choice, target, adapters.get(choice.adapter).digest, result, selector)
            for target, choice in choices.items()
        ]


def _starts(prompt: Prompt) -> bool:
    """True for a prompt that says by itself where something is."""
    if isinstance(prompt, Point):
        return prompt.positive and prompt.role not in (CORRECTION, BOTH, REFINE)
    return getattr(prompt, "positive", True)
