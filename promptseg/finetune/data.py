"""Cases of a fine-tuning run: paired, checked, split by case."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.datasets.cohort import (
    Images,
    Labels,
    Pair,
    named_files,
    notes_of,
    open_cohort,
    parse_cases,
    present_labels,
    raise_all,
)
from promptseg.datasets.folders import label_names
from promptseg.errors import FormatError, PromptsegError, VolumeError
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.objectives import objective_class
from promptseg.finetune.strokes import open_strokes
from promptseg.finetune.unlabelled import Unlabelled, open_unlabelled


@dataclass(frozen=True)
class Split:
    """Cases that passed every check.

    Args:
        training: Pairs to learn from.
        validation: Pairs to measure on; no case or group is in both.
        labels: Name by label, in order.
        strokes: True if the training pairs hold strokes.
        answered: True if they hold what a network answered to strokes.
        unlabelled: Further images to learn from.
        notes: What was made of the files, each a sentence.
    """

    training: Sequence[Pair]
    validation: Sequence[Pair]
    labels: dict[int, str]
    strokes: bool = False
    answered: bool = False
    unlabelled: Sequence[Unlabelled] = ()
    notes: Sequence[str] = ()

    @property
    def annotation(self) -> str:
        """What people drew of the training cases."""
        return "scribbles" if self.strokes or self.answered else "labels"


@dataclass(frozen=True)
class Sources:
    """Where the cases of a run come from; each a folder or a list, as in `promptseg.evaluate`.

    Args:
        images: To learn from and to validate on.
        labels: Of the same names; with `scribbles` those of validation cases alone, or None.
        scribbles: Strokes in place of labels.
        unlabelled: Images without labels.
    """

    images: Images
    labels: Labels | None = None
    scribbles: Labels | None = None
    unlabelled: Images | None = None


def split_cases(sources: Sources, config: FinetuneConfig) -> Split:
    """Pair, check and split; nothing is trained if anything is wrong.

    Args:
        sources: Images and what is known of them.
        config: Which cases and labels, and how to split.

    Raises:
        FormatError: Files are missing, unmatched or unreadable; every fault is listed.
        VolumeError: Grids differ or a label is absent; every fault is listed.
    """
    _check_objective(sources, config)
    opened = _stroke_pairs if sources.scribbles is not None else _label_pairs
    training, validation = opened(sources, config)
    _check_apart(training, validation, config.group)
    strokes = sources.scribbles is not None
    # Each case with strokes has been seen to have all labels that are named.
    names = dict(sorted(config.label_names.items())) if strokes else {}
    names = names or _label_names(training, config, _named_by_file(sources.labels))
    _check_annotated(training, validation, names, config)
    further: Sequence[Unlabelled] = ()
    if sources.unlabelled is not None:
        held_out = [pair.name for pair in validation]
        chosen = parse_cases(config.unlabelled_cases, "unlabelled_cases")
        further = open_unlabelled(
            sources.unlabelled, training, held_out, config.axis, chosen, config.modality
        )
    notes = [*notes_of([*training, *validation]), *_annotated_notes(training, names, config)]
    return Split(training, validation, names, strokes, unlabelled=further, notes=notes)


def _check_objective(sources: Sources, config: FinetuneConfig) -> None:
    """An objective and what it needs to learn from must fit."""
    objective, name = objective_class(config.objective), config.objective
    if sources.labels is None and sources.scribbles is None:
        raise FormatError("labels and scribbles are both missing: give one of them")
    if sources.scribbles is not None and not objective.takes_strokes:
        raise FormatError(
            f"objective {name} needs whole labels, and scribbles are given: use scribble"
        )
    if sources.scribbles is None and objective.needs_strokes:
        raise FormatError(f"objective {name} learns from scribbles: give --scribbles DIR")
    if sources.unlabelled is None and objective.needs_unlabelled:
        raise FormatError(
            f"objective {name} learns from unlabelled images too: give --unlabelled DIR"
        )
    if sources.unlabelled is not None and not objective.uses_unlabelled:
        raise FormatError(f"objective {name} makes no use of unlabelled images: use semi")
    if sources.unlabelled is not None and config.batch % 2:
        raise FormatError(
            f"batch is {config.batch}: half of it is unlabelled, so give an even number"
        )
    if config.ignore is not None and sources.scribbles is None:
        raise FormatError("ignore is a value of scribbles, and none are given: give --scribbles "
                          "DIR")  # fmt: skip


def _label_pairs(sources: Sources, config: FinetuneConfig) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs with whole labels."""
    single = next(iter(config.label_names)) if len(config.label_names) == 1 else None
    ranges = [parse_cases(getattr(config, name), name) for name in ("cases", "validation_cases")]
    labels: Any = sources.labels
    opened = partial(open_cohort, sources.images, labels, single, trusted=config.trust_voxels)
    training, validation = _opened(opened, ranges)
    return set_aside(training, config) if ranges[1] is None else (training, validation)


def _stroke_pairs(sources: Sources, config: FinetuneConfig) -> tuple[list[Pair], list[Pair]]:
    """Training pairs with strokes, and validation pairs with labels where there are labels."""
    wanted, scribbles = list(config.label_names), sources.scribbles or ()
    chosen = parse_cases(config.cases, "cases")
    training: list[Pair] = list(
        open_strokes(sources.images, scribbles, wanted, config.ignore, chosen, config.trust_voxels)
    )
    if sources.labels is None:
        return training, []
    if config.validation_cases is None:
        training, held = set_aside(training, config)
        names = {pair.name for pair in held}
    else:
        names = _between(sources.images, config.validation_cases)
    return training, _validation(sources.images, sources.labels, names, config.ignore)


def _between(images: Images, cases: str) -> set[str]:
    """Names of the images of a range."""
    chosen = parse_cases(cases, "validation_cases") or 1
    first, last = (1, chosen) if isinstance(chosen, int) else chosen
    return set(sorted(named_files(images))[first - 1 : last])


def _validation(images: Images, labels: Labels, names: set[str], ignore: int | None) -> list[Pair]:
    """Checked pairs of some names; of lists, image and labels stand at the same place."""
    found = named_files(images)
    known: Mapping[str, Any] = named_files(labels, "mask")  # type: ignore[arg-type]
    if not isinstance(images, (str, os.PathLike)):
        known = dict(zip(found, known.values(), strict=True))
    faults: list[PromptsegError] = []
    pairs = []
    for name in sorted(names):
        if name not in known:
            faults.append(FormatError(f"validation case {name} has no labels"))
            continue
        pairs.append(Pair(name, found[name], known[name]))
        try:
            present = present_labels(pairs[-1].load().labels)
            if ignore in present:
                faults.append(VolumeError(f"{name}: its labels hold {ignore}, which is the value "
                                          "to ignore in scribbles"))  # fmt: skip
        except PromptsegError as error:
            faults.append(error)
    raise_all(faults)
    return pairs


def _opened(
    open_cases: Callable[[int | tuple[int, int] | None], list[Pair]],
    ranges: Sequence[int | tuple[int, int] | None],
) -> tuple[list[Pair], list[Pair]]:
    opened: list[list[Pair]] = [[], []]
    faults: list[PromptsegError] = []
    for place, chosen in enumerate(ranges):
        if place == 1 and chosen is None:
            continue
        try:
            opened[place] = open_cases(chosen)
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


def _check_apart(training: Sequence[Pair], validation: Sequence[Pair], pattern: str) -> None:
    known = {group_of(pair.name, pattern) for pair in training}
    both = sorted(known & {group_of(pair.name, pattern) for pair in validation})
    if both:
        raise FormatError(
            f"{len(both)} cases are in training and validation, such as {both[0]}: give ranges "
            "that are apart"
        )


def _check_annotated(
    training: Sequence[Pair],
    validation: Sequence[Pair],
    names: Mapping[int, str],
    config: FinetuneConfig,
) -> None:
    """What the recipe says of annotated labels must fit the cases."""
    pairs = [*training, *validation]
    for pattern, labels in config.annotated.items():
        if not any(re.search(pattern, pair.name) for pair in pairs):
            raise FormatError(f"annotated: {pattern!r} matches none of the {len(pairs)} cases, "
                              f"such as {pairs[0].name}")  # fmt: skip
        if not labels or not set(labels) <= set(names):
            raise FormatError(f"annotated: {pattern!r} has {list(labels)}; give some of the "
                              f"labels {sorted(names)}")  # fmt: skip
    for pair in pairs if config.annotated else ():
        there = config.annotated_in(pair.name)
        found = set(present_labels(pair.load().labels)) & set(names)
        if there is not None and not found <= set(there):
            raise VolumeError(
                f"{pair.name}: label {min(found - set(there))} is in it, and annotated says that "
                f"only {list(there)} are"
            )


def _annotated_notes(
    training: Sequence[Pair], names: Mapping[int, str], config: FinetuneConfig
) -> list[str]:
    """In how many training cases only some labels are annotated, and which."""
    there = Counter(config.annotated_in(pair.name) for pair in training)
    return [f"{count} of {len(training)} cases: annotated are only "
            f"{', '.join(names[label] for label in labels)}"
            for labels, count in there.items() if labels is not None]  # fmt: skip


def _named_by_file(labels: Labels | None) -> Mapping[int, str]:
    """Names by label of the dataset.json that lies with a folder of labels."""
    return label_names(Path(labels)) if isinstance(labels, (str, os.PathLike)) else {}


def _label_names(
    pairs: Sequence[Pair], config: FinetuneConfig, named: Mapping[int, str]
) -> dict[int, str]:
    """Wanted labels, each of them in some training case, with the names that a file gives."""
    if len(config.label_names) == 1:
        return dict(config.label_names)
    found = sorted({label for pair in pairs for label in present_labels(pair.load().labels)})
    if not config.label_names:
        only = len(found) == 1
        return {
            label: named.get(label, config.organ if only else f"label {label}") for label in found
        }
    absent = [label for label in config.label_names if label not in found]
    if absent:
        raise VolumeError(f"label {absent[0]} is in none of the {len(pairs)} training cases; "
                          f"present: {found}")  # fmt: skip
    return dict(sorted(config.label_names.items()))
