"""A table of methods: one trained network a line, each kept as a file of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptseg.evaluate.metrics import dice, hd95
from promptseg.finetune.organ_case import OrganCase
from promptseg.io.atomic import atomic_path

Line = dict[str, Any]


def centred(case: OrganCase, share: float) -> OrganCase:
    """The same, looked at in the middle `share` of its sides."""
    middle, half = (case.body[:2] + case.body[2:]) / 2, (case.body[2:] - case.body[:2]) / 2 * share
    return replace(case, body=np.concatenate([middle - half, middle + half]).astype(np.float32))


def case_scores(
    found: NDArray[np.integer], known: NDArray[np.integer], places: Sequence[int]
) -> dict[int, dict[str, float]]:
    """Dice, and HD95 in voxels, of each label of a case.

    Args:
        found: (N, H, W) 0, or 1 + place of a label.
        known: The same of the truth.
        places: Of the labels.
    """
    return {
        place: {
            "dice": dice(found == place + 1, known == place + 1),
            "hd95_voxels": hd95(found == place + 1, known == place + 1, (1.0, 1.0, 1.0)),
        }
        for place in places
    }


def summary(scores: Sequence[Mapping[int, Mapping[str, float]]]) -> dict[str, Any]:
    """Means over cases and labels, and by label; distances over finite ones."""
    places = sorted({place for case in scores for place in case})
    by_label = {str(p + 1): _means([case[p] for case in scores]) for p in places}
    every = _means([case[p] for case in scores for p in places])
    return {**every, "n": len(scores), "labels": by_label}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    dices = [row["dice"] for row in rows]
    far = [row["hd95_voxels"] for row in rows if np.isfinite(row["hd95_voxels"])]
    return {
        "dice": float(np.mean(dices)),
        "dice_std": float(np.std(dices)),
        "hd95_voxels": float(np.mean(far)) if far else None,
    }


def run_lines(
    out: Path, names: Iterable[str], make: Callable[[str], Line], about: Mapping[str, Any]
) -> list[Line]:
    """Make the lines that are missing and give all of them, printing each.

    Args:
        out: Folder with one JSON file a line.
        names: Of the lines, in order.
        make: Trains and measures one.
        about: Goes into every line; lines made with other values are refused.

    Raises:
        SystemExit: A line was made with other options.
    """
    lines = []
    for name in names:
        file = out / f"{name}.json"
        if file.is_file():
            line = json.loads(file.read_text(encoding="utf-8"))
            differing = [key for key in about if line.get(key) != about[key]]
            if differing:
                key = differing[0]
                raise SystemExit(f"{file} was made with {key} {line.get(key)}, not {about[key]}: "
                                 "give another --out")  # fmt: skip
        else:
            line = {"name": name, **about, **make(name)}
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")
        print(shown(line), flush=True)
        lines.append(line)
    return lines


def shown(line: Line) -> str:
    """One line of the table."""
    labels = "  ".join(f"{k} {v['dice']:.3f}" for k, v in line["labels"].items())
    far = line.get("hd95_voxels")
    distance = "" if far is None else f"  HD95 {far:.1f} voxels"
    return (f"{line['name']:28s} Dice {line['dice']:.4f}  {labels}{distance}  "
            f"{line['steps']} steps, {line['n']} cases")  # fmt: skip
