"""Human scribble files: where they are, and which of their values mean what."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from promptseg.datasets.cohort import (
    Case,
    present_labels,
    raise_all,
    read_labels,
    whole_labels,
)
from promptseg.errors import FormatError, PromptsegError, VolumeError

Strokes = tuple[np.ndarray, np.ndarray]
_ENDINGS = (".nii.gz", ".nii", ".png")


def read_strokes(folder: Path, case: Case, label: int) -> list[Strokes]:
    """Strokes of every person for one label of a case.

    Two layouts are known. `<case>.nii.gz` (or `.png`) holds one label a stroke: a value that is
    no label of the case, 4 in ACDC, marks what nobody drew on, and 0 is then a background
    stroke; without such a value 0 is what nobody drew on. `<case>/*_positive.png` with
    `*_negative.png` beside it holds a person's strokes each, non-zero where drawn.

    Returns:
        (I, J, K) bool inside and outside strokes, one pair a person.

    Raises:
        FormatError: There is no scribble file for the case.
        VolumeError: A file has another shape, or nobody drew inside the label.
    """
    files = [p for p in (folder / f"{case.name}{end}" for end in _ENDINGS) if p.is_file()]
    drawn = [label_strokes(_read(files[0], case), case.labels, label)] if files else []
    if not files:
        drawn = _people(folder / case.name, case)
    if not drawn:
        raise FormatError(
            f"{case.name} has no scribbles in {folder}: give {case.name}.nii.gz with labels or "
            f"{case.name}/NAME_positive.png"
        )
    usable = [strokes for strokes in drawn if strokes[0].any()]
    if not usable:
        raise VolumeError(f"{case.name}: the scribbles hold no stroke inside label {label}")
    return usable


def check_strokes(folder: Path, cases: Iterable[Case], label: int | None) -> None:
    """Raise one error that lists every case and label without usable strokes."""
    faults: list[PromptsegError] = []
    for case in cases:
        for wanted in present_labels(case.labels) if label is None else [label]:
            try:
                read_strokes(folder, case, wanted)
            except (FormatError, VolumeError) as error:
                faults.append(error)
    raise_all(faults)


def label_strokes(drawn: np.ndarray, labels: np.ndarray, label: int) -> Strokes:
    """Strokes inside and outside one label, from (I, J, K) values of all labels' strokes."""
    foreign = [value for value in present_labels(drawn) if value not in present_labels(labels)]
    blank = foreign or [0]
    annotated = ~np.isin(drawn, blank)
    return drawn == label, annotated & (drawn != label)


def _people(folder: Path, case: Case) -> list[Strokes]:
    found = []
    for path in sorted(folder.glob("*_positive.png")):
        negative = path.with_name(path.name.replace("_positive", "_negative"))
        inside = _read(path, case) > 0
        outside = _read(negative, case) > 0 if negative.is_file() else np.zeros_like(inside)
        found.append((inside, outside & ~inside))
    return found


def _read(path: Path, case: Case) -> np.ndarray:
    drawn = whole_labels(read_labels(path).data, path.name)
    if drawn.shape != case.volume.shape:
        raise VolumeError(f"{path} has shape {drawn.shape}, the image {case.volume.shape}")
    return drawn
