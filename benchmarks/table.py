"""Print the table of prompts and data sets that the default model is judged by.

    python benchmarks/table.py --rows acdc left_atrium --limit 5 --out runs/table

Every row is a prompt on a part of ../shared/data that no training has seen, beside an ellipse in
the same box, GrabCut and the random walker on the same prompts. `--rows` takes the starts of row
names and `--limit` bounds the slices of a row, so that the table can be made in parts: rows
already in the JSON file of `--out` stay, and the table printed is that of all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.datasets.breadth import halves, read_manifest
from promptseg.datasets.cohort import (
    Case,
    Pair,
    case_name,
    load_cases,
    present_labels,
    read_image,
    read_labels,
)
from promptseg.datasets.strokes import read_strokes
from promptseg.evaluate.playing import play
from promptseg.evaluate.scores import Scores, finite_mean, trial_scores
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task, slice_tasks, volume_task
from promptseg.io.atomic import atomic_path
from promptseg.session import Segmenter

RIVALS = ("ellipse", "grabcut", "random_walker")
Source = Callable[[Path], Iterator[Case]]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: For `--rows`.
        prompt: As the table says it.
        data: As the table says it.
        source: Gives the cases that were held back.
        settings: Protocol and options.
        least: Dice that must be reached.
        aim: Dice that is hoped for.
        column: Score that counts, of `trial_scores`.
        by_set: True to average within each data set first: what a case's name begins with.
    """

    name: str
    prompt: str
    data: str
    source: Source
    settings: Settings
    least: float
    aim: float
    column: str = "dice"
    by_set: bool = False


def pairs_of(images: Path, labels: Path) -> list[Pair]:
    """Files of a known folder in sorted order; read, and so checked, one at a time."""
    return [Pair(case_name(p), p, labels / p.name) for p in sorted(images.iterdir())]


def acdc(root: Path) -> Iterator[Case]:
    """Patients 71 to 80."""
    pairs = pairs_of(root / "acdc/images", root / "acdc/labels")
    return load_cases([p for p in pairs if 71 <= int(p.name[7:10]) <= 80])


def left_atrium(root: Path) -> Iterator[Case]:
    """Cases 57 to 68 in sorted order."""
    return load_cases(pairs_of(root / "left_atrium/images", root / "left_atrium/labels")[56:68])


def hippocampus(root: Path) -> Iterator[Case]:
    """Cases from 161 on in sorted order; both labels."""
    return load_cases(pairs_of(root / "hippocampus/images", root / "hippocampus/labels")[160:])


def sarcoma(root: Path) -> Iterator[Case]:
    """The target of STS_005 on its T1."""
    folder = root / "sarcoma/STS_005"
    return load_cases([Pair("STS_005", folder / "mr_t1.nii.gz", folder / "mr_t1_gtv.nii.gz")])


def brats(root: Path) -> Iterator[Case]:
    """The whole tumour of one patient on FLAIR."""
    folder = root / "brats/brats_2013_pat0005_1"
    pair = Pair("pat0005", folder / "flair.nii.gz", folder / "labels.nii.gz")
    whole = next(load_cases([pair]))
    yield replace(whole, labels=(whole.labels > 0).astype(np.uint8))


def pictures(name: str) -> Source:
    """The files of a set in `2d` that its split.json holds back."""

    def held_back(root: Path) -> Iterator[Case]:
        split = json.loads((root / "2d/split.json").read_text(encoding="utf-8"))[name]
        folder = root / "2d" / name
        files = sorted(split["held_back"])
        return load_cases([Pair(Path(f).stem, folder / "images" / f, folder / "masks" / f)
                           for f in files])  # fmt: skip

    return held_back


def breadth(half: int) -> Source:
    """The CT and MR sets of `breadth` held out from training: 0 to choose on, 1 to report on."""

    def held_out(root: Path) -> Iterator[Case]:
        manifest = read_manifest(root)
        for name in (*halves(manifest, "CT")[half], *halves(manifest, "MR")[half]):
            folder = root / "breadth" / name
            for image in sorted((folder / "images").iterdir()):
                mask = folder / "masks" / f"{image.stem}.png"
                yield from load_cases([Pair(f"{name}__{image.stem}", image, mask)])

    return held_out


def medscribble(root: Path) -> Iterator[Case]:
    """All 28 cases; the strokes of three people belong to each."""
    for folder in sorted((root / "medscribble").iterdir()):
        if (folder / "mask.png").is_file():
            known = (read_labels(folder / "mask.png").data > 0).astype(np.uint8)
            yield Case(folder.name, read_image(folder / "image.png"), known)


BOX = Settings(protocol="box", label=1, against=RIVALS)
CLICK = Settings(protocol="point", label=3, against=RIVALS)
FIVE = Settings(protocol="clicks", clicks=5, label=1, against=RIVALS)
HUMAN = Settings(protocol="scribble", label=1, against=RIVALS)
TIGHT, SAME = "tight box with 5 % jitter", "the same"
ROWS = (
    Row("acdc_lv", TIGHT, "ACDC left ventricle", acdc, replace(BOX, label=3), 0.94, 0.96),
    Row("acdc_rv", SAME, "ACDC right ventricle", acdc, BOX, 0.88, 0.93),
    Row("acdc_myo", SAME, "ACDC myocardium", acdc, replace(BOX, label=2), 0.83, 0.89),
    Row("left_atrium_box", SAME, "left atrium (unseen organ)", left_atrium, BOX, 0.85, 0.92),
    Row("hippocampus", SAME, "hippocampus", hippocampus, replace(BOX, label=None), 0.80, 0.84),
    Row("sarcoma", SAME, "sarcoma target on T1", sarcoma, BOX, 0.85, 0.89),
    Row("liver_ct", SAME, "liver_ct", pictures("liver_ct"), BOX, 0.88, 0.92),
    Row("chest_xray", SAME, "chest_xray", pictures("chest_xray"), BOX, 0.93, 0.97),
    Row("fetal_head_us", SAME, "fetal_head_us", pictures("fetal_head_us"), BOX, 0.93, 0.97),
    Row("brats", SAME, "brats whole tumour on FLAIR", brats, BOX, 0.85, 0.92),
    Row("click_acdc_lv", "one centre click, best of three", "ACDC left ventricle", acdc, CLICK,
        0.85, 0.92, "best_candidate"),
    Row("click_chosen_lv", "one centre click, the most trusted of three", "ACDC left ventricle",
        acdc, CLICK, 0.85, 0.92),
    Row("left_atrium_clicks", "five simulated clicks", "left atrium (unseen organ)", left_atrium,
        FIVE, 0.85, 0.93),
    Row("medscribble", "human scribbles, three people", "medscribble, mean over its six sets",
        medscribble, HUMAN, 0.70, 0.85, by_set=True),
    *(Row(f"{name}_{half}", prompt, f"breadth held out, {half} sets", breadth(n),
          replace(settings, label=None), 0.0, 0.0, by_set=True)
      for n, half in enumerate(("development", "reporting"))
      for name, prompt, settings in (("box", TIGHT, BOX), ("click", "one centre click", CLICK),
                                     ("clicks", "five simulated clicks", FIVE))),
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One slice or stroke to be answered.

    Args:
        case: Name of its case.
        task: The slice.
    """

    case: str
    task: Task


def trials_of(row: Row, root: Path) -> Iterator[Trial]:
    """Every slice of a row, label by label; with human strokes, once for each person."""
    settings = row.settings
    for case in row.source(root):
        present = present_labels(case.labels)
        for label in present if settings.label is None else {settings.label} & set(present):
            people: list[Any] = [None]
            if settings.protocol == "scribble":
                people = list(read_strokes(root / "medscribble", case, label))
            for strokes in people:
                whole = volume_task(case, label, settings, strokes)
                yield from (Trial(case.name, task) for task in slice_tasks(whole, settings))


def thinned(tasks: list[Trial], limit: int | None) -> list[Trial]:
    """At most `limit` slices, evenly spread over the cases."""
    if limit is None or limit >= len(tasks):
        return tasks
    return [tasks[n] for n in np.linspace(0, len(tasks) - 1, limit).round().astype(int)]


def measured(row: Row, segmenter: Segmenter, root: Path, limit: int | None) -> dict[str, Any]:
    """Mean Dice of one row over its slices, and of the baselines on the same prompts."""
    began = time.perf_counter()
    trials = thinned(list(trials_of(row, root)), limit)
    scores: dict[str, list[Scores]] = {}
    for trial in trials:
        group = trial.case.split("__")[0] if row.by_set else "all"
        played = play(segmenter, trial.task, row.settings)
        scores.setdefault(group, []).append(trial_scores(played, row.settings))
    result: dict[str, Any] = {
        "name": row.name, "prompt": row.prompt, "data": row.data, "least": row.least,
        "aim": row.aim, "n": len(trials), "cases": len({t.case for t in trials}),
    }  # fmt: skip
    for name in ("ours", *RIVALS):
        column = row.column if name == "ours" else f"{name}_dice"
        groups = {
            g: finite_mean(s.get(column, np.nan) for s in found) for g, found in scores.items()
        }
        mean = finite_mean(groups.values())
        result[name] = mean if np.isfinite(mean) else None
        if name == "ours" and len(groups) > 1:
            result["groups"] = groups
    answers = [s["seconds_per_click"] for found in scores.values() for s in found]
    result |= {"seconds": time.perf_counter() - began, "seconds_an_answer": finite_mean(answers)}
    return result


def markdown(results: list[dict[str, Any]]) -> str:
    """The table; a row is reached if it is at least what is asked and beats every baseline."""
    lines = [
        "| prompt | data | n | promptseg | at least | aim | ellipse | GrabCut | random walker "
        "| reached |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in results:
        rivals = [found[name] for name in RIVALS]
        best = max((value for value in rivals if value is not None), default=0.0)
        ours = found["ours"]
        reached = "yes" if ours >= found["least"] and ours > best else "no"
        shown = " | ".join(_number(value) for value in rivals)
        lines.append(
            f"| {found['prompt']} | {found['data']} | {found['n']} | **{_number(ours)}** | "
            f"{found['least']:.2f} | {found['aim']:.2f} | {shown} | {reached} |"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def load(model: str, device: str, precision: Any) -> Segmenter:
    """A model of the registry, or a file of the default network."""
    return Segmenter.from_pretrained(model, device=device, precision=precision)


def save(results: dict[str, dict[str, Any]], out: Path, about: dict[str, Any]) -> None:
    """Write `table.json` and `table.md`, rows in the order of the table."""
    ordered = [results[row.name] for row in ROWS if row.name in results]
    with atomic_path(out / "table.json") as path:
        path.write_text(json.dumps({**about, "rows": ordered}, indent=2) + "\n", encoding="utf-8")
    with atomic_path(out / "table.md") as path:
        path.write_text(markdown(ordered) + "\n", encoding="utf-8")


def earlier(out: Path, sha256: str | None) -> dict[str, dict[str, Any]]:
    """Rows measured before with the same weights."""
    file = out / "table.json"
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return {r["name"]: r for r in content["rows"]} if content["sha256"] == sha256 else {}


def main() -> None:
    """Measure the chosen rows, write after each of them, print the whole table."""
    data = os.environ.get("PROMPTSEG_DATA", "../shared/data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--model", default="default", help="registry name or file")
    parser.add_argument("--rows", nargs="+", metavar="START", help="starts of row names")
    parser.add_argument("--limit", type=int, help="slices a row, spread over its cases")
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    chosen = parser.parse_args()
    rows = [r for r in ROWS if not chosen.rows or r.name.startswith(tuple(chosen.rows))]
    if not rows:
        parser.error(f"--rows {chosen.rows}: use starts of {', '.join(r.name for r in ROWS)}")
    segmenter = load(chosen.model, chosen.device, chosen.precision)
    sha256 = segmenter.backbone.spec.sha256
    results = earlier(chosen.out, sha256)
    about = {"model": segmenter.backbone.spec.name, "sha256": sha256, "limit": chosen.limit,
             "precision": segmenter.precision, "device": str(segmenter.device)}  # fmt: skip
    for row in rows:
        found = results[row.name] = measured(row, segmenter, chosen.data, chosen.limit)
        save(results, chosen.out, about)
        print(f"{row.name}: {found['ours']:.3f} in {found['seconds']:.0f} s", flush=True)
    print(markdown([results[row.name] for row in ROWS if row.name in results]))


if __name__ == "__main__":
    main()
