"""Cluster representatives: as many k-means clusters as wanted, and of each the nearest sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.active.reference import clustered
from promptseg.active.samples import Sample
from promptseg.active.strategies import Choice
from promptseg.errors import FormatError


def choose(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[Choice]:
    """The sample nearest to each of `count` centres; the score is its squared distance.

    Raises:
        FormatError: Nothing was predicted on any sample.
    """
    known = [(one, one.feature) for one in samples if one.feature is not None]
    if not known:
        raise FormatError("nothing was predicted on any case: choose another strategy or adapter")
    features = np.stack([feature for _, feature in known])
    count = min(count, len(known))
    centres = clustered(features, count, int(rng.integers(2**31)))
    chosen: dict[int, float] = {}
    for centre in centres:
        distances = ((features - centre) ** 2).sum(1)
        place = next(int(n) for n in np.argsort(distances, kind="stable") if n not in chosen)
        chosen[place] = float(distances[place])
    # Equal samples make fewer clusters than wanted: the rest are those far from what is chosen.
    while len(chosen) < count:
        taken = features[list(chosen)]
        apart = ((features[:, None] - taken[None]) ** 2).sum(2).min(1)
        apart[list(chosen)] = -1
        chosen[int(apart.argmax())] = float(apart.max())
    return [Choice(known[n][0], distance, "represents a cluster") for n, distance in chosen.items()]
