"""Fit and show the calibration of uncertainty maps; writes weights/calibration.toml.

    OMP_NUM_THREADS=2 python benchmarks/calibration.py --out runs/calibration

Held-back cases of the training's data sets (ACDC 71-80, hippocampus 161-200) are segmented from
one jittered box on the largest slice, propagated, with every source of uncertainty. Of each
target voxels are drawn from the box around all that any member marked. Platt scaling of the
members' mean probability is fitted by least negative log likelihood, each target counting the
same. The figures "after" are cross-validated over patients; the constants come from all, and
are 1 and 0 where the cross-validated log loss is not lower. Prints a table by source and in all,
and draws `reliability.png` in `--out`. `--check` measures the constants on data that they were
not fitted on, and changes nothing.

Every target is a file in `--out`; a second call goes on with those that are missing. About three
minutes on two cores. Data are in ../shared/data or $PROMPTSEG_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from promptseg.adapters.stack import base_digest
from promptseg.datasets.cohort import Pair
from promptseg.evaluate.protocols import box_prompts
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task, volume_task
from promptseg.io.atomic import atomic_path
from promptseg.predictor.uncertainty import Calibration
from promptseg.predictor.uncertainty.asking import shares
from promptseg.predictor.uncertainty.calibration import (
    FILE,
    Reliability,
    fit,
    logit,
    reliability,
    write_calibration,
)
from promptseg.session import Segmenter
from promptseg.weights.assets import asset_dir

DATA = Path(
    os.environ.get("PROMPTSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
SETTINGS = Settings(protocol="box", dims="3d")
SAMPLES = 20_000
MARGIN = 3
MARKED = 0.01
COLOURS = {"before": "#c77f1a", "after": "#0b6e99"}


@dataclass(frozen=True)
class Group:
    """Targets of one data set.

    Args:
        labels: Which are segmented, each by itself.
        first: First case in sorted order, counted from 1.
        last: Last case.
        cases: So many of them, spread evenly.
    """

    labels: tuple[int, ...]
    first: int
    last: int
    cases: int


GROUPS = {
    "acdc": Group((1, 2, 3), 141, 160, 10),
    "hippocampus": Group((1, 2), 161, 200, 6),
}
CHECKS = {"left_atrium": Group((1,), 57, 68, 4)}


def targets(root: Path, name: str, group: Group) -> Iterator[tuple[str, Task]]:
    """Case and task of every target."""
    images = sorted((root / name / "images").iterdir())[group.first - 1 : group.last]
    picked = np.linspace(0, len(images) - 1, min(group.cases, len(images))).round().astype(int)
    for path in (images[n] for n in np.unique(picked)):
        case = path.name.split(".")[0]
        known = Pair(case, path, root / name / "labels" / path.name).load()
        for label in group.labels:
            task = volume_task(known, label, SETTINGS)
            if task.truth.any():
                yield case, task


def sampled(segmenter: Segmenter, task: Task) -> dict[str, np.ndarray]:
    """Probabilities by source, their mean, the answer and the truth of (N,) drawn voxels."""
    session = segmenter.session(task.volume, task.axis, task.window)
    rng = np.random.default_rng(task.seed)
    session.add(*box_prompts(task, SETTINGS, rng))
    answer = session.propagate().data == 1
    asked = session.asker.asked.ready(None)  # type: ignore[union-attr]
    by_kind: dict[str, list[np.ndarray]] = {}
    for kind, answered, view in asked.ensemble.members(asked.question, asked.answered):
        by_kind.setdefault(kind, []).append(shares(answered, task.volume.shape, 1, view))
    mean = np.mean([share for kind in by_kind.values() for share in kind], axis=0)
    kinds = {kind: np.mean(held, axis=0) for kind, held in by_kind.items()}
    places = np.flatnonzero(around(mean > MARKED))
    drawn = rng.choice(places, min(SAMPLES, len(places)), replace=False)
    columns = {**kinds, "mean": mean, "mask": answer, "truth": task.truth}
    return {name: values.ravel()[drawn] for name, values in columns.items()}


def around(marked: np.ndarray) -> np.ndarray:
    """Bool box around the true voxels, grown by `MARGIN`."""
    box = np.zeros(marked.shape, bool)
    sides = []
    for axis, side in enumerate(marked.shape):
        filled = np.flatnonzero(marked.any(tuple(a for a in range(3) if a != axis)))
        low, high = (filled[0], filled[-1]) if len(filled) else (0, side - 1)
        sides.append(slice(max(0, low - MARGIN), high + MARGIN + 1))
    box[tuple(sides)] = True
    return box


@dataclass(frozen=True)
class Samples:
    """Drawn voxels of several targets, one after the other.

    Args:
        columns: (N,) values by name, as `sampled` gives them.
        patient: (N,) number of the patient.
        weight: (N,) one over the number of voxels of the same target.
    """

    columns: dict[str, np.ndarray]
    patient: np.ndarray
    weight: np.ndarray

    def part(self, rows: np.ndarray) -> Samples:
        """Some of them."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Samples(columns, self.patient[rows], self.weight[rows])


def joined(found: list[tuple[str, dict[str, np.ndarray]]]) -> Samples:
    """All samples; a patient is what a file name says before its first underscore and digits."""
    names = sorted({patient_of(case) for case, _ in found})
    columns = {name: np.concatenate([one[name] for _, one in found]) for name in found[0][1]}
    counts = [len(one["truth"]) for _, one in found]
    patient = np.repeat([names.index(patient_of(case)) for case, _ in found], counts)
    return Samples(columns, patient, np.concatenate([np.full(n, 1 / n) for n in counts]))


def patient_of(case: str) -> str:
    """`patient071` of `patient071_frame01`, else the whole name."""
    return case.split("_frame")[0]


def cross_validated(samples: Samples, folds: int = 5) -> np.ndarray:
    """(N,) calibrated mean probabilities, each by constants fitted on other patients."""
    calibrated = np.zeros(len(samples.weight), np.float32)
    for fold in range(folds):
        held = samples.patient % folds == fold
        if held.any() and (~held).any():
            rest = samples.part(~held)
            found = fit(rest.columns["mean"], rest.columns["truth"], rest.weight)
            calibrated[held] = found(samples.columns["mean"][held])
        else:
            calibrated[held] = samples.columns["mean"][held]
    return calibrated


def chosen_constants(samples: Samples, calibrated: np.ndarray) -> tuple[Calibration, bool]:
    """Constants fitted on all, if cross-validation lowers the log loss; else none, and False."""
    columns = samples.columns
    before, after = (
        likelihood(share, columns["truth"], samples.weight)
        for share in (columns["mean"], calibrated)
    )
    if after >= before:
        return Calibration(), False
    return fit(columns["mean"], columns["truth"], samples.weight), True


def likelihood(share: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean negative log likelihood."""
    odds = logit(np.asarray(share, np.float64))
    return float(np.average(np.logaddexp(0, np.where(truth, -odds, odds)), weights=weight))


def found_errors(share: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a wrong voxel is more doubtful than a right one (area under the ROC curve)."""
    doubt = np.where(mask, 1 - share, share)
    wrong = mask != truth
    if wrong.all() or not wrong.any():
        return float("nan")
    ranks = rankdata(doubt)
    n, m = int(wrong.sum()), int((~wrong).sum())
    return float((ranks[wrong].sum() - n * (n + 1) / 2) / (n * m))


def unsure(samples: Samples) -> np.ndarray:
    """Where the members' mean is between 0.02 and 0.98."""
    mean = samples.columns["mean"]
    return (mean > 0.02) & (mean < 0.98)


def table(samples: Samples, calibrated: np.ndarray) -> str:
    """Errors by source, of the mean, and of the mean after calibration."""
    columns, near = samples.columns, unsure(samples)
    truth, mask = columns["truth"], columns["mask"]
    rows = {name: columns[name] for name in columns if name not in ("mean", "mask", "truth")}
    rows |= {"mean of all": columns["mean"], "calibrated": calibrated}
    lines = [
        "| probability from | ECE | ECE where unsure | log loss | wrong voxels found (AUROC) |",
        "|---|---|---|---|---|",
    ]
    for name, share in rows.items():
        lines.append(
            f"| {name} | {reliability(share, truth).ece:.4f} "
            f"| {reliability(share[near], truth[near]).ece:.4f} "
            f"| {likelihood(share, truth, samples.weight):.4f} "
            f"| {found_errors(share, mask, truth):.3f} |"
        )
    return "\n".join(lines)


def draw(samples: Samples, calibrated: np.ndarray, path: Path) -> None:
    """Reliability of the probability and of the uncertainty, before and after."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    truth, mask = samples.columns["truth"], samples.columns["mask"]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    for name, share in (("before", samples.columns["mean"]), ("after", calibrated)):
        wrong = np.clip(np.where(mask, 1 - share, share), 0, 0.5)
        for place, said, happened in ((0, share, truth), (1, wrong, mask != truth)):
            near = unsure(samples)
            found = reliability(said[near], happened[near], 15 if place == 0 else 30)
            _curve(axes[place], found, name)
    for place, what, end in (
        (0, "the voxel is in the target", 1.0),
        (1, "the label is wrong", 0.5),
    ):
        axes[place].plot([0, end], [0, end], color="#999999", linewidth=1, zorder=0)
        axes[place].set(xlabel=f"said: {what}", ylabel="happened", xlim=(0, end), ylim=(0, end))
        axes[place].legend(frameon=False)
    figure.suptitle("Reliability on held-back cases, voxels that the members do not agree on")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _curve(axes, found: Reliability, name: str) -> None:  # type: ignore[no-untyped-def]
    shown = found.count >= 50
    label = f"{name}: ECE {found.ece:.3f}"
    axes.plot(found.said[shown], found.happened[shown], "o-", color=COLOURS[name], label=label)


def collected(
    segmenter: Segmenter, groups: dict[str, Group], folder: Path
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Samples of every target, computed where there is no file of them."""
    found = []
    for name, group in groups.items():
        if not (DATA / name / "images").is_dir():
            print(f"{DATA / name} is not there: left out", file=sys.stderr)
            continue
        for case, task in targets(DATA, name, group):
            file = folder / f"{name}_{case}_{task.label}.npz"
            if not file.is_file():
                columns = sampled(segmenter, task)
                with atomic_path(file) as temporary, temporary.open("wb") as opened:
                    np.savez_compressed(opened, **columns)
                print(f"{file.stem} done", file=sys.stderr, flush=True)
            with np.load(file) as held:
                found.append((f"{name}/{case}", {key: held[key] for key in held.files}))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Collect what is missing, fit, write, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the samples and figure")
    parser.add_argument("--model", default="default")
    parser.add_argument("--write", type=Path, default=asset_dir("weights") / FILE, metavar="FILE")
    parser.add_argument("--cases", type=int, default=None, help="at most so many of each set")
    parser.add_argument("--check", action="store_true", help="measure on left_atrium 57-68 too")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args(arguments)
    segmenter = Segmenter.from_pretrained(chosen.model, device=chosen.device)
    digest = base_digest(segmenter.backbone)
    folder = chosen.out / digest[:12]
    folder.mkdir(parents=True, exist_ok=True)
    found = collected(segmenter, fewer(GROUPS, chosen.cases), folder)
    if not found:
        print(f"no case at {DATA}: set PROMPTSEG_DATA", file=sys.stderr)
        return 2
    samples = joined(found)
    calibrated = cross_validated(samples)
    constants, helps = chosen_constants(samples, calibrated)
    draw(samples, calibrated, folder / "reliability.png")
    before = reliability(samples.columns["mean"], samples.columns["truth"]).ece
    after = reliability(calibrated, samples.columns["truth"]).ece
    about = {
        "model": segmenter.backbone.spec.name,
        "data": ", ".join(sorted({case.split("/")[0] for case, _ in found})),
        "targets": len(found),
        "ece_before": round(before, 4),
        "ece_after": round(after if helps else before, 4),
    }
    write_calibration(chosen.write, digest, constants, about)
    print(table(samples, calibrated))
    if not helps:
        print("\nThe constants do not help on other patients: probabilities are left as they are.")
    print(f"\n{len(found)} targets; slope {constants.slope:.3f} (temperature "
          f"{1 / constants.slope:.3f}), offset {constants.offset:+.3f}; 'calibrated' is "
          f"cross-validated over patients.\n{chosen.write} written for model {digest[:12]}; "
          f"figure: {folder / 'reliability.png'}")  # fmt: skip
    if chosen.check:
        checked(segmenter, constants, fewer(CHECKS, chosen.cases), folder)
    return 0


def checked(
    segmenter: Segmenter, constants: Calibration, groups: dict[str, Group], folder: Path
) -> None:
    """Print the table of other data, calibrated by the same constants."""
    found = collected(segmenter, groups, folder)
    if found:
        samples = joined(found)
        print(f"\nNot fitted on: {', '.join(groups)}, {len(found)} targets\n")
        print(table(samples, constants(samples.columns["mean"])))


def fewer(groups: dict[str, Group], cases: int | None) -> dict[str, Group]:
    """The groups with at most `cases` cases each."""
    if cases is None:
        return groups
    return {
        name: Group(g.labels, g.first, g.last, min(g.cases, cases)) for name, g in groups.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
