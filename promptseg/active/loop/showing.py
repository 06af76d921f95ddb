"""What a person is shown of the next case: the prediction, where to look, how much to expect."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.active.looking import Looker, Progress
from promptseg.active.loop.project import NONE, Project
from promptseg.active.loop.store import Row
from promptseg.active.reference import load_reference
from promptseg.active.selecting import check_needs, collected, model_name
from promptseg.active.strategies import strategy
from promptseg.datasets.cohort import read_image
from promptseg.session import Segmenter


@dataclass(frozen=True)
class Shown:
    """The case to look at.

    Args:
        name: Of the case.
        image: File.
        mask: File of the prediction; None before the first version.
        version: Of the adapter that made it.
        effort: Expected revision in percent: 100 less the predicted quality.
        axis: Of the slice most worth looking at.
        slice: Its number.
        reason: What speaks for it.
    """

    name: str
    image: str
    mask: str | None = None
    version: int | None = None
    effort: float | None = None
    axis: int | None = None
    slice: int | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def show_next(
    project: Project,
    segmenter: Segmenter,
    name: str | None = None,
    progress: Progress | None = None,
) -> Shown | None:
    """Open the next case and predict it with the current version.

    Args:
        project: Of the cases.
        segmenter: Of the project's base, without adapters.
        name: A case that is wanted; None takes the next.
        progress: Called with stage, done, total.

    Returns:
        None if no case is left.
    """
    put_in_order(project, segmenter, progress)
    opened = project.open(name)
    if opened is None:
        return None
    return predict_case(project, segmenter, opened, progress)


def predict_case(
    project: Project, segmenter: Segmenter, name: str, progress: Progress | None = None
) -> Shown:
    """What the current version makes of a case; who has it open stays as it is.

    Args:
        project: Of the case.
        segmenter: Of the project's base, without adapters.
        name: Of the case.
        progress: Called with stage, done, total.
    """
    version = project.current
    if version != NONE and _known(project, name, version) is None:
        _predict(project, segmenter, name, version, progress)
    return shown_of(project, name, version)


def shown_of(project: Project, name: str, version: int) -> Shown:
    """The prediction of a version that there is, without computing one."""
    image = str(project.case(name)["image"])
    known = None if version == NONE else _known(project, name, version)
    if known is None:
        return Shown(name, image)
    mask = str(project.folder / known["mask"])
    effort = 100 * (1 - float(known["score"]))
    return Shown(name, image, mask, version, effort, known["axis"], known["slice"], known["reason"])


def _known(project: Project, name: str, version: int) -> Row | None:
    rows = project.store.run(
        "SELECT * FROM predictions WHERE name = ? AND version = ?", (name, version)
    )
    return rows[0] if rows and (project.folder / rows[0]["mask"]).is_file() else None


def _predict(
    project: Project, segmenter: Segmenter, name: str, version: int, progress: Progress | None
) -> None:
    """Write the prediction, then record it: a kill between leaves a file that is written again."""
    use_version(project, segmenter, version)
    session = segmenter.session(project.volume(name))
    result = session.answer(True, progress=progress)
    found = session.suggest() if result.data.any() else None
    relative = Path("predictions") / f"{version:04d}" / f"{name}.nii.gz"
    result.save(project.folder / relative)
    score = float(np.mean(list(result.score.values()))) if result.score else 0.0
    place = (None, None, "nothing was found") if found is None else (
        found.axis, found.index, found.reason)  # fmt: skip
    with project.store.change():
        project.store.run(
            "INSERT OR REPLACE INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?)",
            (name, version, str(relative), score, *place),
        )


def use_version(project: Project, segmenter: Segmenter, version: int) -> None:
    """Put a version of the project in use."""
    adapter = project.adapter(version)
    for held in segmenter.adapters.names:
        segmenter.adapters.remove(held)
    if adapter is not None:
        segmenter.adapters.add(adapter)
        segmenter.adapters.use(adapter.name)


def put_in_order(project: Project, segmenter: Segmenter, progress: Progress | None = None) -> None:
    """Rank the cases that nobody looked at, once for every version; by name there is no need."""
    order, version = project.store.setting("order"), project.current
    if order == "name" or version == NONE or project.store.setting("ordered") == version:
        return
    rows = project.store.run("SELECT name, image FROM cases WHERE status = 'new'")
    images = {row["name"]: Path(row["image"]) for row in rows}
    chosen = strategy(order)
    use_version(project, segmenter, version)
    held = project.store.setting("reference")
    reference = None if held is None else load_reference(Path(held), model_name(segmenter))
    check_needs(chosen, segmenter, reference)
    looker = Looker(segmenter, uncertainty="uncertainty" in chosen.needs)
    samples = collected(looker, images, read_image, "case", reference, bool(chosen.needs), progress)
    ranked = chosen.choose(samples, len(samples), np.random.default_rng(0)) if samples else []
    with project.store.change():
        for place, choice in enumerate(ranked):
            project.store.run(
                "UPDATE cases SET priority = ?, reason = ? WHERE name = ?",
                (place, choice.reason, choice.sample.case),
            )
        project.store.put("ordered", version)
