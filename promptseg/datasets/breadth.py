"""Which of the 64 small 2D sets of the breadth collection are held out, and how they are halved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Every fourth set of a modality in sorted order. CT starts at the second and ultrasound at the
# fourth, so that no set held out has a sibling (the same patients, other labels) in training.
HELD_FROM = {"CT": 1, "US": 3}
EVERY = 4


def read_manifest(root: Path) -> dict[str, dict[str, Any]]:
    """What manifest.json of `breadth` says of each set."""
    return dict(json.loads((root / "breadth/manifest.json").read_text(encoding="utf-8")))


def held_sets(manifest: dict[str, dict[str, Any]], group: str | None = None) -> list[str]:
    """Names of the sets that no training reads, of one group such as `CT` or of all."""
    groups = sorted({about["group"] for about in manifest.values()}) if group is None else [group]
    held: list[str] = []
    for one in groups:
        names = sorted(name for name, about in manifest.items() if about["group"] == one)
        held += names[HELD_FROM.get(one, 0) :: EVERY]
    return held


def halves(manifest: dict[str, dict[str, Any]], group: str) -> tuple[list[str], list[str]]:
    """Held-out sets to choose on, and those to report on: every other one each."""
    held = held_sets(manifest, group)
    return held[::2], held[1::2]
