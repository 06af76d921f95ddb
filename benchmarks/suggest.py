"""Does `Session.suggest` find the slice worth correcting? Against other choices, as a table.

    OMP_NUM_THREADS=2 python benchmarks/suggest.py --out runs/suggest [--cases N] [--rounds R]

A simulated user gives one jittered box on the largest slice, the target is propagated, and then
the user corrects one slice and it is propagated again; `--rounds` times. The slice is the
suggested one, a random one of those with a mask, the one with the largest mask, or the
largest, or the farthest, among those without a prompt. Corrected by `--clicks` corrective clicks
(the largest error component of the slice, its deepest place: METHODS G) while the slice's Dice is
under 0.95, or with `--by mask` by the true mask of the slice. Gains are Dice points in 3D after
minus before; the intervals are bootstrapped over targets, and the differences are paired.

Every target is a file in `--out`; a second call goes on with those that are missing. Data are in
../shared/data or $PROMPTSEG_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from promptseg.adapters.stack import base_digest
from promptseg.datasets.cohort import Pair
from promptseg.datasets.simulation.clicks import corrective_click
from promptseg.evaluate.metrics import dice
from promptseg.evaluate.protocols import box_prompts
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task, on_slice, volume_task
from promptseg.io.atomic import atomic_path
from promptseg.prompts.types import Box, Mask, Point
from promptseg.session import Segmenter, Session
from promptseg.volume.slicing import in_plane, take_slice

DATA = Path(
    os.environ.get("PROMPTSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
SETTINGS = Settings(protocol="box", dims="3d")
GOOD = 0.95


@dataclass(frozen=True)
class Group:
    """Targets of one data set.

    Args:
        folder: In the data.
        labels: Which are segmented, each by itself.
        first: First case in sorted order, counted from 1.
        last: Last case.
    """

    folder: str
    labels: tuple[int, ...]
    first: int
    last: int


GROUPS = {
    "acdc": Group("acdc", (1, 3), 141, 160),
    "hippocampus": Group("hippocampus", (1, 2), 161, 200),
    "left_atrium": Group("left_atrium", (1,), 57, 68),
}


def targets(root: Path, group: Group, cases: int | None) -> Iterator[tuple[str, Task]]:
    """Name and task of every target, `cases` cases spread evenly over the group."""
    images = sorted((root / group.folder / "images").iterdir())[group.first - 1 : group.last]
    if cases is not None and cases < len(images):
        images = [images[n] for n in np.linspace(0, len(images) - 1, cases).round().astype(int)]
    for path in images:
        name = path.name.split(".")[0]
        case = Pair(name, path, root / group.folder / "labels" / path.name).load()
        for label in group.labels:
            task = volume_task(case, label, SETTINGS)
            if task.truth.any():
                yield f"{group.folder}_{name}_{label}", task


Chooser = Callable[[Session, Task, np.random.Generator], "int | None"]


def suggested(session: Session, task: Task, rng: np.random.Generator) -> int | None:
    found = session.suggest()
    return None if found is None else found.index


def areas(session: Session, task: Task) -> np.ndarray:
    """Voxels of the mask by slice."""
    assert session.result is not None
    return (session.result.data == 1).sum(in_plane(task.axis))


def prompted(session: Session, axis: int) -> list[int]:
    """Slices with a prompt."""
    found = []
    for prompt in session.prompts:
        if isinstance(prompt, Point):
            found.append(int(np.floor(prompt.at[axis] + 0.5)))
        elif isinstance(prompt, Box):
            found.append(int(prompt.lo[axis] + prompt.hi[axis] - 1) // 2)
        elif isinstance(prompt, Mask) and prompt.index is not None:
            found.append(prompt.index)
    return found


def random_slice(session: Session, task: Task, rng: np.random.Generator) -> int | None:
    filled = np.flatnonzero(areas(session, task))
    return int(rng.choice(filled)) if len(filled) else None


def largest_slice(session: Session, task: Task, rng: np.random.Generator) -> int | None:
    area = areas(session, task)
    return int(area.argmax()) if area.any() else None


def largest_new_slice(session: Session, task: Task, rng: np.random.Generator) -> int | None:
    area = areas(session, task)
    area[prompted(session, task.axis)] = 0
    return int(area.argmax()) if area.any() else None


def farthest_slice(session: Session, task: Task, rng: np.random.Generator) -> int | None:
    filled, given = np.flatnonzero(areas(session, task)), prompted(session, task.axis)
    if not len(filled):
        return None
    return int(max(filled, key=lambda i: min(abs(int(i) - g) for g in given)))


CHOICES: dict[str, Chooser] = {
    "suggested": suggested,
    "random": random_slice,
    "largest": largest_slice,
    "largest new": largest_new_slice,
    "farthest": farthest_slice,
}


def correct(session: Session, task: Task, index: int, by: str, clicks: int) -> None:
    """The user corrects one slice."""
    truth = take_slice(task.truth, task.axis, index)
    if by == "mask" and truth.any():
        session.add(Mask(truth.copy(), axis=task.axis, index=index))
        session.propagate()
        return
    spacing = [float(task.volume.spacing[side]) for side in in_plane(task.axis)]
    for number in range(clicks):
        assert session.result is not None
        shown = take_slice(session.result.data == 1, task.axis, index)
        if dice(shown, truth) >= GOOD:
            return
        rng = np.random.default_rng((*task.seed, index, number))
        found = corrective_click(shown, truth, spacing, rng)
        if found is None:
            return
        session.add(Point(on_slice(found[0], task.axis, index), found[1]))
        session.propagate()


def played(
    segmenter: Segmenter, task: Task, by: str, clicks: int, rounds: int, draws: int
) -> dict[str, object]:
    """Dice after every round, by choice; random slices are drawn several times."""
    session = segmenter.session(task.volume, task.axis, task.window)
    session.add(*box_prompts(task, SETTINGS, np.random.default_rng(task.seed)))
    start = dice(session.propagate().data == 1, task.truth)
    scores: dict[str, list[list[float]]] = {}
    slices: dict[str, list[list[int]]] = {}
    seconds = []
    for name, choose in CHOICES.items():
        for draw in range(draws if name == "random" else 1):
            rng = np.random.default_rng((*task.seed, draw, zlib.crc32(name.encode())))
            curve, places, given = [start], [], len(session.prompts)
            for _ in range(rounds):
                began = perf_counter()
                index = choose(session, task, rng)
                if name == "suggested":
                    seconds.append(perf_counter() - began)
                if index is not None:
                    places.append(index)
                    correct(session, task, index, by, clicks)
                assert session.result is not None
                curve.append(dice(session.result.data == 1, task.truth))
            while len(session.prompts) > given:
                session.undo()
            session.propagate()
            scores.setdefault(name, []).append(curve)
            slices.setdefault(name, []).append(places)
    return {"start": start, "dice": scores, "slices": slices, "seconds": float(np.mean(seconds))}


def gains(found: list[dict], name: str) -> np.ndarray:
    """(N,) Dice gained by every target: the mean over its rounds and draws."""
    return np.array([np.mean([np.mean(c[1:]) - c[0] for c in f["dice"][name]]) for f in found])


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over targets."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (4000, len(values)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def table(found: list[dict], title: str) -> str:
    """Mean gain of every choice, and how much more the suggested slice brings."""
    before = np.mean([f["start"] for f in found])
    lines = [
        f"### {title}, n = {len(found)}, Dice before {before:.3f}",
        "",
        "| slice | Dice gained | 95 % | suggested gains more by | 95 % |",
        "|---|---|---|---|---|",
    ]
    ours = gains(found, "suggested")
    for name in CHOICES:
        gain = gains(found, name)
        low, high = interval(gain)
        line = f"| {name} | {gain.mean():+.4f} | {low:+.4f} to {high:+.4f} |"
        if name != "suggested":
            low, high = interval(ours - gain)
            line += f" {np.mean(ours - gain):+.4f} | {low:+.4f} to {high:+.4f}"
        lines.append(line + (" - | - |" if name == "suggested" else " |"))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Play what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--model", default="default")
    parser.add_argument("--adapter", default=None)
    parser.add_argument("--data", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--cases", type=int, default=None, help="cases of each set, spread evenly")
    parser.add_argument("--by", choices=("clicks", "mask"), default="clicks")
    parser.add_argument("--clicks", type=int, default=3, help="at most so many on a slice")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--draws", type=int, default=3, help="random slices tried")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args(arguments)
    if not DATA.is_dir():
        print(f"no data at {DATA}: set PROMPTSEG_DATA", file=sys.stderr)
        return 2
    segmenter = Segmenter.from_pretrained(chosen.model, chosen.adapter, device=chosen.device)
    model = base_digest(segmenter.backbone)[:12]
    how = f"{chosen.by}{chosen.clicks if chosen.by == 'clicks' else ''}"
    folder = chosen.out / f"{model}_{chosen.adapter or 'base'}_{how}_{chosen.rounds}"
    folder.mkdir(parents=True, exist_ok=True)
    everything, tables = [], []
    for name in chosen.data:
        found = []
        for target, task in targets(DATA, GROUPS[name], chosen.cases):
            file = folder / f"{target}.json"
            if not file.is_file():
                result = played(
                    segmenter, task, chosen.by, chosen.clicks, chosen.rounds, chosen.draws
                )
                with atomic_path(file) as temporary:
                    temporary.write_text(json.dumps(result), encoding="utf-8")
                print(f"{target} done", file=sys.stderr, flush=True)
            found.append(json.loads(file.read_text(encoding="utf-8")))
        everything += found
        if found:
            tables.append(table(found, name))
    if not everything:
        print("no target was found", file=sys.stderr)
        return 1
    if len(chosen.data) > 1:
        tables.append(table(everything, "all"))
    took = np.mean([f["seconds"] for f in everything])
    text = "\n\n".join([*tables, f"Model {model}, corrected by {how}, {chosen.rounds} round(s); "
                        f"a suggestion took {1e3 * took:.0f} ms."])  # fmt: skip
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
