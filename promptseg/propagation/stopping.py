"""When a track through the slices has lost its target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any, TypeAlias

from torch import Tensor

from promptseg.errors import PromptsegError
from promptseg.inference.decoder import SliceMask
from promptseg.propagation.criteria import CRITERIA, Observation

THICK_SLICES = 0.7
# What a trained slice step is held to: that it sees the target. 0.7 was chosen on the development
# half of benchmarks/targets.py (0.8: bones 0.608 for 0.667). The other limits are such as no answer
# breaks.
OF_STEP: dict[str, Any] = {
    "presence": 0.7, "quality": 0.0, "similarity": 0.0, "least_similarity": 0.0, "overlap": 0.0,
    "growth": inf, "shrink": 0.0, "taper": False,
}  # fmt: skip


@dataclass(frozen=True)
class StopCriteria:
    """When a track has lost its target; a poor slice fulfils any of `criteria.CRITERIA`.

    Args:
        presence: Least predicted probability that the target is in the slice.
        quality: Least predicted overlap with the truth.
        overlap: Least Dice with the mask that was carried here.
        growth: Greatest ratio of areas from one slice to the next.
        shrink: Least ratio of areas from one slice to the next.
        patience: Poor slices bridged before the track ends.
        least_area: Fewest pixels of a mask at the network's resolution.
        similarity: Least similarity of the grey levels inside to those inside the prompted
            slice's mask.
        trusted_quality: Predicted overlap from which on a thick slice is believed whatever its
            grey levels are.
        taper: True to cut what lies beyond the outermost of several prompted slices to the area
            that those between them foretell.
        least_similarity: Least similarity of any slice, however much the network believes in it.
        more: Limits of registered criteria that have no field here.
        never: True to trust every answer.
        given: Names of the limits that were asked for; those that differ from the default always
            are. A limit asked for is kept where another default would take its place.
    """

    presence: float = CRITERIA["presence"].limit
    quality: float = CRITERIA["quality"].limit
    overlap: float = CRITERIA["overlap"].limit
    growth: float = CRITERIA["growth"].limit
    shrink: float = CRITERIA["shrink"].limit
    patience: int = 1
    least_area: float = CRITERIA["least_area"].limit
    similarity: float = CRITERIA["similarity"].limit
    trusted_quality: float = 0.7
    taper: bool = True
    least_similarity: float = 0.1
    more: Mapping[str, float] = field(default_factory=dict)
    never: bool = False
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        changed = {n for n in own_limits() if getattr(self, n) != getattr(type(self), n)}
        object.__setattr__(self, "given", self.given | changed)

    def limit(self, name: str) -> float:
        """The limit of a registered criterion."""
        own: float = getattr(self, name, self.more.get(name, CRITERIA[name].limit))
        return own

    def poor(self, answer: SliceMask, carried: Tensor) -> bool:
        """True if `answer` should not be trusted_quality after the mask `carried` (m, m) logits."""
        if self.never:
            return False
        seen = Observation(answer, carried, self.trusted_quality, self.least_similarity)
        return any(one.lost(seen, self.limit(name)) for name, one in CRITERIA.items())

    def to_dict(self) -> dict[str, Any]:
        """What was asked for, as `stop_criteria` takes it."""
        if self.never:
            return {"never": True}
        asked = {name: getattr(self, name) for name in own_limits() if name in self.given}
        return {**asked, **self.more}


def own_limits() -> list[str]:
    """Names of the limits that have a field."""
    return [f.name for f in fields(StopCriteria) if f.name not in ("more", "never", "given")]


StopLike: TypeAlias = "StopCriteria | Mapping[str, float] | str | None"


def stop_criteria(given: StopLike) -> StopCriteria:
    """Criteria from a name, a text, or limits by name.

    Args:
        given: `auto` or None for what measured best, `never`, `growth=3,presence=0.4`, or a
            mapping of the same.

    Raises:
        PromptsegError: A name is unknown, or a limit is no number.
    """
    if isinstance(given, StopCriteria):
        return given
    limits = _parsed(given) if isinstance(given, str) else dict(given or {})
    if limits.pop("never", False):
        return NEVER
    own = set(own_limits())
    unknown = limits.keys() - own - CRITERIA.keys()
    if unknown:
        known = ", ".join(sorted(own | CRITERIA.keys()))
        raise PromptsegError(f"stop criterion {min(unknown)!r} is unknown: use {known}, or never")
    kinds = {"patience": int, "taper": bool}
    mine = {name: kinds.get(name, float)(value) for name, value in limits.items() if name in own}
    more = {name: float(value) for name, value in limits.items() if name not in own}
    return StopCriteria(**mine, more=more, given=frozenset(mine))


def _parsed(text: str) -> dict[str, Any]:
    """Limits by name of `name=number,...`."""
    if text.strip().lower() in ("", "auto"):
        return {}
    if text.strip().lower() == "never":
        return {"never": True}
    limits = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            limits[name.strip()] = float(value)
        except ValueError as error:
            raise PromptsegError(
                f"stop criterion {part.strip()!r}: give NAME=NUMBER, such as growth=3"
            ) from error
    return limits


def criteria_for(criteria: StopCriteria, lag: int) -> StopCriteria:
    """Ask for similarity always on thin slices, where small errors add up unseen; else less."""
    if lag > 1:
        return replace(criteria, trusted_quality=1.01)
    return replace(criteria, similarity=criteria.similarity * THICK_SLICES)


def criteria_of_step(criteria: StopCriteria) -> StopCriteria:
    """For a trained slice step, which knows itself whether it has lost its target.

    Only what the user asked for stays.
    """
    return replace(criteria, **{n: v for n, v in OF_STEP.items() if n not in criteria.given})


def criteria_where_extent_given(criteria: StopCriteria) -> StopCriteria:
    """Where the user gave the extent, only a target that is plainly absent ends a track."""
    return replace(
        criteria, presence=0.2, quality=0.1, overlap=0.1, growth=4.0, shrink=0.05, patience=3,
        similarity=0.0,
    )  # fmt: skip


NEVER = StopCriteria(
    presence=-1.0, quality=-1.0, overlap=-1.0, growth=inf, shrink=-1.0, patience=0, least_area=0,
    similarity=0.0, trusted_quality=0.0, least_similarity=0.0, taper=False, never=True,
)  # fmt: skip
"""Trusts every answer, as a network that tracks a video does."""
