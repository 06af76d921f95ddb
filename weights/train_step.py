"""Train the slice step (promptseg/propagation/step_network.py) on the default model's features.

    OMP_NUM_THREADS=1 nice -n 19 python weights/train_step.py --hours 1

Runs of slices in which the network's own answer is the next slice's neighbour; half of them lead
over the target's end, some are sheared as those of an oblique target are, some begin far from the
prompted slice with a mask that has gathered faults. The encoder stays as it is. A second call goes
on from `last.pt`; the rate falls in the last quarter. `--start` begins with the weights of an
earlier step, as after a change of the default model. left_atrium and all that `sources.py` holds
back are never read.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from pretraining.pacing import follow, log, rate_share, run_to_end
from pretraining.runs import Run, run_episode
from promptseg.backbones.base import PixelPrompts, PromptBatch
from promptseg.backbones.default import load_default
from promptseg.backbones.prompt_maps import prompt_maps
from promptseg.finetune.losses import candidate_loss, intersection_over_union
from promptseg.io.atomic import atomic_path
from promptseg.propagation.slice_step import load_step
from promptseg.propagation.step_network import StepNetwork, greys_of, step_maps
from promptseg.weights.registry import sha256_file
from sources import load_cases
from train_default import Draw, Optimiser

LENGTH = 6
# Shares of runs that are sheared, and that begin far from the prompted slice.
MOVED, FAR = 0.4, 0.35
SIZES = ((128, 4), (128, 4), (128, 4), (256, 1))
# A first mask worse than this is no start for a run: the truth takes its place.
WORTH = 0.6
FORCED = 0.2
WARM = 100
SURE = 6.0


class Training:
    """Network, moving average, optimiser and clock, saved together."""

    def __init__(
        self, base: Path, out: Path, hours: float, rate: float, seed: int, start: Path | None
    ) -> None:
        torch.manual_seed(seed)
        self.path, self.hours, self.rate, self.seed = out / "last.pt", hours, rate, seed
        self.digest = sha256_file(base)
        self.base = load_default(base, "default").module.eval().requires_grad_(False)
        self.network, self.average = StepNetwork.begun(self.base), StepNetwork.begun(self.base)
        if start is not None:
            for network in (self.network, self.average):
                network.load_state_dict(load_step(start).network.state_dict())
        self.optimiser = Optimiser(self.network, rate)
        self.step, self.seconds = 0, 0.0
        if self.path.is_file():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        for name in ("network", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        parts = ("network", "average", "optimiser")
        state = {name: getattr(self, name).state_dict() for name in parts}
        with atomic_path(self.path) as temporary:
            clock = {"step": self.step, "seconds": self.seconds}
            torch.save({**state, **clock, "base": self.digest}, temporary)

    @property
    def progress(self) -> float:
        return min(1.0, self.seconds / (self.hours * 3600))

    def runs(self, draw: Draw) -> list[Run]:
        size, count = SIZES[self.step % len(SIZES)]
        rng = np.random.default_rng((self.seed, self.step))
        made: list[Run] = []
        while len(made) < count:
            case = draw._case(draw.deep, rng)
            run = run_episode(case, size, rng, LENGTH, MOVED, FAR)
            made += [] if run is None else [run]
        return made

    def learn(self, runs: list[Run]) -> dict[str, float]:
        self.optimiser.set_rate(self.rate * rate_share(self, WARM))
        loss, parts = self.loss(runs)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        follow(self.average, self.network, self.step)
        self.step += 1
        return {"loss": float(loss.detach()), **parts}

    def loss(self, runs: list[Run]) -> tuple[Tensor, dict[str, float]]:
        """Slice after slice, the answer on one handed to the next; the first is the base's."""
        images = torch.stack([run.images for run in runs], 1)
        targets = torch.stack([run.targets for run in runs], 1)
        steps, count = images.shape[:2]
        with torch.no_grad():
            features = self.base.encode(images.flatten(0, 1))
        greys = greys_of(images.flatten(0, 1)).unflatten(0, (steps, count))
        key = self.first([run.prompt for run in runs], features, targets[0], count)
        before, beside = begun(runs, key, greys[0])
        single = torch.zeros(count, dtype=torch.bool)
        total, overlaps, seen = images.new_zeros(()), [], []
        for n in range(1, steps):
            away = [run.away(n) for run in runs]
            maps = step_maps(greys[n], (before, beside), (key, greys[0]), away)
            part = tuple(f[n * count : (n + 1) * count] for f in features)
            answer = self.network(part, maps)
            loss, _ = candidate_loss(*answer, targets[n], single)
            total = total + loss / (steps - 1)
            there = targets[n].flatten(1).amax(1) > 0.5
            known = (intersection_over_union(answer[0][:, :1].detach(), targets[n][:, None]))[:, 0]
            overlaps.append(float(known[there].mean()) if there.any() else float("nan"))
            seen.append(float(((answer[2] > 0) == there).float().mean()))
            before = answer[0][:, 0].detach()
            forced = torch.rand(count) < FORCED
            before = torch.where(forced[:, None, None], (targets[n] * 2 - 1) * SURE, before)
            beside = greys[n]
        named = {"first": overlaps[0], "last": overlaps[-1], "seen": float(np.mean(seen))}
        return total, named

    @torch.no_grad()
    def first(
        self, prompts: list[PixelPrompts], features: tuple[Tensor, ...], target: Tensor, count: int
    ) -> Tensor:
        """(B, m, m) logits of the prompted slice: the base's answer, or the truth."""
        side = target.shape[-1]
        maps = prompt_maps(PromptBatch.collate(prompts, side * 2, side), side * 2)
        logits = self.base.decode(tuple(f[:count] for f in features), maps)[0][:, 0]
        overlap = intersection_over_union(logits[:, None], target[:, None])[:, 0]
        truth = (overlap < WORTH) | (torch.rand(count) < FORCED)
        return torch.where(truth[:, None, None], (target * 2 - 1) * SURE, logits)


def begun(runs: list[Run], key: Tensor, grey: Tensor) -> tuple[Tensor, Tensor]:
    """(B, m, m) logits and greys of what comes before the second slice."""
    logits = [mask if run.start is None else run.start.logits
              for run, mask in zip(runs, key, strict=True)]  # fmt: skip
    greys = [own if run.start is None else greys_of(run.start.image[None])[0]
             for run, own in zip(runs, grey, strict=True)]  # fmt: skip
    return torch.stack(logits), torch.stack(greys)


def train(training: Training, draw: Draw, out: Path) -> None:
    def report(means: dict[str, float]) -> None:
        log(out, {"step": training.step, "minutes": training.seconds / 60, **means})

    run_to_end(training, lambda: training.learn(training.runs(draw)), report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--base", type=Path, default=Path("weights/default.safetensors"))
    parser.add_argument("--out", type=Path, default=Path("runs/step"))
    parser.add_argument("--hours", type=float, default=1.0, help="of one core, in all")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="an earlier step's weights to start from")
    chosen = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    cv2.setNumThreads(1)
    chosen.out.mkdir(parents=True, exist_ok=True)
    training = Training(
        chosen.base, chosen.out, chosen.hours, chosen.rate, chosen.seed, chosen.start
    )
    cases = load_cases(chosen.data, held_back=False)
    train(training, Draw(cases, [], chosen.seed), chosen.out)


if __name__ == "__main__":
    main()
