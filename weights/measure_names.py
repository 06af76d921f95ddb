"""What words alone find in images that were held back: Dice by set, of every class that is there.

    OMP_NUM_THREADS=1 python weights/measure_names.py --out runs/names
    OMP_NUM_THREADS=1 python weights/measure_names.py --out runs/names --own   # no adapter answers

Two volumes of chaos_mr and two images of each of `sources.NAMED_SETS`. Words are the data sets' own
class names, as the vocabulary has them. A class that is there and not answered counts 0; one that
no adapter and no token can name is said to be unknown and counts 0 too. Of a picture it is said
whether it is CT or MR, which its file does not tell.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import promptseg as ps
from promptseg.adapters.own_names import own_adapter
from promptseg.datasets.breadth import read_manifest
from promptseg.datasets.cohort import Case, Pair, load_cases
from promptseg.errors import PromptError
from promptseg.evaluate.metrics import dice
from promptseg.io.atomic import atomic_path
from sources import HELD_PATIENTS, NAMED_HELD, NAMED_SETS, concept_name

ORGANS = "chaos_mr"


@dataclass(frozen=True)
class Asked:
    """An image and what its labels are called."""

    group: str
    case: Case
    names: dict[int, str]


def asked(root: Path) -> Iterator[Asked]:
    """Everything that is asked for by name."""
    about = json.loads((root / "breadth3d/manifest.json").read_text())[ORGANS]
    names = {int(k): concept_name(v) for k, v in about["classes"].items() if k.isdigit()}
    folder = root / "breadth3d" / ORGANS
    pairs = [
        Pair(patient, folder / f"images/{patient}.nii.gz", folder / f"labels/{patient}.nii.gz")
        for patient in HELD_PATIENTS[ORGANS]
    ]
    yield from (Asked(ORGANS, case, names) for case in load_cases(pairs))
    manifest = read_manifest(root)
    for group in NAMED_SETS:
        known = manifest[group]
        names = {int(k): concept_name(v, known["body"]) for k, v in known["classes"].items()}
        images = sorted((root / "breadth" / group / "images").iterdir())[-NAMED_HELD:]
        masks = root / "breadth" / group / "masks"
        pairs = [Pair(f.stem, f, masks / f"{f.stem}.png") for f in images]
        for case in load_cases(pairs):
            said = replace(case.volume, modality=known["group"])
            yield Asked(group, replace(case, volume=said), names)


def measured(segmenter: ps.Segmenter, one: Asked) -> Iterator[dict[str, object]]:
    """One row a class that is in the image."""
    for label in np.intersect1d(one.case.labels, list(one.names)):
        words, truth = one.names[int(label)], one.case.labels == label
        row: dict[str, object] = {"set": one.group, "case": one.case.name, "words": words}
        try:
            found = segmenter.segment(one.case.volume, [ps.Text(words)]).data > 0
        except PromptError:
            yield {**row, "dice": 0.0, "unknown": True}
            continue
        yield {**row, "dice": float(dice(found, truth)), "unknown": False}


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: mean Dice of each set, how many classes were found, how many are unknown."""
    lines = ["| set | n | Dice | found (at least 0.5) | unknown words |", "|---|---|---|---|---|"]
    for group in dict.fromkeys(row["set"] for row in rows):
        held = [row for row in rows if row["set"] == group]
        scores = np.array([row["dice"] for row in held], float)
        unknown = sum(bool(row["unknown"]) for row in held)
        lines.append(
            f"| {group} | {len(held)} | {scores.mean():.3f} | {(scores >= 0.5).sum()} | {unknown} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="default", help="registry name or file")
    parser.add_argument("--own", action="store_true", help="the model's own names, no adapter")
    parser.add_argument("--out", type=Path, default=Path("runs/names"))
    chosen = parser.parse_args()
    segmenter = ps.Segmenter.from_pretrained(chosen.model)
    if chosen.own:
        own = own_adapter(segmenter.backbone)
        if own is None:
            raise SystemExit(f"{chosen.model} knows no names of its own")
        segmenter.adapters.add(own)
        segmenter.adapters.use(own.name)
    rows: list[dict[str, object]] = []
    for one in asked(chosen.data):
        for row in measured(segmenter, one):
            rows.append(row)
            print(f"{row['set']:20} {row['case']:24} {row['words']:28} {row['dice']:.3f}"
                  f"{' unknown' if row['unknown'] else ''}", flush=True)  # fmt: skip
    print(table(rows))
    chosen.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(chosen.out / "names.json") as path:
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
