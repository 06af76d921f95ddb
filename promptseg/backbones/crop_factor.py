"""The side of a view over that of its target's box, as models and adapters store it."""

from __future__ import annotations

# A view must hold its target, and one eight times as wide shows too few of its pixels.
LEAST_FACTOR, MOST_FACTOR = 1.0, 8.0


def crop_factor_fault(factor: object) -> str | None:
    """What is wrong with a stored crop factor; None if nothing is."""
    if factor is None:
        return None
    number = isinstance(factor, (int, float)) and not isinstance(factor, bool)
    if number and LEAST_FACTOR <= factor <= MOST_FACTOR:  # type: ignore[operator]
        return None
    return f"crop_factor is {factor!r}: give {LEAST_FACTOR:g} to {MOST_FACTOR:g}, or none"
