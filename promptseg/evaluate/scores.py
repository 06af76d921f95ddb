"""Numbers of one interaction, and their means over the slices of a case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from promptseg.datasets.simulation.clicks import Mask
from promptseg.evaluate import metrics
from promptseg.evaluate.playing import Played, rounds
from promptseg.evaluate.settings import Settings

Scores = dict[str, float]
QUALITY = ("dice", "jaccard", "nsd_1mm", "nsd_2mm", "hd95_mm", "assd_mm")
CURVES = ("dice_auc", "nsd_auc", "dice_mean_of_clicks", "noc85", "noc90")
NSD_TOLERANCE_MM = 2.0


def quality(mask: Mask, target: Mask, spacing: Sequence[float]) -> Scores:
    """Overlap and surface distances of a mask; infinite where a distance is undefined."""
    return {
        "dice": metrics.dice(mask, target),
        "jaccard": metrics.jaccard(mask, target),
        "nsd_1mm": metrics.normalised_surface_dice(mask, target, spacing, 1.0),
        "nsd_2mm": metrics.normalised_surface_dice(mask, target, spacing, 2.0),
        "hd95_mm": metrics.hd95(mask, target, spacing),
        "assd_mm": metrics.assd(mask, target, spacing),
    }


def trial_scores(played: Played, settings: Settings) -> Scores:
    """Every column of one interaction."""
    task, last = played.task, played.masks[-1]
    scores = quality(last, task.target, task.spacing)
    scores["revision_degree"] = metrics.revision_degree(last, task.target)
    if settings.dims == "3d":
        scores["over_propagation"] = metrics.over_propagation(last, task.target, task.axis)
    scores["seconds"] = sum(played.seconds)
    later = played.seconds[1:] or played.seconds
    scores["seconds_per_click"] = float(np.mean(later))
    scores["prompts"] = len(played.prompts)
    scores |= click_scores(played.masks, played, settings)
    if played.candidates:
        scores["best_candidate"] = max(metrics.dice(m, task.target) for m in played.candidates)
    for name, masks in played.against.items():
        scores |= {f"{name}_{key}": value for key, value in _rival(masks, played, settings).items()}
    return scores


def _rival(masks: Sequence[Mask | None], played: Played, settings: Settings) -> Scores:
    if masks[-1] is None:
        return {}
    known = [mask for mask in masks if mask is not None]
    scores = quality(known[-1], played.task.target, played.task.spacing)
    return scores | click_scores(known, played, settings)


def click_scores(masks: Sequence[Mask], played: Played, settings: Settings) -> Scores:
    """Dice after every click, areas under the curves, their mean, clicks to 0.85 and 0.90.

    A perfect answer ends an interaction; its score then stands for the clicks not made.
    """
    if not settings.corrects:
        return {}
    target, spacing = played.task.target, played.task.spacing
    dices = [metrics.dice(mask, target) for mask in masks]
    surfaces = [
        metrics.normalised_surface_dice(mask, target, spacing, NSD_TOLERANCE_MM) for mask in masks
    ]
    missing = rounds(settings) + 1 - len(masks)
    dices, surfaces = (values + values[-1:] * missing for values in (dices, surfaces))
    first = 1 if settings.start == "point" else 0
    named = {f"dice_click_{n}": value for n, value in enumerate(dices, start=first)}
    dices, surfaces = dices[1 - first :], surfaces[1 - first :]
    return {
        **named,
        "dice_auc": metrics.dice_auc(dices),
        "nsd_auc": metrics.nsd_auc(surfaces, dices),
        "dice_mean_of_clicks": metrics.mean_of_clicks(dices),
        "noc85": metrics.noc(dices, 0.85, settings.clicks),
        "noc90": metrics.noc(dices, 0.90, settings.clicks),
    }


def mean_scores(trials: Sequence[Mapping[str, float]]) -> Scores:
    """Mean of every column over the trials in which it is defined."""
    columns = dict.fromkeys(key for trial in trials for key in trial)
    return {key: finite_mean(trial.get(key, np.nan) for trial in trials) for key in columns}


def finite_mean(values: Iterable[float]) -> float:
    """Mean of the finite values; NaN without any."""
    kept = [value for value in values if np.isfinite(value)]
    return float(np.mean(kept)) if kept else float("nan")
