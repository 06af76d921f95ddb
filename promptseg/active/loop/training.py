"""Learning from what was accepted: a new version, kept unless it is worse on held-back cases."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from promptseg.active.adapting import config_from
from promptseg.active.loop.project import NONE, Project
from promptseg.active.loop.store import Row
from promptseg.adapters import Adapter, read_adapter
from promptseg.backbones import load_backbone
from promptseg.backbones.base import Backbone
from promptseg.datasets.cohort import Pair
from promptseg.errors import FormatError
from promptseg.evaluate.metrics import dice
from promptseg.finetune.running import train_adapter
from promptseg.session import Segmenter

LOCK = "train.lock"
# Pages look now and then whether a training runs, and hold the lock for an instant.
LOCK_S = 1.0
# Standard deviation, over cases, of the difference in Dice between two versions of one adapter
# (0.012 and 0.015 on ten left atria). A new version has seen more cases than the one before; by
# less than the standard error of what a few held-back cases say it is not known to be worse.
DIFFERENCE_SD = 0.013
# A first version is shown cases without a prompt: that is what it learns before all else.
FIRST = {"unprompted": 0.6, "dense": 1.0, "prompts": 1}
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Version:
    """A version of the project's adapter.

    Args:
        number: From 1; 0 is what the project began with.
        dice: Mean on the held-back cases, without a prompt; None without any.
        before: The same of the version before.
        kept: True if it is in use now.
        cases: How many it learned from.
    """

    number: int
    dice: float | None
    before: float | None
    kept: bool
    cases: int


def train(
    project: Project,
    *,
    backbone: Backbone | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Version | None:
    """Make a new version from all accepted cases; a training that was killed is gone on with.

    Args:
        project: Of the cases.
        backbone: A loaded base; None loads the project's.
        progress: Called with stage, done, total.
        options: Of `FinetuneConfig`, such as `steps`; of a training that is gone on with, those
            that it was begun with hold.

    Returns:
        None if nothing was accepted since the current version.

    Raises:
        FormatError: A training is running, or no case was accepted.
    """
    lock = FileLock(project.folder / LOCK)
    try:
        with lock.acquire(timeout=LOCK_S):
            return _train(project, backbone, progress, options)
    except Timeout:
        raise FormatError(f"a training of {project.folder} is running: wait for it") from None


def _train(
    project: Project, backbone: Backbone | None, progress: Progress | None, options: dict[str, Any]
) -> Version | None:
    begun = project.unfinished or _begin(project, options)
    if not begun:
        return None
    job = begun[0]
    base = load_backbone(project.store.setting("model")) if backbone is None else backbone
    new = _trained(project, job, base, progress)
    pairs = _held(project)
    before = None if job["parent"] == NONE else project.adapter(job["parent"])
    found = _mean_dice(base, new, pairs, progress)
    old = None if before is None else _mean_dice(base, before, pairs, progress)
    return _finish(project, job, found, no_worse(found, old, len(pairs)), old)


def has_news(project: Project) -> bool:
    """True if a training has something to do: a new case, or one that was interrupted.

    Raises:
        FormatError: No case was accepted.
    """
    return bool(project.unfinished) or not _known(project, _to_learn(project))


def _to_learn(project: Project) -> list[list[str]]:
    rows = project.latest(held=False)
    if not rows:
        raise FormatError("no case was accepted yet that may be learned from: accept some first")
    return [[row["name"], row["image"], row["mask"]] for row in rows]


def _known(project: Project, cases: list[list[str]]) -> bool:
    """True if the current version has learned from these very cases."""
    last = project.store.run("SELECT cases FROM versions WHERE number = ?", (project.current,))
    return bool(last) and json.loads(last[0]["cases"]) == cases


def _begin(project: Project, options: dict[str, Any]) -> list[Row]:
    """Record what will be trained on, so that a training that is killed is gone on with alike."""
    rows = project.latest(held=False)
    cases = _to_learn(project)
    with project.store.change():
        parent = project.current
        if _known(project, cases):
            return []
        numbers = project.store.run("SELECT MAX(number) AS n FROM versions")[0]["n"]
        number = 1 if numbers is None else numbers + 1
        held = json.dumps([row["name"] for row in project.latest(held=True)])
        told = json.dumps({"label_names": _label_names(project, rows), **options})
        values = (number, parent, project.who, time.time(), json.dumps(cases), held, told)
        project.store.run("INSERT INTO trainings VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        project.store.note(project.who, "train", version=number, cases=len(cases))
    return project.unfinished


def _label_names(project: Project, rows: list[Row]) -> dict[int, str]:
    """Of the labels that are learned: the parent's, or of a first version those that were drawn."""
    parent = project.adapter()
    if parent is not None:
        return dict(parent.info.labels)
    drawn = {int(label) for row in rows for label in row["labels"].split(",")}
    return {label: name for label, name in project.labels.items() if label in drawn}


def _trained(project: Project, job: Row, base: Backbone, progress: Progress | None) -> Adapter:
    start = None if job["parent"] == NONE else project.adapter(job["parent"])
    given = {"organ": project.store.setting("organ"), "backbone": project.store.setting("model")}
    options = json.loads(job["options"])
    if start is None:
        given |= FIRST
    options["label_names"] = {int(n): name for n, name in options["label_names"].items()}
    config = config_from(start, **{**given, **options})
    cases = json.loads(job["cases"])
    images = [Path(image) for _, image, _ in cases]
    masks = [project.folder / mask for _, _, mask in cases]
    folder = project.version_folder(job["version"])
    return train_adapter(
        config, images, masks, folder, resume=True, backbone=base, start=start, progress=progress
    )


def _held(project: Project) -> list[Pair]:
    rows = project.latest(held=True)
    return [Pair(r["name"], Path(r["image"]), project.folder / r["mask"]) for r in rows]


def _mean_dice(
    base: Backbone, adapter: Adapter, pairs: Sequence[Pair], progress: Progress | None
) -> float | None:
    """Mean Dice without a prompt over cases and labels; None without cases."""
    if not pairs:
        return None
    segmenter = Segmenter(base)
    named = replace(adapter, name=f"version {adapter.name}")
    segmenter.adapters.add(named)
    segmenter.adapters.use(named.name)
    values = []
    try:
        for done, pair in enumerate(pairs):
            case = pair.load()
            result = segmenter.segment(case.volume).data
            values += [dice(result == n, case.labels == n) for n in adapter.info.labels]
            if progress is not None:
                progress("measure", done + 1, len(pairs))
    finally:
        segmenter.adapters.remove(named.name)
    return float(np.mean(values))


def no_worse(found: float | None, old: float | None, count: int) -> bool:
    """True if a version may take the place of the one before.

    Args:
        found: Its mean Dice on the held-back cases, None without any.
        old: The same of the version before, None without one.
        count: Held-back cases.
    """
    if found is None or old is None:
        return True
    return found >= old - DIFFERENCE_SD / max(count, 1) ** 0.5


def _finish(
    project: Project, job: Row, found: float | None, kept: bool, old: float | None
) -> Version:
    number, cases = int(job["version"]), json.loads(job["cases"])
    folder = str(project.version_folder(number).relative_to(project.folder))
    read_adapter(project.version_folder(number))
    with project.store.change():
        values = (number, job["parent"], folder, time.time(), job["cases"], found, old, int(kept))
        project.store.run("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        if kept:
            project.store.put("current", number)
        project.store.note(
            project.who, "version", version=number, dice=found, before=old, kept=kept
        )
    return Version(number, found, old, kept, len(cases))
