"""Making a project, and telling how it stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptseg.active.loop.project import HELD_EVERY, NONE, Project
from promptseg.active.loop.store import create_store
from promptseg.active.strategies import strategy
from promptseg.adapters import Adapter, write_adapter
from promptseg.datasets.cohort import case_files
from promptseg.errors import FormatError


def make_project(
    folder: Path,
    images: Path,
    organ: str,
    who: str,
    *,
    model: str = "default",
    labels: Mapping[int, str] | None = None,
    adapter: Adapter | None = None,
    held_every: int = HELD_EVERY,
    order: str = "name",
    reference: Path | None = None,
) -> Project:
    """Make a project of a folder of images.

    Args:
        folder: Of the project.
        images: Folder of images; they stay where they are.
        organ: What is segmented, in words.
        who: Makes it.
        model: Base.
        labels: Name by label; label 1 is the organ if None.
        adapter: To begin with, as version 0.
        held_every: Every n-th accepted case is kept for measuring; 0 keeps none.
        order: `name`, or a strategy of `promptseg select`.
        reference: Of a source site, for the strategies that need one.

    Raises:
        FormatError: There is a project already, or something given cannot be.
    """
    if held_every < 0 or held_every == 1:
        raise FormatError(f"hold is {held_every}: give 0, or at least 2")
    if order != "name":
        strategy(order)
    if not organ.strip():
        raise FormatError("organ is empty: say what is segmented")
    found = case_files(images)
    named = dict(adapter.info.labels) if labels is None and adapter is not None else labels
    settings = {
        "organ": organ,
        "model": model,
        "labels": {str(k): v for k, v in (named or {1: organ}).items()},
        "held_every": held_every,
        "order": order,
        "reference": None if reference is None else str(reference.resolve()),
    }
    if adapter is not None:
        write_adapter(adapter, folder / "versions" / "0000")
    create_store(folder, settings, found, who)
    project = Project(folder, who)
    if adapter is not None:
        with project.store.change():
            values = (0, None, "versions/0000", time.time(), "[]", None, None, 1)
            project.store.run("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            project.store.put("current", 0)
    return project


def status(project: Project) -> dict[str, Any]:
    """Counts, versions and how much had to be revised, as plain values."""
    store = project.store
    counts = {row["status"]: row["n"] for row in store.run(
        "SELECT status, COUNT(*) AS n FROM cases GROUP BY status")}  # fmt: skip
    accepted = [dict(row) for row in store.run("SELECT * FROM accepted ORDER BY id")]
    return {
        "organ": store.setting("organ"),
        "labels": {str(k): v for k, v in project.labels.items()},
        "cases": {name: counts.get(name, 0) for name in ("new", "open", "accepted", "rejected")},
        "open": [dict(row) for row in store.run(
            "SELECT name, holder, opened_at FROM cases WHERE status = 'open' ORDER BY name")],
        "held": [row["name"] for row in project.latest(held=True)],
        "current": None if project.current == NONE else project.current,
        "versions": [dict(row) for row in store.run("SELECT * FROM versions ORDER BY number")],
        "unfinished": [row["version"] for row in project.unfinished],
        "accepted": accepted,
    }  # fmt: skip
