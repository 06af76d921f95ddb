"""Dice of every organ that the anatomy adapter is asked for by name alone.

    python adapters/anatomy/measure.py ../shared/data/totalsegmentator --adapter runs/anatomy \
        --without ct=runs/without_ct --without mr=runs/without_mr -o runs/anatomy.json

`--adapter` is trained on all three volumes and measured on them; each `--without` on the two
others (prepare.py --without) and measured on the one that it never saw. Each organ is asked for
with no other prompt, on the volume as its file lies. Rows that the file of a run before holds for
the same adapter are not computed again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from prepare import SOURCES, source_of

import promptseg as ps
from promptseg.evaluate.metrics import dice
from promptseg.io.atomic import atomic_path

RECOGNISED, LEAST_VOXELS, SEEN = 0.5, 200, "trained on"


@dataclass(frozen=True)
class Row:
    """One organ in one volume.

    Args:
        adapter: Digest of the adapter.
        volume: One of `SOURCES`.
        role: `trained on` or `left out`.
        organ: The words that were given.
        truth: Voxels in the labels; 0 where the volume ends before the organ.
        found: Voxels of the answer.
        dice: Of the whole volume; 1 where both are empty.
    """

    adapter: str
    volume: str
    role: str
    organ: str
    truth: int
    found: int
    dice: float

    @property
    def verdict(self) -> str:
        """What happened, in words."""
        if self.truth < LEAST_VOXELS:
            return "rightly absent" if not self.found else "not there, but answered"
        if not self.found:
            return "said to be absent"
        return "recognised" if self.dice >= RECOGNISED else "wrong"


def measured(folder: Path, data: Path, volumes: Sequence[str], role: str, rows: list[Row]) -> str:
    """Add a row for each organ in each volume, unless it is there; the adapter's digest."""
    segmenter = ps.Segmenter.from_pretrained("default", adapter=str(folder))
    adapter = segmenter.adapters.active
    if adapter is None:
        raise SystemExit(f"{folder} was not loaded")
    have = {(row.adapter, row.volume, row.organ) for row in rows}
    for volume in volumes:
        asked = {n: words for n, words in adapter.info.labels.items()
                 if (adapter.digest, volume, words) not in have}  # fmt: skip
        if not asked:
            continue
        image, labels = source_of(data, volume)
        session = segmenter.session(image)
        for number, words in asked.items():
            session.add(ps.Text(words))
            answer = session.propagate().data > 0
            session.undo()
            truth = np.asarray(labels.data) == number
            row = Row(adapter.digest, volume, role, words, int(truth.sum()), int(answer.sum()),
                      round(dice(answer, truth), 4))  # fmt: skip
            rows.append(row)
            print(f"{volume:6} {role:10} {words:20} Dice {row.dice:.3f}  {row.verdict}", flush=True)
    return adapter.digest


def summary(rows: Sequence[Row]) -> str:
    """A table: organs down, volumes across, and how many organs are recognised."""
    columns = list(dict.fromkeys((row.volume, row.role) for row in rows))
    cells = {(row.organ, row.volume, row.role): row for row in rows}
    lines = ["| organ | " + " | ".join(f"{v}, {role}" for v, role in columns) + " |",
             "|---|" + "---|" * len(columns)]  # fmt: skip
    for organ in dict.fromkeys(row.organ for row in rows):
        held = [cells.get((organ, *column)) for column in columns]
        lines.append(f"| {organ} | " + " | ".join(map(shown, held)) + " |")
    for role in dict.fromkeys(role for _, role in columns):
        there = [row for row in rows if row.role == role and row.truth >= LEAST_VOXELS]
        names = {row.organ for row in there if row.verdict == "recognised"}
        every = {row.organ for row in there}
        gone = [row for row in rows if row.role == role and row.truth < LEAST_VOXELS]
        right = sum(row.verdict == "rightly absent" for row in gone)
        mean = np.mean([row.dice for row in there])
        lines.append(
            f"{role}: mean Dice {mean:.3f} over {len(there)} organs in volumes; "
            f"{sum(row.verdict == 'recognised' for row in there)} of them recognised (Dice at "
            f"least {RECOGNISED}), {len(names)} of {len(every)} organs in some volume; rightly "
            f"absent {right} of {len(gone)}"
        )
    return "\n".join(lines)


def shown(row: Row | None) -> str:
    """One cell of the table."""
    if row is None:
        return "not asked"
    return row.verdict if row.truth < LEAST_VOXELS or not row.found else f"{row.dice:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder totalsegmentator")
    parser.add_argument("--adapter", type=Path, help="adapter trained on all volumes")
    parser.add_argument("--without", action="append", default=[], metavar="VOLUME=ADAPTER",
                        help="adapter that never saw a volume")  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON of all rows")
    options = parser.parse_args(arguments)
    jobs = [(options.adapter, tuple(SOURCES), SEEN)] if options.adapter else []
    for pair in options.without:
        volume, equals, folder = pair.partition("=")
        if not equals or volume not in SOURCES:
            parser.error(f"--without {pair}: give one of {', '.join(SOURCES)}, =, and a folder")
        jobs.append((Path(folder), (volume,), "left out"))
    rows = [Row(**r) for r in json.loads(options.out.read_text())] if options.out.exists() else []
    used: set[str] = set()
    for folder, volumes, role in jobs:
        used.add(measured(folder, options.data, volumes, role, rows))
        with atomic_path(options.out) as temporary:
            temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(summary([row for row in rows if row.adapter in used]))


if __name__ == "__main__":
    main(sys.argv[1:])
