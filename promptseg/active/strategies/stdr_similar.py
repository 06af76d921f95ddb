"""Only the samples most like the source: one half of STDR by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice
from promptseg.active.strategies.stdr import SIMILAR, by_similarity


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """The `count` samples nearest to a reference vector; raises as `stdr.choose`."""
    return [replace(choice, reason=SIMILAR) for choice in by_similarity(samples)[:count]]
