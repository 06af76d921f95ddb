"""Cases of a fine-tuning run: paired, checked, split by case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.datasets.cohort import Case, Images, Labels, Pair, open_cohort, present_labels
from promptseg.errors import FormatError, PromptsegError, VolumeError
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.organ_case import OrganCase, organ_case
from promptseg.intensity import choose_window
from promptseg.prompts.slice_axis import choose_axis
from promptseg.prompts.types import PromptSet


@dataclass(frozen=True)
class Split:
    """Cases that passed every check.

    Args:
        training: Pairs to learn from.
        validation: Pairs to measure on; no case or group is in both.
        labels: Name by label, in order.
    """

    training: list[Pair]
    validation: list[Pair]
    labels: dict[int, str]


def split_cases(images: Images, labels: Labels, config: FinetuneConfig) -> Split:
    """Pair, check and split; nothing is trained if anything is wrong.

    Args:
        images: Folder or list, as in `promptseg.evaluate`.
        labels: The same for the labels.
        config: Which cases and labels, and how to split.

    Raises:
        FormatError: Files are missing, unmatched or unreadable; every fault is listed.
        VolumeError: Grids differ or a label is absent; every fault is listed.
    """
    single = next(iter(config.label_names)) if len(config.label_names) == 1 else None
    ranges = [parse_cases(getattr(config, name), name) for name in ("cases", "validation_cases")]
    training, validation = _opened(images, labels, single, ranges)
    if ranges[1] is None:
        training, validation = set_aside(training, config)
    _check_apart(training, validation, config.group)
    names = _label_names(training, config)
    return Split(training, validation, names)


def parse_cases(text: str | None, option: str) -> int | tuple[int, int] | None:
    """`N`, `A-B` or nothing.

    Raises:
        FormatError: It is neither.
    """
    if text is None:
        return None
    parts = str(text).split("-")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise FormatError(f"{option} is {text!r}: give a number from 1 up, or a range such as 1-16")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _opened(
    images: Images,
    labels: Labels,
    single: int | None,
    ranges: Sequence[int | tuple[int, int] | None],
) -> tuple[list[Pair], list[Pair]]:
    opened: list[list[Pair]] = [[], []]
    faults: list[PromptsegError] = []
    for place, chosen in enumerate(ranges):
        if place == 1 and chosen is None:
            continue
        try:
            opened[place] = open_cohort(images, labels, single, chosen)
        except (FormatError, VolumeError) as error:
            faults.append(error)
    if faults:
        texts = dict.fromkeys(str(fault) for fault in faults)
        raise type(faults[0])("; ".join(texts))
    return opened[0], opened[1]


def set_aside(pairs: list[Pair], config: FinetuneConfig) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs, split by group; with one group nothing is set aside."""
    groups = sorted({group_of(pair.name, config.group) for pair in pairs})
    count = round(len(groups) * config.validation_share)
    if config.validation_share > 0 and len(groups) > 1:
        count = max(1, count)
    shuffled = np.random.default_rng(config.seed).permutation(len(groups))
    held = {groups[n] for n in shuffled[: min(count, len(groups) - 1)]}
    chosen = [group_of(pair.name, config.group) in held for pair in pairs]
    return (
        [pair for pair, aside in zip(pairs, chosen, strict=True) if not aside],
        [pair for pair, aside in zip(pairs, chosen, strict=True) if aside],
    )


def group_of(name: str, pattern: str) -> str:
    """What `pattern` matches in a case's name, or the name itself."""
    found = re.search(pattern, name) if pattern else None
    return found.group(0) if found else name


def _check_apart(training: list[Pair], validation: list[Pair], pattern: str) -> None:
    known = {group_of(pair.name, pattern) for pair in training}
    both = sorted(known & {group_of(pair.name, pattern) for pair in validation})
    if both:
        raise FormatError(
            f"{len(both)} cases are in training and validation, such as {both[0]}: give ranges "
            "that are apart"
        )


def _label_names(pairs: list[Pair], config: FinetuneConfig) -> dict[int, str]:
    """Wanted labels, each of them in some training case."""
    if len(config.label_names) == 1:
        return dict(config.label_names)
    found = sorted({label for pair in pairs for label in present_labels(pair.load().labels)})
    if not config.label_names:
        only = len(found) == 1
        return {label: config.organ if only else f"label {label}" for label in found}
    absent = [label for label in config.label_names if label not in found]
    if absent:
        raise VolumeError(f"label {absent[0]} is in none of the {len(pairs)} training cases; "
                          f"present: {found}")  # fmt: skip
    return dict(sorted(config.label_names.items()))


def organ_cases(
    pairs: Sequence[Pair], labels: Sequence[int], config: FinetuneConfig
) -> list[OrganCase]:
    """Load cases as training uses them."""
    return [_organ_case(pair.load(), labels, config) for pair in pairs]


def _organ_case(case: Case, labels: Sequence[int], config: FinetuneConfig) -> OrganCase:
    volume = case.volume
    window = choose_window(volume, window_of(config))
    axis = choose_axis(volume, PromptSet(), config.axis)
    limits = (window.low, window.high)
    sides = choose_axis(volume, PromptSet(), "sagittal") if config.flips else None
    return organ_case(
        case.name, volume.data, case.labels, labels, axis, volume.spacing, limits, sides
    )


def window_of(config: FinetuneConfig) -> str:
    """The window named by the recipe, or that of its modality."""
    if config.window != "auto" or config.modality is None:
        return config.window
    return "soft_tissue" if config.modality == "CT" else "percentile"
