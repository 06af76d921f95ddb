"""A map of the features: two principal components, what was chosen marked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptseg.active.reference import Reference
from promptseg.active.samples import Floats
from promptseg.active.selecting import Selection
from promptseg.errors import FormatError
from promptseg.io.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLAIN, SOURCE = "#9aa3ab", "#222222"
COLOURS = ("#d1495b", "#0b6e99", "#66863c", "#8a6fb0")
NAMED = 30


def components(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and the two directions (2, D) along which the rows vary most.

    Where fewer directions vary, the others are zero.
    """
    mean = rows.mean(0)
    _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
    two = np.zeros((2, rows.shape[1]))
    two[: min(2, len(directions))] = directions[:2]
    return mean, two


def save_map(selection: Selection, path: Path, reference: Reference | None = None) -> bool:
    """Draw the samples, the chosen ones by reason, and the reference vectors.

    Args:
        selection: What was chosen.
        path: PNG to write.
        reference: Of the source site.

    Returns:
        False if no sample has a feature, so that there is nothing to draw.

    Raises:
        FormatError: It cannot be written.
    """
    from matplotlib.figure import Figure

    held = [(one.name, one.feature) for one in selection.samples if one.feature is not None]
    if not held:
        return False
    features = np.stack([feature for _, feature in held])
    vectors = features[:0] if reference is None else reference.vectors
    mean, two = components(np.concatenate([features, vectors]))
    places = dict(zip([name for name, _ in held], (features - mean) @ two.T, strict=True))
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axes = figure.subplots()
    every = np.array(list(places.values()))
    axes.scatter(every[:, 0], every[:, 1], s=26, c=PLAIN, label="not chosen")
    if len(vectors):
        shown = (vectors - mean) @ two.T
        axes.scatter(
            shown[:, 0], shown[:, 1], s=70, c=SOURCE, marker="x", label="source references"
        )
    _mark(axes, selection, places)
    axes.set(xlabel="first component", ylabel="second component")
    axes.set_title(f"{selection.strategy}: {len(selection.chosen)} of {len(selection.samples)} "
                   f"{selection.by}s", loc="left", fontsize=11)  # fmt: skip
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(style="sci", scilimits=(-2, 2))
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=140, facecolor="white", metadata={"Software": None})
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error
    return True


def _mark(axes: Axes, selection: Selection, places: dict[str, Floats]) -> None:
    reasons = list(dict.fromkeys(choice.reason for choice in selection.chosen))
    for number, reason in enumerate(reasons):
        names = [c.sample.name for c in selection.chosen if c.reason == reason]
        known = [name for name in names if name in places]
        if not known:
            continue
        colour = COLOURS[number % len(COLOURS)]
        points = np.array([places[name] for name in known])
        axes.scatter(points[:, 0], points[:, 1], s=64, c=colour, edgecolors="white", label=reason)
        _name(axes, known if len(selection.chosen) <= NAMED else [], points, colour)


def _name(axes: Axes, names: Sequence[str], points: Floats, colour: str) -> None:
    for name, (x, y) in zip(names, points, strict=False):
        axes.annotate(
            name, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7, color=colour
        )
