"""By chance: what every other strategy has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """Any `count` samples, each set of them as likely as any other."""
    order = rng.permutation(len(samples))[:count]
    return [Choice(samples[n], None, "by chance") for n in order]
