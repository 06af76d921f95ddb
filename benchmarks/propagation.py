"""Print how far one box, or one every 20 slices, gets through a volume, and what is too much.

    python benchmarks/propagation.py --rows la --cases 3 --out runs/propagation

Rows: `la` one jittered box on the largest slice of left atrium 57-68; `la20` one every 20 slices;
`la_adapter` one box with `--adapter`; `acdc` the left ventricle of ACDC 71-80; `tune` and `tune20`
the same as `la` on six training cases, the only ones on which rules may be chosen. Every row is
run with every `--modes`: `auto`, `none`, `clean`, and `none` that never stops for want of presence
or quality (`no_presence`). Cases already in the JSON file of
`--out` with the same weights are not run again.

Over-propagation is the share of the organ's volume that is marked on slices beyond its ends;
"false" is all that is marked outside it, as a share of its volume.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.datasets.cohort import Case, Pair, case_name, load_cases
from promptseg.datasets.simulation.users import jittered_box
from promptseg.evaluate.metrics import dice, over_propagation
from promptseg.evaluate.protocols import box_prompts
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task, on_slice, volume_task
from promptseg.io.atomic import atomic_path
from promptseg.prompts.types import Box, Prompt
from promptseg.propagation.stopping import StopCriteria
from promptseg.session import Segmenter
from promptseg.volume.slicing import in_plane, take_slice

TUNING = (3, 12, 22, 34, 45, 53)
EVERY = 20
RULES = {"no_presence": StopCriteria(presence=-1.0, quality=-1.0)}
SWITCHES = ("auto", "none", "clean")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: For `--rows`.
        data: Folder of images and labels.
        label: Value of the organ.
        numbers: Cases by their number in sorted order, or patients of ACDC.
        every: Slices between two boxes; 0 for one box on the largest slice.
        adapter: True if the adapter of `--adapter` is used.
        least: Dice that must be reached, None on training cases.
    """

    name: str
    data: str
    label: int
    numbers: tuple[int, ...]
    every: int = 0
    adapter: bool = False
    least: float | None = None


HELD_BACK = tuple(range(57, 69))
ROWS = (
    Row("la", "left_atrium", 1, HELD_BACK, least=0.80),
    Row("la_adapter", "left_atrium", 1, HELD_BACK, adapter=True, least=0.88),
    Row("la20", "left_atrium", 1, HELD_BACK, every=EVERY, least=0.90),
    Row("la20_adapter", "left_atrium", 1, HELD_BACK, every=EVERY, adapter=True),
    Row("acdc", "acdc", 3, tuple(range(71, 81)), least=0.88),
    Row("tune", "left_atrium", 1, TUNING),
    Row("tune20", "left_atrium", 1, TUNING, every=EVERY),
    Row("tune_acdc", "acdc", 3, (3, 23, 43, 63)),
)


def pairs_of(row: Row, root: Path) -> list[Pair]:
    """Files of a row's cases."""
    images = sorted((root / row.data / "images").iterdir())
    pairs = [Pair(case_name(p), p, root / row.data / "labels" / p.name) for p in images]
    if row.data == "acdc":
        return [pair for pair in pairs if int(pair.name[7:10]) in row.numbers]
    return [pairs[number - 1] for number in row.numbers]


def prompts_of(task: Task, row: Row) -> list[Prompt]:
    """One jittered box on the largest slice, or one every so many slices from end to end."""
    settings = Settings(protocol="box", label=row.label)
    rng = np.random.default_rng(task.seed)
    if not row.every:
        return box_prompts(task, settings, rng)
    filled = np.flatnonzero(task.truth.any(in_plane(task.axis)))
    places = np.arange(filled[0] + min(row.every // 2, len(filled) // 2), filled[-1] + 1, row.every)
    return [box_on(task, int(index), rng, settings.jitter) for index in places
            if take_slice(task.truth, task.axis, int(index)).any()]  # fmt: skip


def box_on(task: Task, index: int, rng: np.random.Generator, jitter: float) -> Box:
    """A jittered box on one slice."""
    target = take_slice(task.truth, task.axis, index)
    x0, y0, x1, y1 = np.floor(jittered_box(target, rng, jitter) + 0.5).astype(int).tolist()
    height, width = target.shape
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    low = on_slice((y0, x0), task.axis, index)
    return Box(low, on_slice((max(y1, y0 + 1), max(x1, x0 + 1)), task.axis, index + 1))


def measured(segmenter: Segmenter, case: Case, row: Row, mode: str) -> dict[str, Any]:
    """Scores of one case."""
    task = volume_task(case, row.label, Settings(protocol="box", label=row.label))
    prompts = prompts_of(task, row)
    began = time.perf_counter()
    found, report = answered(segmenter, task, prompts, mode)
    seconds = time.perf_counter() - began
    truth, voxels = task.truth, max(int(task.truth.sum()), 1)
    return {
        "case": case.name, "dice": float(dice(found, truth)),
        "beyond": over_propagation(found, truth, task.axis),
        "false": int((found & ~truth).sum()) / voxels,
        "missed": int((truth & ~found).sum()) / voxels, "boxes": len(prompts),
        "seconds": seconds, "encoded": report["encoded_slices"], "decoded": report["decoded_masks"],
    }  # fmt: skip


def answered(
    segmenter: Segmenter, task: Task, prompts: list[Prompt], mode: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """(I, J, K) bool mask of a mode, and the session's report."""
    switch = mode if mode in SWITCHES else "none"
    session = segmenter.session(task.volume, task.axis, task.window, switch, RULES.get(mode))
    session.add(*prompts)
    result = session.propagate()
    return result.data > 0, result.report


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """Means over the cases of every row and mode."""
    lines = [
        "| row | mode | n | 3D Dice | at least | beyond the ends | false | missed | seconds "
        "| encoded | decoded |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    least = {row.name: row.least for row in ROWS}
    for key, cases in results.items():
        name, mode = key.split()
        mean = {k: float(np.mean([c[k] for c in cases.values()])) for k in
                ("dice", "beyond", "false", "missed", "seconds", "encoded", "decoded")}  # fmt: skip
        wanted = "-" if least[name] is None else f"{least[name]:.2f}"
        lines.append(
            f"| {name} | {mode} | {len(cases)} | **{mean['dice']:.3f}** | {wanted} | "
            f"{mean['beyond']:.1%} | {mean['false']:.1%} | {mean['missed']:.1%} | "
            f"{mean['seconds']:.1f} | {mean['encoded']:.0f} | {mean['decoded']:.0f} |"
        )
    return "\n".join(lines)


def earlier(out: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Cases measured before with the same weights."""
    file = out / "propagation.json"
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return content["rows"] if content["about"] == about else {}


def save(results: dict[str, Any], out: Path, about: dict[str, Any]) -> None:
    """Write `propagation.json` and `propagation.md`."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "propagation.json") as path:
        path.write_text(json.dumps({"about": about, "rows": results}, indent=1) + "\n")
    with atomic_path(out / "propagation.md") as path:
        path.write_text(markdown(results) + "\n")


def main() -> None:
    """Measure case by case, write after each of them, print the table."""
    data = os.environ.get("PROMPTSEG_DATA", "../shared/data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--model", default="default", help="registry name or file")
    parser.add_argument("--adapter", help="name or folder, for the rows that end in `_adapter`")
    parser.add_argument("--rows", nargs="+", metavar="NAME", choices=[r.name for r in ROWS])
    parser.add_argument("--modes", nargs="+", default=["auto", "none"], choices=[*SWITCHES, *RULES])
    parser.add_argument("--cases", type=int, help="at most so many of each row")
    parser.add_argument("--out", type=Path, default=Path("runs/propagation"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    chosen = parser.parse_args()
    wanted = chosen.rows or ["la", "la20", "acdc", *(["la_adapter"] if chosen.adapter else [])]
    rows = [row for row in ROWS if row.name in wanted]
    if any(row.adapter for row in rows) and chosen.adapter is None:
        parser.error("the rows that end in `_adapter` need --adapter")
    segmenter = Segmenter.from_pretrained(
        chosen.model, chosen.adapter, device=chosen.device, precision=chosen.precision
    )
    adapter = segmenter.adapters.signature
    about = {"sha256": segmenter.backbone.spec.sha256, "adapter": adapter,
             "precision": segmenter.precision, "device": str(segmenter.device)}  # fmt: skip
    results = earlier(chosen.out, about)
    name = segmenter.adapters.names[0] if chosen.adapter else None
    for row in rows:
        segmenter.adapters.use(name if row.adapter else None)
        for pair in pairs_of(row, chosen.data)[: chosen.cases]:
            case = next(load_cases([pair]))
            for mode in chosen.modes:
                held = results.setdefault(f"{row.name} {mode}", {})
                if pair.name in held:
                    continue
                held[pair.name] = found = measured(segmenter, case, row, mode)
                save(results, chosen.out, about)
                print(f"{row.name} {mode} {pair.name}: Dice {found['dice']:.3f}, beyond "
                      f"{found['beyond']:.1%}, {found['seconds']:.1f} s", flush=True)  # fmt: skip
    print(markdown({k: v for k, v in results.items() if v}))


if __name__ == "__main__":
    main()
