"""What a visit holds of projects: the case that is open, and what it may learn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from promptseg.session import Segmenter

IDLE_S = 60.0
"""A longer pause between two actions counts as this much: so long a slice may be looked at."""
CLAIM_EVERY_S = 60.0


@dataclass
class Case:
    """A case that a visitor has open.

    Args:
        project: Name of its project.
        name: Of the case.
        who: Has it open.
        draft: File that its work is kept in.
        version: Of the adapter that made the prediction; None without one.
        effort: Expected revision in percent; None without a prediction.
        begun: (I, J, K) what the visitor began with, where that was not the project's prediction.
        spent: Seconds of work on it.
        other: Unfinished work of someone else, which may be taken up.
        confirmed: True once an empty mask was asked about.
    """

    project: str
    name: str
    who: str
    draft: Path
    version: int | None = None
    effort: float | None = None
    begun: np.ndarray | None = None
    spent: float = 0.0
    other: Path | None = None
    confirmed: bool = False
    touched_at: float = field(default_factory=monotonic)
    claimed_at: float = field(default_factory=monotonic)

    def touch(self, now: float) -> None:
        """Count the time since the last action, without what was a pause."""
        self.spent += min(max(0.0, now - self.touched_at), IDLE_S)
        self.touched_at = now

    def claim_due(self, now: float) -> bool:
        """True once in a while: the claim must be renewed before it is too old."""
        due = now - self.claimed_at >= CLAIM_EVERY_S
        if due:
            self.claimed_at = now
        return due


@dataclass(frozen=True)
class Lesson:
    """A case that was accepted in this visit.

    Args:
        name: Of the case.
        image: File.
        mask: File of the accepted labels.
        labels: Name by label.
        model: Base of its project.
    """

    name: str
    image: Path
    mask: Path
    labels: dict[int, str]
    model: str


@dataclass
class LoopState:
    """What a visit holds of projects beside the open case.

    Args:
        who: Name that the visitor gave; empty for none.
        login: Name that the visitor logged in with.
        project: Name of the project that is looked at.
        waiting: Accepted cases of this visit that nothing was learned from yet.
        learned: Names of those that were learned from.
        pupil: Network with what was learned in this visit; None before.
        model: Base of the pupil.
        use: True if the next image is answered by what was learned.
        length: Of a training, by its name in the list.
    """

    who: str = ""
    login: str = ""
    project: str = ""
    waiting: list[Lesson] = field(default_factory=list)
    learned: list[str] = field(default_factory=list)
    pupil: Segmenter | None = None
    model: str = ""
    use: bool = False
    length: str = "minutes_20"

    @property
    def remembers(self) -> bool:
        """True if something was accepted or learned."""
        return bool(self.waiting or self.learned)

    @property
    def nbytes(self) -> int:
        """Memory of what was learned from."""
        examples = [] if self.pupil is None else self.pupil.lessons.examples
        return sum(example.nbytes for example in examples)


class Visitor(Protocol):
    """A visit, as far as projects are concerned with it."""

    @property
    def loop(self) -> LoopState: ...

    @property
    def case(self) -> Case | None: ...

    @property
    def secrets(self) -> tuple[str, ...]: ...
