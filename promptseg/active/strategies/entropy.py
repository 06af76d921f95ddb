"""Shannon entropy (2-16): the greatest sum over the pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice, ranked


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """The `count` samples with the greatest entropy."""
    return ranked(samples, count, "entropy", True, "great entropy")
