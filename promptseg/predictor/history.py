"""The prompts of a session in the order they were given, in steps that can be taken back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeGuard

from promptseg.errors import PromptError
from promptseg.inference.slice_prompts import CORRECTION, REFINE
from promptseg.prompts.types import Point, Prompt, PromptSet, Scribble, Text


def role_of(prompt: Point | Scribble, role: str) -> str:
    """The role of a correction: as asked for, but of strokes where they are drawn."""
    if isinstance(prompt, Point):
        return role
    if not prompt.positive or role == REFINE:
        return REFINE
    return CORRECTION


class History:
    """Prompts given, answered and undone.

    A point or a scribble on a target that was answered before is a correction of it.
    """

    def __init__(self) -> None:
        self._given: list[Prompt] = []
        self._starts: list[int] = []
        self._undone: list[list[Prompt]] = []
        self._answered = 0

    @property
    def prompts(self) -> PromptSet:
        """All that count, in order."""
        return PromptSet(self._given)

    @property
    def worded(self) -> bool:
        """True if some of them are words."""
        return any(isinstance(prompt, Text) for prompt in self._given)

    def marked(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """New prompts, corrections with their role.

        A stroke outside its target corrects where it was drawn, in every mode: the network,
        asked again, changed fifty times as many voxels elsewhere.
        """
        return [
            replace(prompt, role=prompt.role or role_of(prompt, CORRECTION))
            if self._corrects(prompt)
            else prompt
            for prompt in prompts
        ]

    def copy(self) -> History:
        """The same steps, to go on with apart."""
        twin = History()
        twin._given, twin._starts = list(self._given), list(self._starts)
        twin._undone, twin._answered = list(self._undone), self._answered
        return twin

    def add(self, prompts: Sequence[Prompt]) -> None:
        """Add a step; what was undone is forgotten."""
        self._starts.append(len(self._given))
        self._given.extend(prompts)
        self._undone.clear()

    def undo(self) -> None:
        """Take back the latest step.

        Raises:
            PromptError: If there is none.
        """
        if not self._starts:
            raise PromptError("nothing to undo: no prompt was added")
        start = self._starts.pop()
        self._answered = min(self._answered, start)
        self._undone.append(self._given[start:])
        del self._given[start:]

    def redo(self) -> None:
        """Add again what was undone last.

        Raises:
            PromptError: If nothing was undone.
        """
        if not self._undone:
            raise PromptError("nothing to redo: nothing was undone since the latest prompt")
        self._starts.append(len(self._given))
        self._given.extend(self._undone.pop())

    def answered(self) -> None:
        """Note that all prompts so far were answered."""
        self._answered = len(self._given)

    @contextmanager
    def refining(self, role: str) -> Iterator[None]:
        """Give the clicks since the latest answer a role; they keep it unless the block fails.

        Raises:
            PromptError: If no click or scribble since then corrects anything.
        """
        before, fresh = self._given, self._given[self._answered :]
        if not any(self._corrects(prompt) for prompt in fresh):
            raise PromptError("nothing to refine: add a point where the mask is wrong")
        clicks = [
            replace(prompt, role=role_of(prompt, role)) if self._corrects(prompt) else prompt
            for prompt in fresh
        ]
        self._given = [*before[: self._answered], *clicks]
        try:
            yield
        except Exception:
            self._given = before
            raise

    def _corrects(self, prompt: Prompt) -> TypeGuard[Point | Scribble]:
        answered = {given.target for given in self._given[: self._answered]}
        return isinstance(prompt, (Point, Scribble)) and prompt.target in answered
