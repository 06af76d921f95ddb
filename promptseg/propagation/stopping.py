"""When a track through the slices has lost its target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from torch import Tensor

from promptseg.errors import PromptsegError
from promptseg.inference.decoder import SliceMask
from promptseg.propagation.criteria import CRITERIA, Observation


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
        more: Limits of registered criteria that have no field here.
        never: True to trust every answer.
    """

    presence: float = CRITERIA["presence"].limit
    quality: float = CRITERIA["quality"].limit
    overlap: float = CRITERIA["overlap"].limit
    growth: float = CRITERIA["growth"].limit
    shrink: float = CRITERIA["shrink"].limit
    patience: int = 1
    least_area: float = CRITERIA["least_area"].limit
    more: Mapping[str, float] = field(default_factory=dict)
    never: bool = False

    def limit(self, name: str) -> float:
        """The limit of a registered criterion."""
        own: float = getattr(self, name, self.more.get(name, CRITERIA[name].limit))
        return own

    def poor(self, answer: SliceMask, carried: Tensor) -> bool:
        """True if `answer` should not be trusted after the mask `carried` (m, m) logits."""
        if self.never:
            return False
        seen = Observation(answer, carried)
        return any(one.lost(seen, self.limit(name)) for name, one in CRITERIA.items())

    def to_dict(self) -> dict[str, Any]:
        """What was asked for, as `stop_criteria` takes it."""
        if self.never:
            return {"never": True}
        usual = StopCriteria()
        own = {name: getattr(self, name) for name in own_limits()}
        return {n: v for n, v in own.items() if v != getattr(usual, n)} | dict(self.more)


def own_limits() -> list[str]:
    """Names of the limits that have a field."""
    return [f.name for f in fields(StopCriteria) if f.name not in ("more", "never")]


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
    mine: dict[str, Any] = {
        name: int(value) if name == "patience" else float(value)
        for name, value in limits.items()
        if name in own
    }
    more = {name: float(value) for name, value in limits.items() if name not in own}
    return StopCriteria(**mine, more=more)


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


NEVER = StopCriteria(patience=0, least_area=0, never=True)
"""Trusts every answer, as a network that tracks a video does."""
