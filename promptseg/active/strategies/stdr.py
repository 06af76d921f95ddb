"""Source-target dual reference (STDR, METHODS D): the most and the least alike (6-6).

The most alike keep what both sites share, the least alike teach what is particular here. Of an odd
number one more of the least alike is taken: alone they did better in the thesis (tables 6-7, 6-8).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice
from promptseg.errors import FormatError

SIMILAR, DISSIMILAR, NOTHING = "similar", "dissimilar", "dissimilar: nothing was predicted"


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """Half of `count` from either end of the order, the ends in turn.

    Raises:
        FormatError: No sample was compared with the references.
    """
    order = by_similarity(samples)
    near, far = order[: count // 2], order[::-1][: count - count // 2]
    taken: list[Choice] = []
    for n in range(max(len(near), len(far))):
        taken += [*far[n : n + 1], *near[n : n + 1]]
    return [Choice(c.sample, c.score, c.reason if c in far else SIMILAR) for c in taken][:count]


def by_similarity(samples: Sequence[Sample]) -> list[Choice]:
    """All samples, the most alike first; what has no prediction is the least alike.

    Raises:
        FormatError: No sample was compared with the references.
    """
    if all(one.similarity is None for one in samples):
        raise FormatError(
            "nothing was predicted on any case, so that none can be compared with the references: "
            "choose another strategy or adapter"
        )
    known = [one for one in samples if one.similarity is not None]
    blank = [one for one in samples if one.similarity is None]
    order = sorted(known, key=lambda one: (one.similarity, one.name))
    return [Choice(one, one.similarity, DISSIMILAR) for one in order] + [
        Choice(one, None, NOTHING) for one in sorted(blank, key=lambda one: one.name)
    ]
