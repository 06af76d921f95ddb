"""Words in a session: what they ask of which adapter is planned, and carried out here."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
from torch import Tensor

from promptseg.errors import PromptError
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import FrameMasks, fuse_labels
from promptseg.predictor.automatic import segment_unprompted
from promptseg.predictor.engine import Timings
from promptseg.predictor.question import Question
from promptseg.prompts.types import Mask, Point, Prompt, PromptSet, Text
from promptseg.session.asker import Asker
from promptseg.text.plan import Planner, Wanted
from promptseg.text.proposal_prompts import Meant, Proposer, english, in_file, nowhere
from promptseg.text.proposals import Proposal
from promptseg.text.reporting import repeats_told, summed_report, told_of
from promptseg.text.selecting import Choice, Selector
from promptseg.text.targets import merge, regrouped, without_absent
from promptseg.volume import Segmentation


@dataclass
class Group:
    """What one adapter is asked.

    Args:
        choices: By target, of those that words name.
        pixels: Prompts that point at something.
        concepts: (C,) token by target of words given along with such prompts.
        alone: (C,) token by key of words given alone.
        sections: Largest cross-section by key, as `segment_unprompted` takes it.
        targets: Target by key.
        meant: By target, of those that only the image-text model knows.
        absent: Targets that it does not see.
    """

    choices: dict[int, Choice] = field(default_factory=dict)
    pixels: list[Prompt] = field(default_factory=list)
    concepts: dict[int, Tensor] = field(default_factory=dict)
    alone: dict[int, Tensor] = field(default_factory=dict)
    sections: dict[int, float] = field(default_factory=dict)
    targets: dict[int, int] = field(default_factory=dict)
    meant: dict[int, Meant] = field(default_factory=dict)
    absent: list[int] = field(default_factory=list)

    def look_for(self, one: Wanted, taken: Sequence[int], sections: Mapping[int, float]) -> None:
        """Add a target of words alone; each of its tokens but the first gets a free number."""
        free = max([*taken, *self.targets, 0]) + 1
        keys = [one.target, *range(free, free + len(one.tokens) - 1)]
        self.alone |= dict(zip(keys, one.tokens.values(), strict=True))
        labels = zip(keys, one.tokens, strict=True)
        self.sections |= {key: sections[label] for key, label in labels if label in sections}
        self.targets |= dict.fromkeys(keys, one.target)


class Spoken:
    """The part of a session that understands words.

    Every adapter that words ask for gets an asker of its own, in which its embeddings stay; the
    segmenter's active adapter is the same afterwards.

    Args:
        owner: What the prompts were given to.
    """

    def __init__(self, owner: Asker) -> None:
        self.owner = owner
        single_slice = 1 in owner.volume.shape
        self.selector = Selector(owner.runtime.adapters, single_slice=single_slice)
        model, modality = owner.runtime.text_model, owner.volume.modality
        self.proposer = None if model is None else Proposer(model, modality)
        self.planner = Planner(self.selector, modality, model is not None)
        self.askers: dict[str | None, Asker] = {}
        self._names: tuple[str | None, ...] = ()
        self._wholes: dict[tuple[Any, ...], np.ndarray] = {}

    def copy_for(self, owner: Asker) -> Spoken:
        """The same knowledge for a copy of the session."""
        twin = copy.copy(self)
        twin.owner, twin._wholes = owner, dict(self._wholes)
        twin.askers = {name: asker.copy() for name, asker in self.askers.items()}
        return twin

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise PromptError unless the words of all prompts can be answered."""
        for prompt in prompts:
            if isinstance(prompt, Text):
                self.planner.choose(prompt.words)

    def answer(
        self, prompts: PromptSet, propagate: bool, uncertainty: bool, progress: Progress | None
    ) -> Segmentation:
        """Answer resolved prompts of which some are words.

        Words given alone are looked for in the whole volume, whatever `propagate` says. Those that
        mean what earlier words mean, and those that are found nowhere, add no target: what became
        of them is in `report["text"]`.
        """
        adapters = self.owner.runtime.adapters
        plan = self.planner.plan(prompts, None if adapters.active is None else adapters.active.name)
        groups = {
            name: self._group(name, wanted, plan.targets, progress)
            for name, wanted in plan.wanted.items()
        }
        results: dict[str | None, Segmentation] = {}
        for name, group in groups.items():
            with adapters.using(name):
                results[name] = self._answer(name, group, propagate, uncertainty, progress)
        self._names = tuple(results)
        choices = {t: c for group in groups.values() for t, c in group.choices.items()}
        meant = {t: m for group in groups.values() for t, m in group.meant.items()}
        merged = merge(list(results.values()))
        told = [*self._told(choices, merged), *self._proposed(meant, merged)]
        told += repeats_told(plan.repeated, told)
        names = {t: c.name for t, c in choices.items()} | {t: m.name for t, m in meant.items()}
        merged = without_absent(merged, plan.alone)
        return replace(
            merged,
            labels={t: name for t, name in names.items() if t in merged.targets},
            report={**summed_report(results), "text": told,
                    "vocabulary": list(self.selector.known())},
        )  # fmt: skip

    def asker(self, name: str | None) -> Asker:
        """That of an adapter, made while it is active."""
        if name not in self.askers:
            self.askers[name] = self.owner.beside()
        return self.askers[name]

    @contextmanager
    def latest(self) -> Iterator[Asker]:
        """What gave the latest answer, with its adapter in use meanwhile.

        Raises:
            PromptError: Several adapters gave it, or none.
        """
        if len(self._names) != 1:
            raise PromptError(
                f"{len(self._names)} adapters gave the latest answer: ask for one target alone"
            )
        with self.owner.runtime.adapters.using(self._names[0]):
            yield self.askers[self._names[0]]

    def _group(
        self,
        name: str | None,
        wanted: Sequence[Wanted],
        taken: Sequence[int],
        progress: Progress | None,
    ) -> Group:
        """A plan's targets as one adapter is asked for them, after what must be asked before."""
        group = Group()
        for one in wanted:
            if one.choice is not None:
                group.choices[one.target] = one.choice
            if one.how == "alone":
                group.look_for(one, taken, self._sections(name))
            elif one.how == "corrected" and one.choice is not None:
                group.pixels += self._corrected(one.choice, one)
            elif one.how == "proposed" and one.words is not None:
                self._propose(group, name, one, one.words, progress)
            else:
                self._point(group, one)
        return group

    @staticmethod
    def _point(group: Group, one: Wanted) -> None:
        """Prompts that say where a target is, which one token or other words may name."""
        group.pixels += one.prompts
        if one.words is not None:
            group.meant[one.target] = Meant(one.words, english(one.words), None)
        if len(one.tokens) == 1:
            group.concepts[one.target] = next(iter(one.tokens.values()))

    def _propose(
        self, group: Group, name: str | None, one: Wanted, words: str, progress: Progress | None
    ) -> None:
        """The image-text model's mask and the clicks on it."""
        if self.proposer is None:
            raise PromptError(f"{words!r} needs an image-text model, and none is loaded")
        with self.owner.runtime.adapters.using(name):
            asker = self.asker(name)
            engine = asker.prepared(PromptSet(), self._axis(asker))
            meant = in_file(self.proposer.find(engine, name, words, progress), asker.seen)
        group.meant[one.target] = meant
        if isinstance(meant.found, Proposal):
            group.pixels += [meant.found.prompt(one.target), *one.prompts]
        else:
            group.absent.append(one.target)

    def _corrected(self, choice: Choice, one: Wanted) -> list[Prompt]:
        """Clicks on what the words alone gave: that mask, and the clicks after it."""
        key = (choice.adapter, choice.labels, choice.words)
        if key not in self._wholes:
            with self.owner.runtime.adapters.using(choice.adapter):
                asker = self.asker(choice.adapter)
                engine = asker.prepared(PromptSet(), self._axis(asker))
                found = fuse_labels(
                    segment_unprompted(engine, one.tokens, None, self._sections(choice.adapter)),
                    engine.shape,
                )
                self._wholes[key] = asker.seen.in_file(found.labels > 0)
        mask = self._wholes[key]
        if mask.any():
            return [Mask(mask, one.target), *one.prompts]
        return [replace(p, role=None) if isinstance(p, Point) else p for p in one.prompts]

    def _answer(
        self,
        name: str | None,
        group: Group,
        propagate: bool,
        uncertainty: bool,
        progress: Progress | None,
    ) -> Segmentation:
        asker, timings, began = self.asker(name), Timings(), perf_counter()
        pixels = asker.seen.prompts(PromptSet(group.pixels))
        engine = asker.prepared(pixels, asker.wanted_axis if group.pixels else self._axis(asker))
        timings.add("prepare", began)
        began = perf_counter()
        answered: list[FrameMasks] = []
        if group.pixels:
            answered += engine.run(pixels, propagate, progress, group.concepts)
        if group.alone:
            answered += segment_unprompted(engine, group.alone, progress, group.sections)
        if group.absent:
            answered.append(nowhere(engine, group.absent))
        timings.add("segment", began)
        tokens = {**group.concepts, **group.alone}
        question = Question(pixels, propagate, tokens, sections=group.sections)
        result = asker.answered(engine, question, answered, timings)
        if uncertainty and (group.pixels or group.alone):
            result = replace(result, uncertainty=asker.uncertainty(progress=progress))
        return regrouped(result, group.targets)

    def _sections(self, name: str | None) -> Mapping[int, float]:
        """Largest cross-sections by label of an adapter, along its own slice axis."""
        if name is None or self.owner.wanted_axis != "auto":
            return {}
        return self.owner.runtime.adapters.get(name).info.sections

    def _axis(self, asker: Asker) -> int | str:
        active = asker.runtime.adapters.active
        if active is None or asker.wanted_axis != "auto":
            return asker.wanted_axis
        return active.info.axis

    def _told(self, choices: Mapping[int, Choice], result: Segmentation) -> list[dict[str, Any]]:
        """What became of the words, for the report."""
        adapters, selector = self.owner.runtime.adapters, self.selector
        return [
            told_of(choice, target, adapters.get(choice.adapter).digest, result, selector)
            for target, choice in choices.items()
        ]

    def _proposed(self, meant: Mapping[int, Meant], result: Segmentation) -> list[dict[str, Any]]:
        """What became of words that the image-text model was asked for, for the report."""
        if self.proposer is None:
            return []
        return [
            one.told(target, self.proposer.model, bool((result.data == target).any()))
            for target, one in meant.items()
        ]
