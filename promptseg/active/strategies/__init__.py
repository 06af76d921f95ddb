"""Strategies that choose what to annotate, registered by name; one file each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from promptseg.active.samples import Sample
from promptseg.errors import FormatError

FEATURES, REFERENCE, TOKENS, UNCERTAINTY = "features", "reference", "tokens", "uncertainty"


@dataclass(frozen=True)
class Choice:
    """A sample that a strategy chose.

    Args:
        sample: Which.
        score: What it was chosen by; how to read it is the strategy's.
        reason: In a word or two.
    """

    sample: Sample
    score: float | None
    reason: str


Choose = Callable[[Sequence[Sample], int, np.random.Generator], list[Choice]]


@dataclass(frozen=True)
class Strategy:
    """A strategy and what it must know.

    Args:
        name: On the command line.
        module: Has `choose(samples, count, rng)`, which gives `count` choices, best first.
        needs: Some of `features`, `reference`, `tokens`, `uncertainty`.
        summary: For the help.
    """

    name: str
    module: str
    needs: frozenset[str]
    summary: str

    @property
    def choose(self) -> Choose:
        """The function itself."""
        found: Choose = import_module(f"promptseg.active.strategies.{self.module}").choose
        return found


def _strategy(name: str, module: str, summary: str, *needs: str) -> tuple[str, Strategy]:
    return name, Strategy(name, module, frozenset(needs), summary)


STRATEGIES: dict[str, Strategy] = dict(
    [
        _strategy("stdr", "stdr", "half most like the source, half least", FEATURES, REFERENCE),
        _strategy("stdr-similar", "stdr_similar", "most like the source", FEATURES, REFERENCE),
        _strategy(
            "stdr-dissimilar", "stdr_dissimilar", "least like the source", FEATURES, REFERENCE
        ),
        _strategy("random", "random", "by chance"),
        _strategy("least-confidence", "least_confidence", "least confident pixels", TOKENS),
        _strategy("margin", "margin", "smallest margin between two classes", TOKENS),
        _strategy("entropy", "entropy", "greatest entropy", TOKENS),
        _strategy("cluster", "cluster", "nearest to the centres of k-means", FEATURES),
        _strategy("uncertainty", "uncertainty", "calibrated uncertainty", TOKENS, UNCERTAINTY),
    ]
)


def strategy(name: str) -> Strategy:
    """A strategy by name.

    Raises:
        FormatError: There is none; lists the names.
    """
    if name not in STRATEGIES:
        raise FormatError(f"strategy {name!r} is unknown: use one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def ranked(
    samples: Sequence[Sample], count: int, measure: str, greatest: bool, reason: str
) -> list[Choice]:
    """The `count` samples with the greatest or smallest measure; ties go by name."""
    sign = -1.0 if greatest else 1.0
    order = sorted(samples, key=lambda one: (sign * getattr(one, measure), one.name))
    return [Choice(one, float(getattr(one, measure)), reason) for one in order[:count]]
