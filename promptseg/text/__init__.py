"""Words -> targets and prompt tokens, or an honest refusal."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "Choice": "selecting",
    "Concept": "vocabulary",
    "Folded": "folding",
    "Resolved": "resolving",
    "Resolver": "resolving",
    "Selector": "selecting",
    "TextTower": "tower",
    "Vocabulary": "vocabulary",
    "fold": "folding",
    "load_clip": "clip",
    "load_tower": "tower",
    "vocabulary": "vocabulary",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: most need torch, and the tower needs open_clip."""
    if name not in _PLACES:
        raise AttributeError(f"module 'promptseg.text' has no attribute {name!r}")
    return getattr(import_module(f"promptseg.text.{_PLACES[name]}"), name)
