"""What an evaluation found: rows by case and label, a summary, and their files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.errors import FormatError
from promptseg.evaluate.figures import save_figures
from promptseg.evaluate.rows import Picture, Row, click_columns
from promptseg.evaluate.scores import CURVES, QUALITY, finite_mean
from promptseg.io.atomic import atomic_path

KEYS = ("case", "label", "n_slices")
OTHERS = ("revision_degree", "over_propagation", "seconds", "seconds_per_click", "prompts")
MEANINGS = {
    "dice_auc": "trapezoid over Dice after clicks 1 to N, N - 1 at best (DSC_AUC, CVPR 2025 "
    "interactive 3D biomedical segmentation challenge)",
    "nsd_auc": "the same of the surface Dice at 2 mm, 0 where Dice is at most 0.2 (NSD_AUC)",
    "dice_mean_of_clicks": "mean of Dice after clicks 1 to N, 1 at best",
    "noc85": "clicks to reach Dice 0.85, N if it is not reached",
    "noc90": "clicks to reach Dice 0.90, N if it is not reached",
}
"""What the columns of clicks mean, as summary.json says."""


@dataclass(frozen=True)
class Report:
    """Result of `promptseg.evaluate`.

    Args:
        rows: One a case and label; the keys are the columns of `cases.csv`.
        settings: How it was asked for, and with which model.
        worst: Pictures of the worst rows.
    """

    rows: list[Row]
    settings: dict[str, Any] = field(default_factory=dict)
    worst: list[Picture] = field(default_factory=list, repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """Content of `summary.json`; see `summarise` and, for the columns of clicks, `MEANINGS`."""
        found = summarise(self.rows)
        meanings = {"meanings": MEANINGS} if "dice_auc" in found else {}
        return {**found, **meanings, "settings": self.settings}

    def save(self, folder: str | os.PathLike[str], figures: bool = True) -> None:
        """Write `cases.csv`, `summary.json` and, with `figures`, pictures into a folder.

        Raises:
            FormatError: A file cannot be written, or matplotlib is not installed.
        """
        folder = Path(folder)
        try:
            with atomic_path(folder / "cases.csv") as path:
                write_rows(self.rows, path)
            with atomic_path(folder / "summary.json") as path:
                text = json.dumps(self.summary, indent=2, ensure_ascii=False, allow_nan=False)
                path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise FormatError(f"{folder}: cannot be written: {error.strerror or error}") from error
        if figures:
            save_figures(self.rows, self.worst, folder)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over rows, by label and for every baseline.

    Each measure is `{"mean", "std", "n"}`: over the rows in which it is finite (a distance to
    an empty mask is not), with the standard deviation of those rows (divided by n). A mean of
    no row is None.
    """
    rivals = dict.fromkeys(
        column.removesuffix("_dice") for row in rows for column in row if column.endswith("_dice")
    )
    content = _table(rows, "")
    content["labels"] = {
        str(label): _table([row for row in rows if row["label"] == label], "")
        for label in sorted({row["label"] for row in rows})
    }
    if rivals:
        content["against"] = {
            name: {
                **_table(rows, f"{name}_"),
                "labels": {
                    str(label): _table([r for r in rows if r["label"] == label], f"{name}_")
                    for label in sorted({row["label"] for row in rows})
                },
            }
            for name in rivals
        }
    return content


def _table(rows: Sequence[Row], prefix: str) -> dict[str, Any]:
    """Measures of the columns that start with `prefix`, without it."""
    present = {column for row in rows for column in row}
    measures = (*QUALITY, *OTHERS) if not prefix else QUALITY
    table: dict[str, Any] = {
        name: spread([row.get(prefix + name, np.nan) for row in rows])
        for name in measures
        if prefix + name in present
    }
    clicks = click_columns(rows, prefix)
    if clicks:
        after = [name for name in clicks if not name.endswith("_click_0")]
        table["dice_per_click"] = [_plain(_mean(rows, name)) for name in after]
        if len(after) < len(clicks):
            table["dice_click_0"] = _plain(_mean(rows, clicks[0]))
        table |= {name: _plain(_mean(rows, prefix + name)) for name in CURVES}
    return table


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """Mean, standard deviation and count of the finite values."""
    finite = np.array([value for value in values if np.isfinite(value)], dtype=np.float64)
    if not finite.size:
        return {"mean": None, "std": None, "n": 0}
    return {"mean": float(finite.mean()), "std": float(finite.std()), "n": int(finite.size)}


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV; what is not defined stays empty."""
    columns = ordered_columns(rows)
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})


def ordered_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns of all rows: the fixed ones first, then those of clicks, then those of baselines."""
    present = dict.fromkeys(column for row in rows for column in row)
    fixed = [name for name in (*KEYS, *QUALITY, *OTHERS) if name in present]
    return fixed + [name for name in present if name not in fixed]


def _mean(rows: Sequence[Row], column: str) -> float:
    return finite_mean(row.get(column, np.nan) for row in rows)


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and not np.isfinite(value) else value
