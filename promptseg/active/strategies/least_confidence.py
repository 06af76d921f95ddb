"""Least confidence (2-14): the greatest sum of the smallest class probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice, ranked


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """The `count` samples that the network is least confident about."""
    return ranked(samples, count, "least_confidence", True, "least confident")
