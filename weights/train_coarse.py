"""Train the coarse 3D view (promptseg/propagation/coarse_network.py).

    OMP_NUM_THREADS=1 nice -n 19 torchrun --nproc-per-node 2 weights/train_coarse.py --hours 10

One single-threaded process a core, `BATCH` views each. A second call goes on from `last.pt`; the
rate is constant but for a warm-up and the last quarter of the hours of one core, so that a run may
be cut and gone on with at any time. left_atrium, medscribble and all that
`sources.py` holds back are never read.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist

from pretraining.coarse_tasks import CoarseTask, coarse_task, with_click
from pretraining.episodes import Case
from pretraining.pacing import follow, log, rate_share, run_to_end
from pretraining.processes import average_gradients, place
from promptseg.finetune.muon import Muon
from promptseg.io.atomic import atomic_path
from promptseg.propagation.coarse import load_coarse
from promptseg.propagation.coarse_inputs import CHANNELS, coarse_channels
from promptseg.propagation.coarse_loss import coarse_loss
from promptseg.propagation.coarse_network import CoarseNetwork
from sources import load_cases

SHARES = {
    "totalsegmentator": 0.30, "acdc": 0.12, "hippocampus": 0.08, "brats": 0.10, "sarcoma": 0.10,
    "chaos_mr": 0.09, "mscmr_bssfp": 0.02, "mscmr_lge": 0.02, "aspects_ct": 0.03,
    "cerebellum_atlas": 0.04, "cit168_atlas": 0.04, "brainstem": 0.02, "spinal_cord": 0.02,
    "ct_lesions": 0.01, "nrrd": 0.01,
}  # fmt: skip
SIDE, BATCH = 48, 4
LEAST_SLICES = 6
CLICKED = 0.35
MUON_RATIO, WARM = 20.0, 100


class Draw:
    """Tasks; task n depends on the seed and n."""

    def __init__(self, cases: list[Case], seed: int) -> None:
        cv2.setNumThreads(1)
        self.seed = seed
        deep = [case for case in cases if min(case.image.shape) >= LEAST_SLICES]
        self.groups = {name: [c for c in deep if c.group == name] for name in SHARES}
        self.names = [name for name, held in self.groups.items() if held]
        shares = np.array([SHARES[name] for name in self.names])
        self.chances = shares / shares.sum()

    def task(self, rng: np.random.Generator) -> CoarseTask:
        while True:
            group = self.groups[self.names[int(rng.choice(len(self.names), p=self.chances))]]
            made = coarse_task(group[int(rng.integers(len(group)))], SIDE, rng)
            if made is not None:
                return made


class Training:
    """Network, moving average, optimisers and clock, saved together."""

    def __init__(
        self, out: Path, hours: float, rate: float, seed: int, start: Path | None = None
    ) -> None:
        torch.manual_seed(seed)
        self.path, self.hours, self.rate, self.seed = out / "last.pt", hours, rate, seed
        self.network, self.average = CoarseNetwork(CHANNELS), CoarseNetwork(CHANNELS)
        if start is not None:
            self.network.load_state_dict(load_coarse(start).network.state_dict())
        self.average.load_state_dict(self.network.state_dict())
        wide = [p for p in self.network.parameters() if p.ndim == 5]
        self.wide, taken = wide, {id(p) for p in wide}
        self.flat = [torch.nn.Parameter(p.data.view(len(p), -1)) for p in wide]
        self.muon = Muon(self.flat, rate * MUON_RATIO, weight_decay=0.02)
        others = [p for p in self.network.parameters() if id(p) not in taken]
        self.adam = torch.optim.AdamW(others, rate, (0.9, 0.98), weight_decay=0.02)
        self.step, self.seconds = 0, 0.0
        if self.path.is_file():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        for name in ("network", "average", "muon", "adam"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        parts = ("network", "average", "muon", "adam")
        state = {name: getattr(self, name).state_dict() for name in parts}
        with atomic_path(self.path) as temporary:
            torch.save({**state, "step": self.step, "seconds": self.seconds}, temporary)

    @property
    def progress(self) -> float:
        return min(1.0, self.seconds / (self.hours * 3600))

    def tasks(self, draw: Draw) -> list[CoarseTask]:
        """A batch; some of it after an answer and one or two clicks on what is wrong."""
        rng = np.random.default_rng((self.seed, place()[0], self.step))
        tasks = [draw.task(rng) for _ in range(BATCH)]
        return [self._clicked(task, rng) if rng.random() < CLICKED else task for task in tasks]

    @torch.no_grad()
    def _clicked(self, task: CoarseTask, rng: np.random.Generator) -> CoarseTask:
        for _ in range(1 if rng.random() < 0.6 else 2):
            logits, _ = self.network(coarse_channels(task.hints)[None])
            task = with_click(task, logits[0].numpy(), rng)
        return task

    def learn(self, tasks: list[CoarseTask]) -> dict[str, float]:
        rate = self.rate * rate_share(self, WARM)
        self.muon.param_groups[0]["lr"], self.adam.param_groups[0]["lr"] = rate * MUON_RATIO, rate
        inputs = torch.stack([coarse_channels(task.hints) for task in tasks])
        target = torch.from_numpy(np.stack([task.target for task in tasks])).float()
        loss, dice = coarse_loss(*self.network(inputs), target)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.network)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for flat, parameter in zip(self.flat, self.wide, strict=True):
            flat.grad = parameter.grad.view_as(flat)
        self.muon.step()
        self.adam.step()
        follow(self.average, self.network, self.step)
        self.step += 1
        return {"loss": float(loss.detach()), "dice": float(dice.mean())}


def train(training: Training, draw: Draw, out: Path) -> None:
    def report(means: dict[str, float]) -> None:
        log(out, {"step": training.step, "minutes": training.seconds / 60, **means})

    run_to_end(training, lambda: training.learn(training.tasks(draw)), report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/coarse"))
    parser.add_argument("--hours", type=float, default=10.0, help="of one core, in all")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="a file of export_coarse.py, not from scratch")
    chosen = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    chosen.out.mkdir(parents=True, exist_ok=True)
    training = Training(chosen.out, chosen.hours, chosen.rate, chosen.seed, chosen.start)
    cases = load_cases(chosen.data, held_back=False)
    train(training, Draw(cases, chosen.seed), chosen.out)


if __name__ == "__main__":
    main()
