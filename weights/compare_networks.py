"""Compare three networks of about the same size at equal training time.

    OMP_NUM_THREADS=1 python weights/compare_networks.py --minutes 12 --out runs/networks

A plain ViT SAM, a hierarchical SAM 2 and the default network (`rival_networks.py`) see the same
episodes in the same order with the same loss and optimiser, each in one process with one thread,
two processes at once. On a CPU the minutes are those the process computed, so that other work on
the machine changes nothing. Now and then, not counted in the time, the moving average of the
weights answers the same held-back crops: a tight box with 5 % jitter (first mask), and one
central click (best of the three candidates). All of it at an input of 128 x 128 pixels.

Resumable: a second call goes on from `NETWORK.pt`. `--draw` only makes the table and the figure.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pretraining.episodes import Case, Episode, real_episode
from promptseg.backbones.base import PixelPrompts, PromptBatch
from promptseg.datasets.simulation import users
from promptseg.finetune.losses import candidate_loss
from promptseg.io.atomic import atomic_path
from rival_networks import NETWORKS, TITLES, Named
from sources import load_cases, named_concepts
from train_default import SHARES, Draw, Optimiser, collate, corrected

SIZE, BATCH, USED = 128, 8, 256
HELD_SEED = 2024
COLOURS = {"vit": "#7d6608", "hiera": "#2471a3", "hybrid": "#c0392b"}


class Run:
    """One network's training: weights, moving average, optimiser, clock.

    Args:
        name: One of `NETWORKS`.
        chosen: Options of the command line.
    """

    def __init__(self, name: str, chosen: argparse.Namespace) -> None:
        self.name, self.out, self.device = name, chosen.out, chosen.device
        self.minutes, self.rate, self.seed = chosen.minutes, chosen.rate, chosen.seed
        torch.manual_seed(self.seed)
        self.network = NETWORKS[name](SIZE).to(self.device)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimiser = Optimiser(Named(self.network), self.rate)
        self.step, self.seconds, self.sums = 0, 0.0, {}
        if self.checkpoint.exists():
            self.load()

    @property
    def checkpoint(self) -> Path:
        return self.out / f"{self.name}.pt"

    @property
    def log(self) -> Path:
        return self.out / f"{self.name}.jsonl"

    @property
    def progress(self) -> float:
        return min(1.0, self.seconds / (60 * self.minutes))

    def about(self) -> dict:
        return {"minutes": self.minutes, "rate": self.rate, "seed": self.seed}

    def save(self) -> None:
        state = {
            "about": self.about(), "network": self.network.state_dict(),
            "average": self.average.state_dict(), "optimiser": self.optimiser.state_dict(),
            "step": self.step, "seconds": self.seconds,
        }  # fmt: skip
        with atomic_path(self.checkpoint) as path:
            torch.save(state, path)

    def load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
        if state["about"] != self.about():
            raise SystemExit(f"{self.checkpoint} is of a run with {state['about']}: give another "
                             "--out or the same options")  # fmt: skip
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        kept = [row for row in rows_of(self.log) if row["step"] <= self.step]
        with atomic_path(self.log) as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def write(self, row: dict) -> None:
        with open(self.log, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(self.name, row, flush=True)

    def losses(self, batch: tuple[Tensor, Tensor, PromptBatch, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of the first answers and of answers after corrections, as in train_default."""
        images, targets, prompts, ambiguous = batch
        each = len(prompts) // len(images)
        rng = np.random.default_rng((self.seed, self.step))
        rows = torch.arange(len(images)).repeat_interleave(each)
        place = torch.arange(len(images)) * each + torch.from_numpy(
            rng.integers(0, each, len(images))
        )
        with torch.autocast(self.device, dtype=torch.bfloat16):
            features = self.network.encode(images.to(self.device))
            first = self.network.decode(tuple(f[rows] for f in features), prompts.to(self.device))
            seen = first[0][place, 0].detach().float().cpu()
            again = corrected(prompts[place], seen, targets, rng)
            second = self.network.decode(features, again.to(self.device))
        targets, ambiguous = targets.to(self.device), ambiguous.to(self.device)
        loss, parts = candidate_loss(*(x.float() for x in first), targets[rows], ambiguous)
        clear = ambiguous.new_zeros(len(images))
        after, _ = candidate_loss(*(x.float() for x in second), targets, clear)
        return loss + 0.5 * after, parts["iou"]

    def update(self, batch: tuple[Tensor, Tensor, PromptBatch, Tensor]) -> None:
        warm = min(1.0, (self.step + 1) / 60)
        falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress))
        self.optimiser.set_rate(self.rate * warm * falling)
        self.network.train()
        loss, overlap = self.losses(batch)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        decay = min(0.99, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.network.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 1 - decay)
        self.step += 1
        for key, value in {"loss": loss, "iou": overlap, "steps": 1}.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(torch.as_tensor(value).detach())


def train(run: Run, chosen: argparse.Namespace) -> None:
    """Train to the end, measuring every `chosen.every` minutes."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if run.progress >= 1:
        return
    clock = time.process_time if run.device == "cpu" else time.perf_counter
    held = held_back(load_cases(chosen.data, held_back=True), chosen.held)
    if not rows_of(run.log):
        run.write(measured(run, held))
        run.save()
    cases = load_cases(chosen.data, held_back=False)
    draw = Draw(cases, named_concepts(cases), run.seed)
    due = run.seconds + 60 * chosen.every
    began = clock()
    while run.progress < 1:
        rng = np.random.default_rng((run.seed, run.step))
        run.update(collate(draw.singles(SIZE, BATCH, rng)))
        run.seconds += clock() - began
        if run.seconds >= due or run.progress >= 1:
            run.write(measured(run, held))
            run.save()
            due += 60 * chosen.every
        began = clock()


def held_back(cases: list[Case], count: int) -> list[tuple[Episode, PromptBatch]]:
    """The same crops every time, as many of each data set, with a box and a click each."""
    groups = [name for name in SHARES if any(case.group == name for case in cases)]
    chosen: list[tuple[Episode, PromptBatch]] = []
    number = 0
    while len(chosen) < count:
        rng = np.random.default_rng((HELD_SEED, number))
        group = groups[len(chosen) % len(groups)]
        number += 1
        pool = [case for case in cases if case.group == group]
        episode = real_episode(pool[int(rng.integers(len(pool)))], SIZE, 1, rng)
        target = None if episode is None else episode.target.numpy() > 0.5
        if episode is None or target is None or target.sum() < 12:
            continue
        box = PixelPrompts(box=torch.from_numpy(users.jittered_box(target, rng)))
        point = torch.from_numpy(users.centre_click(target))
        click = PixelPrompts(point, torch.ones(1, dtype=torch.long))
        chosen.append((episode, PromptBatch.collate([box, click], SIZE, SIZE // 2)))
    return chosen


@torch.no_grad()
def measured(run: Run, held: list[tuple[Episode, PromptBatch]]) -> dict:
    """Dice of the averaged weights, and what was lost in training since the last row."""
    dice: dict[str, list[float]] = {"box": [], "click": []}
    for episode, prompts in held:
        with torch.autocast(run.device, dtype=torch.bfloat16):
            features = run.average.encode(episode.image[None].to(run.device))
            pair = tuple(f.expand(2, -1, -1, -1) for f in features)
            logits, *_ = run.average.decode(pair, prompts.to(run.device))
        truth = nn.functional.avg_pool2d(episode.target[None], 2)[0] > 0.5
        found = logits.float().cpu() > 0
        dice["box"].append(overlap_of(found[0, 0], truth))
        dice["click"].append(max(overlap_of(mask, truth) for mask in found[1, 1:]))
    steps = run.sums.pop("steps", 0.0)
    means = {key: value / steps for key, value in run.sums.items()}
    run.sums = {}
    return {
        "step": run.step, "seen": run.step * BATCH, "minutes": run.seconds / 60, **means,
        **{name: float(np.mean(values)) for name, values in dice.items()}, "held": len(held),
    }  # fmt: skip


def overlap_of(one: Tensor, other: Tensor) -> float:
    return 2 * int((one & other).sum()) / max(1, int(one.sum() + other.sum()))


def rows_of(path: Path) -> list[dict]:
    """Whole lines of a log."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@torch.no_grad()
def speed(name: str, size: int, repeats: int = 7) -> tuple[float, float]:
    """Least seconds on one thread of the CPU to encode a slice and to answer a box."""
    torch.set_num_threads(1)
    network = NETWORKS[name](size).eval()
    image = torch.rand(1, 3, size, size)
    box = PixelPrompts(box=torch.tensor([0.3, 0.3, 0.7, 0.6]) * size)
    prompts = PromptBatch.collate([box], size, size // 2)
    taken: list[tuple[float, float]] = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(repeats):
            times = [time.process_time()]
            features = network.encode(image)
            times.append(time.process_time())
            network.decode(features, prompts)
            times.append(time.process_time())
            taken.append((times[1] - times[0], times[2] - times[1]))
    return min(t[0] for t in taken), min(t[1] for t in taken)


def described(name: str, out: Path) -> dict:
    """Everything the table says of a network."""
    learning = [p for p in NETWORKS[name](SIZE).parameters() if p.requires_grad]
    seconds = {str(size): speed(name, size) for size in (SIZE, USED)}
    rows = rows_of(out / f"{name}.jsonl")
    return {"network": name, "parameters": sum(p.numel() for p in learning),
            "seconds": seconds, "rows": rows}  # fmt: skip


def table(found: list[dict]) -> str:
    """Markdown: one line a network, validation Dice at the times that all reached."""
    ends = [row["rows"][-1]["minutes"] for row in found]
    shared = [m for m in (1, 2, 4, 8, 12, 16, 24) if m <= min(ends) + 0.3]
    marks = "".join(f"box / click after {m} min | " for m in shared)
    lines = [
        f"| network | parameters | encode ms {SIZE} / {USED} | decode ms {SIZE} / {USED} "
        f"| episodes seen | {marks}box / click at the end |",
        "|---" * (6 + len(shared)) + "|",
    ]
    for item in found:
        times = [item["seconds"][str(size)] for size in (SIZE, USED)]
        encode, decode = (" / ".join(f"{1000 * t[n]:.0f}" for t in times) for n in (0, 1))
        rows = item["rows"]
        at = [min(rows, key=lambda row, m=m: abs(row["minutes"] - m)) for m in shared]
        dice = " | ".join(f"{row['box']:.3f} / {row['click']:.3f}" for row in [*at, rows[-1]])
        lines.append(
            f"| {TITLES[item['network']]} | {item['parameters'] / 1e6:.2f} M | {encode} "
            f"| {decode} | {rows[-1]['seen']} | {dice} |"
        )
    return "\n".join(lines)


def figure(found: list[dict], path: Path) -> None:
    """Validation Dice against minutes, box and click."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    titles = {"box": "tight box, 5 % jitter", "click": "one click, best of three"}
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        for item in found:
            rows, name = item["rows"], item["network"]
            minutes, dice = [row["minutes"] for row in rows], [row[key] for row in rows]
            panel.plot(minutes, dice, "o-", ms=3, color=COLOURS[name], label=TITLES[name])
        panel.set(xlabel="minutes of one core", title=title)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("Dice, unseen cases")
    panels[1].legend(frameon=False, loc="lower right")
    drawing.suptitle(f"Three networks, same episodes, input {SIZE} x {SIZE}")
    drawing.tight_layout()
    drawing.savefig(path, dpi=150)


def report(out: Path, names: list[str]) -> None:
    """Write networks.json, networks.md and networks.png from the logs."""
    found = [described(name, out) for name in names if rows_of(out / f"{name}.jsonl")]
    if not found:
        raise SystemExit(f"{out} holds no log")
    content = {"input": SIZE, "batch": BATCH, "networks": found}
    with atomic_path(out / "networks.json") as path:
        path.write_text(json.dumps(content, indent=2) + "\n")
    with atomic_path(out / "networks.md") as path:
        path.write_text(table(found) + "\n")
    figure(found, out / "networks.png")
    print(table(found))


def several(names: list[str], parallel: int) -> None:
    """One process a network, `parallel` at once, with the options of this call."""
    given = sys.argv[1:]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(name: str) -> None:
        command = [sys.executable, __file__, *given, "--alone", name]
        subprocess.run(command, check=True, env=environment)

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(start, names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/networks"))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--minutes", type=float, default=12.0, help="of training, each network")
    parser.add_argument("--every", type=float, default=2.0, help="minutes between validations")
    parser.add_argument("--held", type=int, default=160, help="held-back crops")
    parser.add_argument("--parallel", type=int, default=2, help="networks at once")
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--draw", action="store_true", help="only the table and the figure")
    parser.add_argument("--alone", choices=NETWORKS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.alone:
        train(Run(chosen.alone, chosen), chosen)
        return
    if not chosen.draw:
        several(chosen.networks, chosen.parallel)
    report(chosen.out, list(NETWORKS))


if __name__ == "__main__":
    main()
