"""Checked cases as training uses them: loaded, windowed, strokes grown, distances measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promptseg.datasets.cohort import Case, Pair
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.data import Split
from promptseg.finetune.objectives import objective_class
from promptseg.finetune.organ_case import OrganCase, organ_case, with_levels, with_strokes
from promptseg.finetune.strokes import NOT_ANNOTATED
from promptseg.predictor.seen import Seen
from promptseg.prompts.types import PromptSet
from promptseg.volume import Volume
from promptseg.volume.intensity import choose_window


def organ_cases(
    pairs: Sequence[Pair], labels: Sequence[int], config: FinetuneConfig, strokes: bool = False
) -> list[OrganCase]:
    """Load cases as training uses them; `strokes` where their labels are strokes."""
    cases = [_organ_case(pair.load(), labels, config, strokes) for pair in pairs]
    return [replace(case, missing=_missing(case.name, labels, config)) for case in cases]


def _missing(name: str, labels: Sequence[int], config: FinetuneConfig) -> frozenset[int]:
    """Places of the labels that nobody annotated in a case."""
    there = config.annotated_in(name)
    return frozenset(() if there is None else (n for n, k in enumerate(labels) if k not in there))


def training_cases(split: Split, config: FinetuneConfig) -> list[OrganCase]:
    """The training cases as the objective learns from them.

    Strokes are grown and signed distances computed here, once, where the objective wants it.
    """
    objective = objective_class(config.objective)
    cases = organ_cases(split.training, list(split.labels), config, split.strokes)
    if split.strokes:
        cases = [with_strokes(case, objective.completed) for case in cases]
    return [with_levels(c, len(split.labels)) if objective.needs_levels else c for c in cases]


def unlabelled_cases(split: Split, config: FinetuneConfig) -> list[OrganCase]:
    """The unlabelled images as training uses them."""
    return [_blank_case(one.name, one.load(), config) for one in split.unlabelled]


def _blank_case(name: str, volume: Volume, config: FinetuneConfig) -> OrganCase:
    nothing = np.full(volume.shape, NOT_ANNOTATED, np.int8)
    return _organ_case(Case(name, volume, nothing), [], config, strokes=False)


def _organ_case(
    case: Case, labels: Sequence[int], config: FinetuneConfig, strokes: bool
) -> OrganCase:
    seen = Seen.of(case.volume)
    window = choose_window(seen.volume, window_of(config))
    axis, limits = seen.axis(PromptSet(), config.axis), (window.low, window.high)
    sides = seen.axis(PromptSet(), "sagittal") if config.flips else None
    data, known = seen.volume.data, seen.orientation.apply(case.labels)
    return organ_case(
        case.name, data, known, labels, axis, seen.volume.spacing, limits, sides, strokes
    )


def window_of(config: FinetuneConfig) -> str:
    """The window named by the recipe, or that of its modality."""
    if config.window != "auto" or config.modality is None:
        return config.window
    return "soft_tissue" if config.modality == "CT" else "percentile"
