"""Margin, best versus second best (2-15): the smallest sum of differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice, ranked


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """The `count` samples whose two likeliest classes are closest."""
    return ranked(samples, count, "margin", False, "small margin")
