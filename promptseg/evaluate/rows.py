"""What a report is made of: a row a case and label, and pictures of the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Picture:
    """A slice to look at.

    Args:
        case: Name of the case.
        where: Label and slice.
        image: (H, W) in [0, 1].
        truth: (H, W) bool.
        mask: (H, W) bool, the answer.
        aspect: Height of a pixel over its width.
        points: (N, 3) row, column and 1 for a foreground or 0 for a background click.
        strokes: (N, 3), the same of the pixels that were drawn on.
        box: First row and column, and one past the last; None without a box.
        dice: Sorts the pictures.
    """

    case: str
    where: str
    image: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    aspect: float
    points: np.ndarray
    strokes: np.ndarray
    box: tuple[float, float, float, float] | None
    dice: float


def click_columns(rows: Sequence[Row], prefix: str = "") -> list[str]:
    """Columns of Dice after each click, in order."""
    start = f"{prefix}dice_click_"
    found = {column for row in rows for column in row if column.startswith(start)}
    return sorted(found, key=lambda column: int(column.removeprefix(start)))
