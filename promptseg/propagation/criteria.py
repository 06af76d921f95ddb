"""What tells that a track has lost its target: one function a criterion, listed in `CRITERIA`.

A new one is a function of an `Observation` and its limit, and one line in `CRITERIA`; its limit is
then set by its name like the others', from Python, `--stop` and a run manifest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import inf

from torch import Tensor

from promptseg.inference.decoder import SliceMask


@dataclass(frozen=True, eq=False)
class Observation:
    """An answer on one slice and the mask that was carried to it.

    Args:
        answer: Of the network.
        carried: (m, m) logits.
    """

    answer: SliceMask
    carried: Tensor

    @cached_property
    def area(self) -> int:
        """Pixels of the answer."""
        return int((self.answer.logits > 0).sum())

    @cached_property
    def carried_area(self) -> int:
        """Pixels of the mask that was carried here."""
        return int((self.carried > 0).sum())

    @cached_property
    def overlap(self) -> float:
        """Dice of the two."""
        both = int(((self.carried > 0) & (self.answer.logits > 0)).sum())
        return 2 * both / max(self.area + self.carried_area, 1)

    @property
    def growth(self) -> float:
        """Area over the area that was carried here."""
        return self.area / max(self.carried_area, 1)


def too_small(seen: Observation, limit: float) -> bool:
    """Fewer pixels than the limit, at the network's resolution."""
    return seen.area < limit


def absent(seen: Observation, limit: float) -> bool:
    """The network says that the target is not in the slice."""
    return seen.answer.presence < limit


def poor_quality(seen: Observation, limit: float) -> bool:
    """The network expects too little overlap with the truth."""
    return seen.answer.quality < limit


def elsewhere(seen: Observation, limit: float) -> bool:
    """Too little Dice with the mask that was carried here."""
    return seen.overlap < limit


def burst(seen: Observation, limit: float) -> bool:
    """The area grows by more than the limit from one slice to the next."""
    return seen.growth > limit


def collapsed(seen: Observation, limit: float) -> bool:
    """The area shrinks to less than the limit from one slice to the next."""
    return seen.growth < limit


@dataclass(frozen=True)
class Criterion:
    """One reason to stop.

    Args:
        lost: True if the target is lost, of an observation and a limit.
        limit: Unless another is asked for; some are such as no answer breaks.
    """

    lost: Callable[[Observation, float], bool]
    limit: float


# Presence was chosen on the development half of benchmarks/targets.py (0.8: bones 0.608 for 0.667).
CRITERIA: dict[str, Criterion] = {
    "least_area": Criterion(too_small, 6),
    "presence": Criterion(absent, 0.7),
    "quality": Criterion(poor_quality, 0.3),
    "overlap": Criterion(elsewhere, 0.0),
    "growth": Criterion(burst, inf),
    "shrink": Criterion(collapsed, 0.0),
}
"""By name, the cheap ones first."""
