"""Figures of a report: Dice against clicks, box plots by label, the worst rows as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptseg.errors import FormatError
from promptseg.evaluate.rows import Picture, Row, click_columns
from promptseg.io.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

OURS = "promptseg"
COLOURS = {
    OURS: "#0b6e99",
    "network": "#d1495b",
    "graph_cut": "#8a6fb0",
    "random_walker": "#66863c",
    "grabcut": "#c77f1a",
    "ellipse": "#7a7a7a",
}
_TRUTH, _ANSWER, _BOX = "#ffd23f", "#ff3d7f", "#9ad1ff"
_SIDES = {True: ("o", "#39d353"), False: ("s", "#ff5a36")}
_INK, _GRID = "#222222", "#dddddd"
_ROOM = 0.35
_PAD = 0.1


def save_figures(rows: Sequence[Row], worst: Sequence[Picture], folder: Path) -> list[Path]:
    """Write `dice_by_label.png`, `dice_by_click.png` (of clicks) and `worst.png`.

    Raises:
        FormatError: matplotlib is not installed or a file cannot be written.
    """
    drawn = {"dice_by_label.png": labels_figure(rows)}
    if click_columns(rows):
        drawn["dice_by_click.png"] = clicks_figure(rows)
    if worst:
        drawn["worst.png"] = worst_figure(worst)
    for name, figure in drawn.items():
        try:
            with atomic_path(folder / name) as path:
                figure.savefig(path, dpi=150, facecolor="white", metadata={"Software": None})
        except OSError as error:
            raise FormatError(f"{folder / name}: cannot be written: {error}") from error
    return [folder / name for name in drawn]


def clicks_figure(rows: Sequence[Row]) -> Figure:
    """Mean Dice against clicks with the band between the quartiles, for every method."""
    figure, axes = _figure(6.4, 4.2)
    ends: list[tuple[float, str]] = []
    for name in methods(rows):
        prefix = "" if name == OURS else f"{name}_"
        columns = click_columns(rows, prefix)
        if not columns:
            continue
        clicks = [int(column.rsplit("_", 1)[1]) for column in columns]
        values = np.array([[row.get(c, np.nan) for c in columns] for row in rows], dtype=float)
        means = np.nanmean(values, 0)
        low, high = np.nanpercentile(values, (25, 75), axis=0)
        colour, main = COLOURS[name], name == OURS
        axes.fill_between(clicks, low, high, color=colour, alpha=0.18 if main else 0.07, lw=0)
        axes.plot(clicks, means, "-o", color=colour, lw=2.4 if main else 1.5, ms=5 if main else 3.5)
        ends.append((float(means[-1]), name))
        axes.set_xticks(clicks)
    last = axes.get_xticks()[-1]
    for height, (mean, name) in zip(apart([m for m, _ in ends]), ends, strict=True):
        text = f"{_readable(name)} {mean:.3f}"
        axes.annotate(text, (last, height), (8, 0), textcoords="offset points", va="center",
                      color=COLOURS[name], fontweight="bold" if name == OURS else None,
                      annotation_clip=False)  # fmt: skip
    axes.set(xlabel="clicks", ylabel="Dice", ylim=(max(0, axes.get_ylim()[0]), 1.0))
    axes.set_title(f"Dice against clicks: mean and quartiles of {_counted(len(rows))}", loc="left")
    return figure


def labels_figure(rows: Sequence[Row]) -> Figure:
    """Box plots of Dice by label, one box a method, with every row as a dot."""
    labels, names = sorted({row["label"] for row in rows}), methods(rows)
    shown = labels if len(labels) <= 12 else ["all"]
    figure, axes = _figure(max(4.5, 1.2 + 0.55 * len(shown) * len(names)), 4.2)
    rng, width = np.random.default_rng(0), 0.8 / len(names)
    for place, label in enumerate(shown):
        for number, name in enumerate(names):
            column = "dice" if name == OURS else f"{name}_dice"
            chosen = [row for row in rows if label in ("all", row["label"])]
            values = np.array([row.get(column, np.nan) for row in chosen], dtype=float)
            values = values[np.isfinite(values)]
            if values.size:
                at = place + (number - (len(names) - 1) / 2) * width
                _box(axes, values, at, width * 0.78, COLOURS[name], rng)
    axes.set_xticks(range(len(shown)), [f"label {label}" if label != "all" else "all labels"
                                        for label in shown])  # fmt: skip
    axes.set(ylabel="Dice", xlim=(-0.6, len(shown) - 0.4))
    axes.set_ylim(max(0.0, axes.get_ylim()[0] - 0.02), 1.005)
    if len(names) > 1:
        for name in names:
            axes.plot([], [], "s", color=COLOURS[name], label=_readable(name))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set_title(f"Dice by label, {_counted(len(rows))}", loc="left")
    return figure


def worst_figure(pictures: Sequence[Picture]) -> Figure:
    """The worst rows: known outline, answer, clicks and box on the slice."""
    columns = 2 if len(pictures) in (2, 4) else min(3, len(pictures))
    lines = -(-len(pictures) // columns)
    figure = _blank(3.5 * columns, 3.85 * lines + 0.6)
    for axes in figure.subplots(lines, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, picture in zip(figure.axes, pictures, strict=False):
        _draw(axes, picture)
    handles = _legend(pictures)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns),
                  frameon=False)  # fmt: skip
    return figure


def methods(rows: Sequence[Row]) -> list[str]:
    """What was measured: the network first, then the baselines."""
    rivals = dict.fromkeys(
        column.removesuffix("_dice") for row in rows for column in row if column.endswith("_dice")
    )
    return [OURS, *rivals]


def _legend(pictures: Sequence[Picture]) -> list[Line2D]:
    """Handles of what the pictures show."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_TRUTH, lw=2, label="known"),
               Line2D([], [], color=_ANSWER, lw=2, label="answer")]  # fmt: skip
    if any(picture.box is not None for picture in pictures):
        handles.append(Line2D([], [], color=_BOX, lw=1.2, ls="--", label="box"))
    looks = (
        ("points", "click", {"ms": 9, "mec": _INK}),
        ("strokes", "stroke", {"ms": 7, "alpha": 0.6}),
    )
    for field, name, look in looks:
        given = np.concatenate([getattr(picture, field) for picture in pictures])
        for side, (marker, colour) in _SIDES.items():
            if (given[:, 2] == side).any():
                label = f"{name} {'inside' if side else 'outside'}"
                shape = marker if field == "points" else "s"
                handles.append(
                    Line2D([], [], ls="", marker=shape, color=colour, label=label, **look)
                )
    return handles


def _draw(axes: Axes, picture: Picture) -> None:
    rows, cols = _window(picture)
    axes.imshow(picture.image, cmap="gray", vmin=0, vmax=1, aspect=picture.aspect,
                interpolation="nearest")  # fmt: skip
    for mask, colour in ((picture.truth, _TRUTH), (picture.mask, _ANSWER)):
        if mask.any() and not mask.all():
            axes.contour(mask.astype(float), [0.5], colors=colour, linewidths=1.6)
    if picture.box is not None:
        y0, x0, y1, x1 = picture.box
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]) - 0.5
        axes.plot(*corners.T, color=_BOX, lw=1.2, ls="--")
    if len(picture.strokes):
        axes.imshow(_painted(picture), aspect=picture.aspect, interpolation="nearest")
    for number, (y, x, positive) in enumerate(picture.points, start=1):
        marker, colour = _SIDES[bool(positive)]
        axes.plot(x, y, marker, color=colour, mec=_INK, ms=10)
        axes.annotate(str(number), (x, y), ha="center", va="center_baseline", fontsize=7)
    axes.set(xlim=(cols[0] - 0.5, cols[1] - 0.5), ylim=(rows[1] - 0.5, rows[0] - 0.5))
    title = f"Dice {picture.dice:.3f}, {picture.where}\n{_shortened(picture.case)}"
    axes.set_title(title, fontsize=9, loc="left", pad=5)


def _painted(picture: Picture) -> np.ndarray:
    """(H, W, 4) colours of the strokes, clear elsewhere."""
    from matplotlib.colors import to_rgba

    canvas = np.zeros((*picture.image.shape, 4))
    for side, (_, colour) in _SIDES.items():
        places = picture.strokes[picture.strokes[:, 2] == side][:, :2].astype(int)
        canvas[tuple(places.T)] = to_rgba(colour, 0.6)
    return canvas


def _window(picture: Picture) -> tuple[tuple[float, float], tuple[float, float]]:
    """Rows and columns to show: both masks and the box with room, square in millimetres."""
    seen = picture.truth | picture.mask
    box = np.argwhere(seen)
    low, high = (box.min(0), box.max(0) + 1) if len(box) else (np.zeros(2), np.array(seen.shape))
    scale = np.array([picture.aspect, 1.0])
    side = float(((high - low) * scale).max()) * (1 + 2 * _ROOM)
    half = side / scale / 2
    middle = (low + high) / 2
    start = np.maximum(0, middle - half)
    stop = np.minimum(seen.shape, middle + half)
    return (start[0], stop[0]), (start[1], stop[1])


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _blank(width, height)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _blank(width: float, height: float) -> Figure:
    """A figure without pyplot, so that no window system and no global state is touched."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise FormatError("figures need matplotlib: pip install 'promptseg[train]'") from error
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=_PAD, h_pad=_PAD)
    return figure


def _box(
    axes: Axes, values: np.ndarray, at: float, width: float, colour: str, rng: np.random.Generator
) -> None:
    axes.boxplot(
        values, positions=[at], widths=width, showfliers=False, patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": colour, "alpha": 0.25, "edgecolor": colour},
        medianprops={"color": colour, "lw": 2},
        whiskerprops={"color": colour}, capprops={"color": colour},
    )  # fmt: skip
    scatter = rng.uniform(-width / 4, width / 4, len(values))
    axes.plot(at + scatter, values, ".", color=colour, ms=4, alpha=0.6)


def apart(heights: Sequence[float], least: float = 0.04) -> list[float]:
    """The same heights in the same order, moved so that texts at them do not overlap."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=lambda n: -placed[n])
    for above, below in pairwise(order):
        placed[below] = min(placed[below], placed[above] - least)
    return placed


def _readable(name: str) -> str:
    return name.replace("_", " ")


def _shortened(name: str, most: int = 44) -> str:
    """A name's beginning and, since that tells cases apart, more of its end."""
    return name if len(name) <= most else f"{name[: most // 4]}…{name[-(most - most // 4 - 1) :]}"


def _counted(count: int) -> str:
    return f"{count} case and label" if count == 1 else f"{count} cases and labels"
