"""Fit and show the Dice that answers are expected to have; writes weights/expected_dice.toml.

    OMP_NUM_THREADS=1 python benchmarks/expected_dice.py --out runs/expected_dice

Targets of benchmarks/targets.py and sets of breadth that were held out, each from a box and from
a click, through the volume and on one slice. The weights are fitted on the development half and
measured on the reporting half: mean error, bias, and rank correlation of the expected with the
Dice reached, beside the predicted overlap of slices that was given before. `reliability.png` shows
both halves. Every answer is a line in `--out`, those of targets a row in the files of targets.py; a
second call goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from table import ROWS, Row, Trial, thinned, trials_of
from targets import HALVES, measured, said

from promptseg.evaluate.metrics import dice
from promptseg.evaluate.playing import Player
from promptseg.evaluate.protocols import first_prompts as slice_prompts
from promptseg.io.atomic import atomic_path
from promptseg.predictor.expected_dice import (
    FILE,
    SIGNS,
    ExpectedDice,
    fit,
    write_expected_dice,
)
from promptseg.session import Segmenter
from promptseg.weights.assets import asset_dir

PROMPTS = ("box", "click")
SLICES = 150
COLOURS = {"said before": "#c77f1a", "expected Dice": "#0b6e99"}
Line = dict[str, object]


def volumes(segmenter: Segmenter, root: Path, half: str, file: Path) -> Iterator[Line]:
    """Whole targets from one prompt, out of the file of targets.py and into it."""
    for row in measured(segmenter, root, half, PROMPTS, file):
        if row["prompt"] in PROMPTS:
            yield {"name": row["target"], "kind": f"3d {row['kind']}", "signs": row["signs"],
                   "before": row["before"], "dice": row["dice"]}  # fmt: skip


def slices(segmenter: Segmenter, root: Path, half: str, done: set[str]) -> Iterator[Line]:
    """Slices of the sets of breadth that were held out."""
    for prompt in PROMPTS:
        row: Row = next(r for r in ROWS if r.name == f"{prompt}_{half}")
        row = replace(row, settings=replace(row.settings, against=()))
        trials: list[Trial] = thinned(list(trials_of(row, root)), SLICES)
        for n, trial in enumerate(trials):
            name = f"2d {prompt} {trial.case} {n}"
            if name in done:
                continue
            player = Player(segmenter, trial.task, "network")
            rng = np.random.default_rng(trial.task.seed)
            mask, _ = player.answer(list(slice_prompts(trial.task, row.settings, rng)))
            kind = f"2d {trial.case.split('__')[0]}"
            reached = float(dice(mask, trial.task.target))
            yield {"name": name, "kind": kind, **said(player), "dice": reached}


def collected(segmenter: Segmenter, root: Path, half: str, folder: Path, asked: Path) -> list[Line]:
    """All answers of one half that found something; asked where there is no line of them."""
    file, held = folder / f"{half}.jsonl", list[Line]()
    if file.is_file():
        held = [json.loads(text) for text in file.read_text().splitlines()]
    done = {str(one["name"]) for one in held}
    with file.open("a") as opened:
        for one in slices(segmenter, root, half, done):
            opened.write(json.dumps(one) + "\n")
            opened.flush()
            held.append(one)
    held += volumes(segmenter, root, half, asked / f"{half}.json")
    return [one for one in held if one["signs"] is not None]


def columns(held: list[Line]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(N, 8) signs, (N,) Dice, (N,) what was said before, (N,) weights: every kind alike."""
    kinds = [str(one["kind"]) for one in held]
    weight = np.array([1 / kinds.count(kind) for kind in kinds])
    arrays = (np.array([one[name] for one in held], float) for name in ("signs", "dice", "before"))
    found, reached, before = arrays
    return found, reached, before, weight * len(weight) / weight.sum()


def row_of(name: str, said: np.ndarray, reached: np.ndarray) -> str:
    """One line of the table."""
    error = said - reached
    return (f"| {name} | {len(said)} | {np.abs(error).mean():.3f} | {error.mean():+.3f} | "
            f"{(error > 0.2).mean():.2f} | {spearmanr(said, reached).statistic:.2f} |")  # fmt: skip


def table(fitted: ExpectedDice, halves: dict[str, list[Line]]) -> str:
    """Errors on both halves, of volumes and of slices."""
    lines = ["| answers | n | mean error | bias | more than 0.2 too high | rank correlation |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for half, held in halves.items():
        for dims in ("3d", "2d"):
            some = [one for one in held if str(one["kind"]).startswith(dims)]
            if len(some) < 3:
                continue
            found, reached, before, _ = columns(some)
            lines.append(row_of(f"{half}, {dims}: said before", before, reached))
            lines.append(row_of(f"{half}, {dims}: expected Dice", fitted(found), reached))
    return "\n".join(lines)


def draw(fitted: ExpectedDice, halves: dict[str, list[Line]], path: Path) -> None:
    """What was said against what was reached, one point an answer, and means of fifths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(halves), figsize=(9, 4.6), layout="constrained")
    for place, (half, held) in zip(np.atleast_1d(axes), halves.items(), strict=True):
        found, reached, before, _ = columns(held)
        place.plot([0, 1], [0, 1], color="#999999", linewidth=1, zorder=0)
        for name, told in (("said before", before), ("expected Dice", fitted(found))):
            place.scatter(told, reached, s=6, alpha=0.25, color=COLOURS[name], linewidths=0)
            fifths = np.array_split(np.argsort(told), 5)
            means = [(told[part].mean(), reached[part].mean()) for part in fifths]
            place.plot(*zip(*means, strict=True), "o-", color=COLOURS[name], label=name)
        place.set(title=f"{half} half, n = {len(held)}", xlabel="said", ylabel="Dice reached",
                  xlim=(0, 1), ylim=(0, 1))  # fmt: skip
        place.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png", metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    """Collect what is missing, fit, write, print and draw."""
    data = os.environ.get("PROMPTSEG_DATA", "../shared/data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--out", type=Path, default=Path("runs/expected_dice"))
    parser.add_argument(
        "--targets", type=Path, default=Path("runs/targets"), help="--out of targets.py"
    )
    parser.add_argument("--model", default="default", help="registry name or file")
    parser.add_argument("--write", type=Path, default=asset_dir("weights") / FILE)
    chosen = parser.parse_args()
    segmenter = Segmenter.from_pretrained(chosen.model, coarse="auto")
    digest = str(segmenter.backbone.spec.sha256)
    folder = chosen.out / digest[:12]
    for place in (folder, chosen.targets):
        place.mkdir(parents=True, exist_ok=True)
    halves = {
        half: collected(segmenter, chosen.data, half, folder, chosen.targets) for half in HALVES
    }
    found, reached, _, weight = columns(halves["development"])
    fitted = fit(found, reached, weight)
    about = f"Fitted on {len(found)} answers of the development half."
    write_expected_dice(chosen.write, digest, fitted, about)
    draw(fitted, halves, folder / "reliability.png")
    print(table(fitted, halves))
    print(", ".join(f"{n} {w:+.3f}" for n, w in zip(SIGNS, fitted.weights, strict=True)))


if __name__ == "__main__":
    main()
