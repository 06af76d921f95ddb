"""Only the samples least like the source: the other half of STDR by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice
from promptseg.active.strategies.stdr import by_similarity


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """The `count` samples farthest from every reference vector; raises as `stdr.choose`."""
    return by_similarity(samples)[::-1][:count]
