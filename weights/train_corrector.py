"""Train the 3D corrector of clicks and write weights/corrector.safetensors.

    OMP_NUM_THREADS=1 python weights/train_corrector.py --minutes 45 \\
        --out runs/corrector -o weights/corrector.safetensors

First the default model answers one box on each of some hundred training volumes (kept in `--out`,
made once), then a small 3D U-Net learns to mend these answers, and masks with simulated faults,
from none to five clicks. Resumable; on a CPU it computes in bfloat16. left_atrium, medscribble
and all cases held back from the default model's training are never read.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import promptseg as ps
from pretraining import episodes
from pretraining.corrections import (
    Correction,
    Crop,
    correction_loss,
    draw_correction,
    with_clicks,
)
from promptseg.datasets.cohort import Case
from promptseg.evaluate.metrics import dice
from promptseg.evaluate.playing import Player
from promptseg.evaluate.protocols import first_prompts
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import volume_task
from promptseg.io.atomic import atomic_path
from promptseg.refine.corrector import save_corrector
from promptseg.refine.corrector_network import ClickCorrector
from promptseg.volume.intensity import normalise
from promptseg.weights.registry import sha256_file
from sources import load_cases

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARES = {
    "totalsegmentator": 0.35, "acdc": 0.25, "hippocampus": 0.15, "brats": 0.13, "sarcoma": 0.12,
}  # fmt: skip
ANSWERED = {"totalsegmentator": 90, "acdc": 120, "hippocampus": 40, "brats": 16, "sarcoma": 24}
LEAST_VOXELS = 200
AROUND = 0.4
BATCH = 2


def asked(cases: list[episodes.Case], rng: np.random.Generator) -> Iterator[Case]:
    """Targets to be answered, each a volume with the target as label 1."""
    for group, count in ANSWERED.items():
        held = [case for case in cases if case.group == group]
        for number in range(count):
            case = held[int(rng.integers(len(held)))]
            labels = [int(v) for v in np.unique(case.labels) if v]
            choices = [*((v,) for v in labels), *case.wholes]
            target = np.isin(case.labels, choices[int(rng.integers(len(choices)))])
            if target.sum() >= LEAST_VOXELS:
                volume = ps.Volume(case.image, np.diag([*case.spacing, 1.0]))
                yield Case(f"{group}_{number}", volume, target.astype(np.uint8))


def answered(segmenter: ps.Segmenter, case: Case, seed: int) -> Crop:
    """What the model makes of one box in 3D, cut out around the target and the answer."""
    settings = Settings("box", "3d", 1, seed=seed)
    task = volume_task(case, 1, settings)
    player = Player(segmenter, task, "both", keep_probability=True)
    mask, _ = player.answer(first_prompts(task, settings, np.random.default_rng(task.seed)))
    image = normalise(case.volume.data, player.session.window)
    probability = player.session.probability()
    cells = np.argwhere(task.target | mask)
    low, high = cells.min(0), cells.max(0) + 1
    grow = np.maximum(4, np.ceil(AROUND * (high - low))).astype(int)
    low, high = np.maximum(low - grow, 0), np.minimum(high + grow, mask.shape)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    sides = image[part], task.target[part], probability[part]
    return Crop(*sides, case.volume.spacing, task.axis)


def prepare(folder: Path, seed: int) -> None:
    """Write the model's answers that are missing in a folder."""
    rng, segmenter = np.random.default_rng(seed), ps.Segmenter.from_pretrained("default")
    for number, case in enumerate(asked(load_cases(DATA, held_back=False), rng)):
        path = folder / f"{case.name}.npz"
        if path.is_file():
            continue
        try:
            crop = answered(segmenter, case, seed + number)
        except ps.PromptError as error:
            print(f"{case.name}: {error}")
            continue
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                image=(crop.image * 255).astype(np.uint8),
                target=crop.target,
                probability=crop.probability.astype(np.float16),
                spacing=np.array(crop.spacing),
                axis=crop.axis,
            )


def read_crop(path: Path) -> Crop:
    with np.load(path) as kept:
        return Crop(
            kept["image"].astype(np.float32) / 255,
            kept["target"],
            kept["probability"].astype(np.float32),
            tuple(kept["spacing"].tolist()),
            int(kept["axis"]),
        )


class Training:
    """Network, moving average, optimiser and clock, saved together.

    Args:
        out: Folder of the checkpoint.
        minutes: After which the learning rate is 0.
        rate: Highest learning rate.
        seed: Of all draws.
        device: `cpu` or `cuda`.
    """

    def __init__(self, out: Path, minutes: float, rate: float, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.path, self.minutes, self.rate, self.seed = out / "last.pt", minutes, rate, seed
        self.device = device
        self.network, self.average = (ClickCorrector().to(device) for _ in range(2))
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=0.01)
        self.step, self.seconds = 0, 0.0
        if self.path.is_file():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True, map_location=self.device)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "step": self.step, "seconds": self.seconds,
        }  # fmt: skip
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)

    def logits(self, correction: Correction) -> Tensor:
        """(D, H, W) after the network's change."""
        with torch.autocast(self.device, dtype=torch.bfloat16):
            change = self.network(correction.inputs().to(self.device))
        return correction.logits.to(self.device) + change[0].float()

    @torch.no_grad()
    def answer(self, correction: Correction) -> np.ndarray:
        return (self.logits(correction) > 0).cpu().numpy()

    def learn(self, corrections: list[Correction]) -> tuple[float, float]:
        """One step; its mean loss and Dice."""
        progress = min(1.0, self.seconds / (self.minutes * 60))
        warm = min(1.0, (self.step + 1) / 50)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * warm * 0.5 * (1 + math.cos(math.pi * progress))
        found = []
        for correction in corrections:
            logits = self.logits(correction)
            target = torch.from_numpy(correction.target).to(self.device, torch.float32)
            loss = correction_loss(logits, target)
            (loss / len(corrections)).backward()
            found.append(
                (float(loss.detach()), dice((logits > 0).cpu().numpy(), correction.target))
            )
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        decay = min(0.998, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for slow, fast in zip(
                self.average.parameters(), self.network.parameters(), strict=True
            ):
                slow.lerp_(fast, 1 - decay)
        self.step += 1
        return tuple(np.mean(found, 0).tolist())


def draw(crops: dict[str, list[Crop]], training: Training, rng: np.random.Generator) -> Correction:
    """A correction of a random group, after clicks on the network's answers."""
    shares = np.array([SHARES[group] for group in crops])
    correction = None
    while correction is None:
        group = list(crops)[int(rng.choice(len(crops), p=shares / shares.sum()))]
        correction = draw_correction(crops[group][int(rng.integers(len(crops[group])))], rng)
    return with_clicks(correction, training.answer, rng)


def train(training: Training, crops: dict[str, list[Crop]], save_every: float = 60.0) -> None:
    rows: list[tuple[float, float]] = []
    began = saved = time.time()
    while training.seconds < training.minutes * 60:
        rng = np.random.default_rng((training.seed, training.step))
        rows.append(training.learn([draw(crops, training, rng) for _ in range(BATCH)]))
        training.seconds += time.time() - began
        began = time.time()
        if training.step % 50 == 0:
            loss, mean = np.mean(rows[-50:], 0)
            spent = training.seconds / 60
            print(f"{training.step} {spent:.1f} min loss {loss:.3f} dice {mean:.4f}", flush=True)
        if time.time() - saved > save_every:
            training.save()
            saved = time.time()
    training.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/corrector"))
    parser.add_argument("-o", "--output", type=Path, default=Path("weights/corrector.safetensors"))
    chosen = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    answers = chosen.out / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    prepare(answers, chosen.seed)
    crops: dict[str, list[Crop]] = {}
    for path in sorted(answers.glob("*.npz")):
        crops.setdefault(path.stem.split("_")[0], []).append(read_crop(path))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = Training(chosen.out, chosen.minutes, chosen.rate, chosen.seed, device)
    train(training, crops)
    about = {"steps": str(training.step), "crops": str(training.step * BATCH)}
    save_corrector(training.average.cpu(), chosen.output, about)
    print(f"{chosen.output}: {chosen.output.stat().st_size} bytes, {sha256_file(chosen.output)}")


if __name__ == "__main__":
    main()
