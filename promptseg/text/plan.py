"""What words ask for: resolved once into a frozen plan, which the session carries out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from promptseg.errors import PromptError, WeightsError
from promptseg.inference.slice_prompts import BOTH, CORRECTION, REFINE
from promptseg.prompts.types import Point, Prompt, PromptSet, Text
from promptseg.text.folding import Folded, fold
from promptseg.text.proposal_prompts import english
from promptseg.text.selecting import Choice, Selector
from promptseg.text.targets import renumbered, worded_alone

How = Literal["pointed", "alone", "corrected", "proposed"]


@dataclass(frozen=True)
class Wanted:
    """One target, and how it is to be found.

    Args:
        target: Its number.
        how: `pointed` by prompts, with words at most for what it is; `alone` by words alone;
            `corrected`: clicks on what the words alone give; `proposed`: clicks on what the
            image-text model gives, or nothing but its words.
        prompts: What was given beside words, in order.
        choice: Adapter and labels of its words; None without words that an adapter knows.
        tokens: (C,) token by label of the choice.
        words: Those that only the image-text model knows; None otherwise.
    """

    target: int
    how: How
    prompts: tuple[Prompt, ...] = ()
    choice: Choice | None = None
    tokens: Mapping[int, Tensor] = field(default_factory=dict)
    words: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be asked, of which adapter.

    Args:
        wanted: Targets by adapter, None for the network alone, in the order to ask them in.
        alone: Targets of which nothing but words say what they are: absent ones are left out.
        repeated: Words that add nothing, with the target of those that mean the same.
    """

    wanted: Mapping[str | None, Sequence[Wanted]]
    alone: frozenset[int] = frozenset()
    repeated: Sequence[tuple[Text, int]] = ()

    @property
    def targets(self) -> tuple[int, ...]:
        """Numbers that are taken."""
        return tuple(one.target for group in self.wanted.values() for one in group)


class Planner:
    """Resolves words on volumes of one modality.

    Args:
        selector: Knows the adapters.
        modality: `CT`, `MR` or None.
        proposes: True if an image-text model can be asked for what no adapter knows.
    """

    def __init__(self, selector: Selector, modality: str | None, proposes: bool = False) -> None:
        self.selector, self.modality, self.proposes = selector, modality, proposes

    def choose(self, words: str) -> Choice | None:
        """Adapter and labels of words; None where only the image-text model can say.

        Raises:
            PromptError: Nothing here knows them.
            WeightsError: The text tower is needed and missing or damaged.
        """
        try:
            return self.selector.choose(words, self.modality)
        except (PromptError, WeightsError):
            if not self.proposes:
                raise
            return None

    def plan(self, prompts: PromptSet, active: str | None = None) -> Plan:
        """What resolved prompts, some of them words, ask for.

        Args:
            prompts: In voxels.
            active: Adapter in use, which answers what words name no other for.

        Raises:
            PromptError, WeightsError: As `choose`.
        """
        kept, repeated = self._distinct(renumbered(prompts))
        wanted: dict[str | None, list[Wanted]] = {}
        for target in kept.targets:
            one = self._wanted(target, kept.for_target(target))
            name = active if one.choice is None else one.choice.adapter
            wanted.setdefault(name, []).append(one)
        return Plan(wanted, frozenset(worded_alone(kept)), repeated)

    def _distinct(self, prompts: PromptSet) -> tuple[PromptSet, list[tuple[Text, int]]]:
        """Prompts without words alone that repeat others' meaning, and these with whose target."""
        alone = worded_alone(prompts)
        meant: dict[Folded, int] = {}
        kept: list[Prompt] = []
        repeated: list[tuple[Text, int]] = []
        for prompt in prompts:
            if isinstance(prompt, Text):
                choice = self.choose(prompt.words)
                meaning = fold(english(prompt.words) if choice is None else choice.name)
                if meaning in meant and prompt.target in alone:
                    repeated.append((prompt, meant[meaning]))
                    continue
                meant.setdefault(meaning, prompt.target)
            kept.append(prompt)
        return PromptSet(kept), repeated

    def _wanted(self, target: int, prompts: Sequence[Prompt]) -> Wanted:
        words = [prompt.words for prompt in prompts if isinstance(prompt, Text)]
        others = tuple(prompt for prompt in prompts if not isinstance(prompt, Text))
        starts = any(map(says_where, others))
        if not words:
            return Wanted(target, "pointed", others)
        choice = self.choose(words[0])
        if choice is None:
            return Wanted(target, "pointed" if starts else "proposed", others, words=words[0])
        how: How = "pointed" if starts else "corrected" if others else "alone"
        return Wanted(target, how, others, choice, self.selector.tokens(choice))


def says_where(prompt: Prompt) -> bool:
    """True for a prompt that says by itself where something is."""
    if isinstance(prompt, Point):
        return prompt.positive and prompt.role not in (CORRECTION, BOTH, REFINE)
    return getattr(prompt, "positive", True)
