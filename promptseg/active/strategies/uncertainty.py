"""The calibrated uncertainty maps: the greatest uncertainty for the size of the prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice, ranked
from promptseg.errors import FormatError


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """The `count` cases with the most uncertain predictions.

    Raises:
        FormatError: Uncertainty was not computed, as for single slices.
    """
    if any(one.uncertainty is None for one in samples):
        raise FormatError("uncertainty ranks whole cases: leave out --by slice")
    return ranked(samples, count, "uncertainty", True, "uncertain")
