"""Running a protocol over a cohort."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from promptseg.datasets.cohort import (
    Case,
    Images,
    Labels,
    Pair,
    load_cases,
    open_cohort,
    present_labels,
)
from promptseg.datasets.strokes import check_strokes, read_strokes
from promptseg.errors import PromptError
from promptseg.evaluate.playing import Played, play, play_whole, scene_of
from promptseg.evaluate.reports import Report
from promptseg.evaluate.rows import Picture, Row
from promptseg.evaluate.scores import mean_scores, trial_scores
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task, slab_task, slice_tasks, volume_task
from promptseg.prompts.types import Box, Point, Scribble
from promptseg.volume.slicing import in_plane, take_slice

if TYPE_CHECKING:
    from promptseg.inference.encoder import Progress
    from promptseg.session import Segmenter

PICTURES = 6


def opened(
    images: Images,
    labels: Labels,
    settings: Settings,
    cases: int | tuple[int, int] | None = None,
    trusted: bool = False,
) -> list[Pair]:
    """Pair images and labels and check them, and the scribbles too, before anything runs.

    Raises:
        FormatError: As `open_cohort`; scribbles are missing.
        VolumeError: As `open_cohort`; scribbles have another shape or miss a label.
    """
    pairs = open_cohort(images, labels, settings.label, cases, trusted)
    if settings.scribbles is not None:
        with_label = (case for case in load_cases(pairs) if _labels_of(case, settings))
        check_strokes(settings.scribbles, with_label, settings.label)
    return pairs


def run(
    segmenter: Segmenter,
    cases: Iterable[Case],
    settings: Settings,
    count: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluate on cases that were checked.

    Args:
        segmenter: Answers the prompts.
        cases: Read one at a time.
        settings: Protocol and options.
        count: Number of cases, for the progress bar.
        progress: Called with stage, done, total.

    Raises:
        PromptError: The model cannot use the protocol's prompts.
    """
    rows: list[Row] = []
    worst: list[Picture] = []
    for number, case in enumerate(cases, start=1):
        labels = _labels_of(case, settings)
        if settings.protocol == "text" and settings.text is not None and len(labels) > 1:
            raise PromptError(
                f"{case.name} has labels {labels}: say with label which one the words mean"
            )
        for label in labels:
            spoken = replace(settings, text=settings.text or words_for(segmenter, label))
            played = [_judged(t, case) for t in trials(segmenter, case, label, spoken)]
            scores = [trial_scores(trial, settings) for trial in played]
            rows.append(_row(case, label, scores, settings))
            worst.append(_picture(case, label, played, [s["dice"] for s in scores]))
            worst = sorted(worst, key=lambda picture: picture.dice)[:PICTURES]
        if progress is not None and count is not None:
            progress("evaluate", number, count)
    return Report(rows, described(segmenter, settings), worst)


def _labels_of(case: Case, settings: Settings) -> list[int]:
    """Labels to play on a case; where one is absent only words and `auto` can be asked for it."""
    present = present_labels(case.labels)
    if settings.label is None:
        return present
    asked = settings.label in present or settings.protocol in ("text", "auto")
    return [settings.label] if asked else []


def words_for(segmenter: Segmenter, label: int) -> str | None:
    """What the active adapter calls a label, or its organ where it has only one label."""
    adapters = getattr(segmenter, "adapters", None)
    if adapters is None or adapters.active is None:
        return segmenter.organ
    info = adapters.active.info
    return info.labels.get(label, info.organ if len(info.labels) == 1 else None)


def trials(segmenter: Segmenter, case: Case, label: int, settings: Settings) -> Iterator[Played]:
    """Play every task of one label: its slices or its volume, once for each person's strokes."""
    people = [None] if settings.scribbles is None else read_strokes(settings.scribbles, case, label)
    for strokes in people:
        whole = volume_task(case, label, settings, strokes)
        if settings.protocol in ("text", "auto"):
            yield from _by_slice(play_whole(segmenter, whole, settings), settings)
        elif settings.dims == "3d":
            yield play(segmenter, whole, settings)
        else:
            for task in slice_tasks(whole, settings):
                yield play(segmenter, task, settings)


def _judged(played: Played, case: Case) -> Played:
    """The same without what lies on voxels to be ignored, which nobody can judge."""
    if not (case.labels < 0).any():
        return played
    ignored = case.labels < 0
    if played.task.place is not None:
        ignored = take_slice(ignored, played.task.axis, played.task.place)
    return replace(played, masks=[mask & ~ignored for mask in played.masks])


def _by_slice(played: Played, settings: Settings) -> Iterator[Played]:
    """An answer for the volume, seen slice by slice in 2D."""
    if settings.dims == "3d":
        yield played
        return
    for task in slice_tasks(played.task, settings):
        mask = np.moveaxis(played.masks[0], task.axis, 0)[task.place]
        yield Played(task, played.prompts, [mask], played.seconds)


def _row(case: Case, label: int, scores: Sequence[dict[str, float]], settings: Settings) -> Row:
    counted = {"n_slices": len(scores)} if settings.dims == "2d" else {}
    return {"case": case.name, "label": label, **counted, **mean_scores(scores)}


def described(segmenter: Segmenter, settings: Settings) -> dict[str, Any]:
    """Settings and model, for the summary."""
    spec = segmenter.backbone.spec
    active = getattr(getattr(segmenter, "adapters", None), "active", None)
    words = getattr(segmenter, "text_model", None)
    return {
        **settings.to_dict(),
        "model": spec.name,
        "model_sha256": spec.sha256,
        "adapter": None if active is None else active.name,
        "adapter_sha256": None if active is None else active.digest,
        "text_model": None if words is None else getattr(words, "name", "unnamed"),
        "device": str(segmenter.device),
        "precision": segmenter.precision,
    }


def _picture(case: Case, label: int, played: Sequence[Played], dices: Sequence[float]) -> Picture:
    """The worst slice of a row; of a volume the slice with the most wrong voxels."""
    trial = played[int(np.argmin(dices))]
    task, mask = trial.task, trial.masks[-1]
    if task.index is None:
        wrong = (mask != task.truth).sum(in_plane(task.axis))
        place = int(np.argmax(wrong)) if wrong.any() else _largest(task)
        flat = slab_task(task, place)
        return _drawn(case, label, trial, flat, np.moveaxis(mask, task.axis, 0)[place], min(dices))
    return _drawn(case, label, trial, task, mask, min(dices))


def _drawn(
    case: Case, label: int, trial: Played, flat: Task, mask: np.ndarray, dice: float
) -> Picture:
    points, strokes, box = _visible(trial, flat)
    return Picture(
        case.name,
        f"label {label}, slice {flat.place}",
        scene_of(flat, []).image,
        flat.target.copy(),
        mask.copy(),
        flat.spacing[0] / flat.spacing[1],
        points,
        strokes,
        box,
        dice,
    )


def _visible(
    trial: Played, flat: Task
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float, float] | None]:
    """Clicks, strokes and box of a trial on the slice that is drawn."""
    index = flat.place if trial.task.index is None else flat.index
    rows, cols = in_plane(flat.axis)
    points, strokes, box = [], [np.zeros((0, 3))], None
    for prompt in trial.prompts:
        if isinstance(prompt, Point) and round(prompt.at[flat.axis]) == index:
            points.append((prompt.at[rows], prompt.at[cols], float(prompt.positive)))
        elif isinstance(prompt, Scribble):
            here = prompt.voxels[prompt.voxels[:, flat.axis] == index][:, [rows, cols]]
            strokes.append(np.insert(here.astype(float), 2, float(prompt.positive), axis=1))
        elif isinstance(prompt, Box) and prompt.lo[flat.axis] == index:
            box = prompt.lo[rows], prompt.lo[cols], prompt.hi[rows], prompt.hi[cols]
    return np.array(points, dtype=np.float64).reshape(-1, 3), np.concatenate(strokes), box


def _largest(task: Task) -> int:
    return int(np.argmax(task.truth.sum(in_plane(task.axis))))
