"""Train the default model on ../shared/data and synthetic tasks.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 weights/train_default.py --minutes 95

One single-threaded process a core (or one process a GPU) is several times as fast on small
tensors as one process with many threads. Resumable (a second call goes on from `last.pt`),
seeded (sample n of stage s depends on the seed alone), the same on a CPU (bfloat16) and a GPU.
left_atrium and medscribble are never read.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import nibabel
import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.tensorboard import SummaryWriter

from promptseg.backbones.base import PixelPrompts, PromptBatch
from promptseg.backbones.network import PromptsegConfig, PromptsegModel
from promptseg.backbones.prompt_maps import prompt_maps
from promptseg.finetune.losses import candidate_loss
from promptseg.io.atomic import atomic_path
from promptseg.pretraining.episodes import Case, Episode, real_episode, synthetic_episode
from promptseg.simulation import users

SHARES = {
    "acdc": 0.28, "hippocampus": 0.05, "totalsegmentator": 0.10, "brats": 0.09, "sarcoma": 0.05,
    "spinal_cord": 0.02, "ct_lesions": 0.02, "nrrd": 0.01,
    "chest_xray": 0.07, "covid_ct": 0.02, "em_membrane": 0.01, "fetal_head_us": 0.02,
    "glioma_flair": 0.05, "liver_ct": 0.03, "lung_nodule_ct": 0.02, "nuclei": 0.01,
    "white_blood_cell": 0.01, "synthetic": 0.15,
}  # fmt: skip
MEDSCRIBBLE_ACDC = ("patient004", "patient017", "patient018", "patient050", "patient056")
TUMOUR, CORE = (1, 2, 3, 4), (1, 3, 4)
HARDER_HEART = ((2,), (3,), (1,), (3,))
STAGES = ((0.85, 128, 16), (1.0, 256, 8))
MUON_RATIO = 30.0


def nifti(path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    image = nibabel.load(path)
    data = np.asanyarray(image.dataobj)
    return data, tuple(float(z) for z in image.header.get_zooms()[:3])


def compact(data: np.ndarray) -> np.ndarray:
    """8-bit data stays, the rest becomes 16-bit."""
    return data if data.dtype == np.uint8 else np.clip(data, -2000, 30000).astype(np.int16)


def volume_case(
    group: str,
    image: Path,
    label: Path,
    modality: str,
    axes: tuple[int, ...],
    wholes: tuple[tuple[int, ...], ...] = (),
) -> Case:
    data, spacing = nifti(image)
    labels = np.asarray(nifti(label)[0], np.uint8)
    return Case(image.stem, group, compact(data), labels, spacing, modality, axes, wholes=wholes)


def acdc_cases(root: Path) -> Iterator[tuple[Case, bool]]:
    for image in sorted((root / "acdc/images").glob("*.nii.gz")):
        held = 71 <= int(image.name[7:10]) <= 80
        if not image.name.startswith(MEDSCRIBBLE_ACDC):
            label = root / "acdc/labels" / image.name
            case = volume_case("acdc", image, label, "MR", (2,), HARDER_HEART)
            yield case, held


def hippocampus_cases(root: Path) -> Iterator[tuple[Case, bool]]:
    for n, image in enumerate(sorted((root / "hippocampus/images").glob("*.nii.gz"))):
        label = root / "hippocampus/labels" / image.name
        yield volume_case("hippocampus", image, label, "MR", (0, 1, 2)), n >= 160


def other_volumes(root: Path) -> Iterator[tuple[Case, bool]]:
    every = (0, 1, 2)
    total = root / "totalsegmentator"
    for stem, modality in (("ct", "CT"), ("ct_small", "CT"), ("mr_small", "MR")):
        labels = total / f"{stem}_labels.nii.gz"
        yield (
            volume_case("totalsegmentator", total / f"{stem}.nii.gz", labels, modality, every),
            False,
        )
    for patient in sorted((root / "brats").iterdir()):
        for name, wholes in (("flair", (TUMOUR,)), ("t1c", (TUMOUR, CORE))):
            paths = patient / f"{name}.nii.gz", patient / "labels.nii.gz"
            yield volume_case("brats", *paths, "MR", every, wholes), "pat0005" in patient.name
    for patient in sorted((root / "sarcoma").iterdir()):
        for name, modality in (("ct", "CT"), ("mr_t1", "MR")):
            paths = patient / f"{name}.nii.gz", patient / f"{name}_gtv.nii.gz"
            yield volume_case("sarcoma", *paths, modality, every), "005" in patient.name
    cord = root / "spinal_cord"
    for image, label in (
        ("t1/t1w", "t1/t1w_seg-manual"),
        ("t2s/t2s", "t2s/t2s_gmseg_manual"),
        ("t2s/t2s", "t2s/t2s_seg"),
    ):
        paths = cord / f"{image}.nii.gz", cord / f"{label}.nii.gz"
        yield volume_case("spinal_cord", *paths, "MR", (2,)), False
    yield (
        volume_case(
            "spinal_cord", cord / "t2/t2.nii.gz", cord / "t2/t2_seg-manual.nii.gz", "MR", every
        ),
        True,
    )


def lesion_cases(root: Path) -> Iterator[tuple[Case, bool]]:
    for n, path in enumerate(sorted((root / "ct_lesions").glob("*.npz"))):
        with np.load(path) as packed:
            image, label = packed["imgs"], packed["gts"].astype(np.uint8)
            spacing = tuple(float(s) for s in packed["spacing"][::-1])
        yield Case(path.stem, "ct_lesions", image, label, spacing, "MR", (0,)), n == 2


def nrrd_cases(root: Path) -> Iterator[tuple[Case, bool]]:
    import SimpleITK

    folder = root / "nrrd"
    for image, label in (
        ("brain1_image", "brain1_label"),
        ("prostate_phantom_subvolume", "prostate_phantom_subvolume-label"),
    ):
        read = SimpleITK.ReadImage(str(folder / f"{image}.nrrd"))
        data = SimpleITK.GetArrayFromImage(read).astype(np.float32)
        data -= data.min()
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{label}.nrrd")))
        spacing = tuple(read.GetSpacing()[::-1])
        yield (
            Case(image, "nrrd", compact(data), labels.astype(np.uint8), spacing, "MR", (0, 1, 2)),
            False,
        )


def flat_cases(root: Path) -> Iterator[tuple[Case, bool]]:
    for folder in sorted((root / "2d").iterdir()):
        files = sorted((folder / "images").glob("*.png"))
        for n, path in enumerate(files):
            image = np.array(Image.open(path).convert("L"))[..., None]
            mask = np.array(Image.open(folder / "masks" / path.name))[..., None].astype(np.uint8)
            apart = folder.name in ("nuclei", "em_membrane", "white_blood_cell")
            case = Case(path.stem, folder.name, image, mask, modality="2D", instances=apart)
            yield case, n >= 0.8 * len(files)


def load_cases(root: Path, held_back: bool) -> list[Case]:
    """Training cases, or those held back for validation."""
    sources = (acdc_cases, hippocampus_cases, other_volumes, lesion_cases, nrrd_cases, flat_cases)
    return [case for source in sources for case, held in source(root) if held == held_back]


@dataclass
class Episodes(IterableDataset):
    """Endless episodes; item n depends on the seed, the stage and n."""

    cases: list[Case]
    size: int
    start: int
    seed: int
    stride: int = 1
    interactions: int = 2

    def __iter__(self) -> Iterator[Episode]:
        cv2.setNumThreads(1)
        groups = {name: [c for c in self.cases if c.group == name] for name in SHARES}
        names, shares = list(SHARES), np.array(list(SHARES.values()))
        number = self.start
        while True:
            rng = np.random.default_rng((self.seed, self.size, number))
            number += self.stride
            episode = None
            while episode is None:
                name = names[int(rng.choice(len(names), p=shares / shares.sum()))]
                if name == "synthetic":
                    episode = synthetic_episode(self.size, self.interactions, rng)
                else:
                    case = groups[name][int(rng.integers(len(groups[name])))]
                    episode = real_episode(case, self.size, self.interactions, rng)
            yield episode


def collate(episodes: list[Episode]) -> tuple[Tensor, Tensor, PromptBatch, Tensor]:
    """Images (B, 3, S, S), targets (B, S/2, S/2), prompts and ambiguity of B * K interactions."""
    images = torch.stack([e.image for e in episodes])
    targets = torch.nn.functional.avg_pool2d(torch.stack([e.target for e in episodes])[:, None], 2)
    size = images.shape[-1]
    prompts = PromptBatch.collate([p for e in episodes for p in e.prompts], size, size // 2)
    return images, targets[:, 0], prompts, torch.tensor([a for e in episodes for a in e.ambiguous])


def corrected(
    prompts: PromptBatch, logits: Tensor, target: Tensor, rng: np.random.Generator
) -> PromptBatch:
    """The same prompts after one to three clicks on the largest errors of (B, H, W) logits."""
    items = []
    predictions, truths = (logits > 0).cpu().numpy(), (target > 0.5).cpu().numpy()
    for row in range(len(prompts)):
        kept = prompts.labels[row] >= 0
        points, labels = [prompts.points[row][kept]], [prompts.labels[row][kept]]
        wrong = predictions[row] != truths[row]
        for _ in range(int(rng.integers(1, 4))):
            part = users.largest_component(wrong)
            if part.sum() < 3:
                break
            point = users.inner_click(part, rng) if rng.random() < 0.5 else users.centre_click(part)
            inside = truths[row][int(point[0, 1]), int(point[0, 0])]
            points.append(torch.from_numpy(point * 2))
            labels.append(torch.tensor([int(inside)]))
            wrong = wrong & ~part
        box = None if torch.isnan(prompts.boxes[row]).any() else prompts.boxes[row]
        drawn = None if prompts.scribbles is None else prompts.scribbles[row]
        items.append(PixelPrompts(torch.cat(points), torch.cat(labels), box, logits[row], drawn))
    side = logits.shape[-1]
    return PromptBatch.collate(items, side * 2, side)


def place() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@torch.no_grad()
def exchange(parameters: list[torch.nn.Parameter], owner: int) -> None:
    """Give every process the owner's values."""
    packed = torch.cat([p.flatten() for p in parameters])
    dist.broadcast(packed, owner)
    for p, part in zip(parameters, packed.split([p.numel() for p in parameters]), strict=True):
        p.copy_(part.view_as(p))


class Optimiser:
    """Muon for matrices and convolutions, AdamW for the rest.

    Muon (Jordan et al. 2024) took half the steps of AdamW to the same loss here. torch's own
    takes matrices, so a convolution is handed over as a (outputs, inputs * kernel) view. The
    processes share its work: each updates some of the matrices and sends them to the others.
    Only the first process's momenta are saved; the others are soon found again.

    Args:
        model: Network whose parameters learn.
        rate: Learning rate of AdamW; Muon's is `MUON_RATIO` times as large.
    """

    def __init__(self, model: PromptsegModel, rate: float) -> None:
        named = list(model.named_parameters())
        plain = ("tokens", "concept", "rel_pos")
        self.wide = [p for n, p in named if p.ndim >= 2 and not any(word in n for word in plain)]
        taken = {id(p) for p in self.wide}
        self.flat = [torch.nn.Parameter(p.data.view(len(p), -1)) for p in self.wide]
        self.muon = torch.optim.Muon(self.flat, rate * MUON_RATIO, weight_decay=0.02)
        others = [p for _, p in named if id(p) not in taken]
        self.adam = torch.optim.AdamW(others, rate, (0.9, 0.98), weight_decay=0.02)

    def set_rate(self, rate: float) -> None:
        for optimiser, ratio in ((self.muon, MUON_RATIO), (self.adam, 1.0)):
            for group in optimiser.param_groups:
                group["lr"] = rate * ratio

    def step(self) -> None:
        rank, world = place()
        for n, (flat, parameter) in enumerate(zip(self.flat, self.wide, strict=True)):
            mine = n % world == rank and parameter.grad is not None
            flat.grad = parameter.grad.view_as(flat) if mine else None
        self.muon.step()
        self.adam.step()
        for owner in range(world if world > 1 else 0):
            exchange(self.flat[owner::world], owner)

    def state_dict(self) -> dict:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


class Trainer:
    """Model, moving average, optimiser and clock, saved together."""

    def __init__(self, out: Path, minutes: float, rate: float, seed: int, device: str) -> None:
        self.out, self.minutes, self.rate, self.seed, self.device = out, minutes, rate, seed, device
        torch.manual_seed(seed)
        self.model = PromptsegModel(PromptsegConfig()).to(device)
        self.average = PromptsegModel(PromptsegConfig()).to(device).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.optimiser = Optimiser(self.model, rate)
        self.step, self.seconds, self.drawn = 0, 0.0, 0
        self.rank, self.world = place()
        if (out / "last.pt").exists():
            self.load()

    def load(self) -> None:
        state = torch.load(self.out / "last.pt", weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.drawn = state["step"], state["seconds"], state["drawn"]

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "step": self.step,
            "seconds": self.seconds, "drawn": self.drawn,
        }  # fmt: skip
        with atomic_path(self.out / "last.pt") as path:
            torch.save(state, path)

    @property
    def progress(self) -> float:
        return min(1.0, self.seconds / (self.minutes * 60))

    def set_rate(self) -> None:
        warm = min(1.0, (self.step + 1) / 200)
        rate = self.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress)))
        self.optimiser.set_rate(rate)

    def losses(self, batch: tuple[Tensor, Tensor, PromptBatch, Tensor]) -> tuple[Tensor, dict]:
        """Loss of the first answers, and of the answers after corrections."""
        images, targets, prompts, ambiguous = batch
        size, each = images.shape[-1], len(prompts) // len(images)
        rng = np.random.default_rng((self.seed, self.step, self.rank))
        with torch.autocast(self.device, dtype=torch.bfloat16):
            features = self.model.encode(images.to(self.device))
            rows = torch.arange(len(images)).repeat_interleave(each)
            first = self.model.decode(
                tuple(f[rows] for f in features), prompt_maps(prompts, size).to(self.device)
            )
            picked = torch.from_numpy(
                np.arange(len(images)) * each + rng.integers(0, each, len(images))
            )
            prompts = corrected(
                prompts[picked], first[0][picked, 0].detach().float().cpu(), targets, rng
            )
            second = self.model.decode(features, prompt_maps(prompts, size).to(self.device))
        targets, ambiguous = targets.to(self.device), ambiguous.to(self.device)
        loss, parts = candidate_loss(*(x.float() for x in first), targets[rows], ambiguous)
        again, after = candidate_loss(
            *(x.float() for x in second), targets, ambiguous[:0].new_zeros(len(images))
        )
        return loss + 0.5 * again, {**parts, "corrected": after["iou"]}

    def share_gradients(self) -> None:
        """Average the gradients over the processes."""
        if self.world == 1:
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for g, part in zip(
            gradients, flat.div_(self.world).split([g.numel() for g in gradients]), strict=True
        ):
            g.copy_(part.view_as(g))

    def tick(self, seconds: float) -> None:
        """Advance the clock; every process follows the first."""
        clock = torch.tensor([self.seconds + seconds], dtype=torch.float64)
        if self.world > 1:
            dist.broadcast(clock, 0)
        self.seconds = float(clock)

    def update(self, batch: tuple[Tensor, Tensor, PromptBatch, Tensor]) -> dict[str, float]:
        self.set_rate()
        self.model.train()
        loss, parts = self.losses(batch)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        self.share_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        decay = min(0.998, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        self.step += 1
        return {"loss": float(loss.detach()), **{k: float(v.detach()) for k, v in parts.items()}}


def log(out: Path, row: dict) -> None:
    with open(out / "log.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    print(
        " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()),
        flush=True,
    )


def train(trainer: Trainer, cases: list[Case], save_every: float = 240.0) -> None:
    """Run every stage from where the trainer stands."""
    board = SummaryWriter(str(trainer.out)) if trainer.rank == 0 else None
    sums: dict[str, float] = {}
    saved = began = time.time()
    for end, size, batch in STAGES:
        if trainer.progress >= end:
            continue
        each = batch // trainer.world
        data = Episodes(cases, size, trainer.drawn + trainer.rank, trainer.seed, trainer.world)
        for loaded in DataLoader(data, each, collate_fn=collate):
            parts = trainer.update(loaded)
            trainer.drawn += each * trainer.world
            trainer.tick(time.time() - began)
            began = time.time()
            sums = {k: sums.get(k, 0.0) + v for k, v in {**parts, "steps": 1}.items()}
            if trainer.step % 100 == 0 and board is not None:
                report(trainer, size, sums, board)
                sums = {}
            if board is not None and time.time() - saved > save_every:
                trainer.save()
                saved = time.time()
            if trainer.progress >= end:
                break
    if board is not None:
        trainer.save()
        board.close()


def report(trainer: Trainer, size: int, sums: dict[str, float], board: SummaryWriter) -> None:
    """One line to the log, one point to each TensorBoard curve."""
    means = {k: v / sums["steps"] for k, v in sums.items() if k != "steps"}
    log(trainer.out, {"step": trainer.step, "size": size, "minutes": trainer.seconds / 60,
                      "seen": trainer.drawn, **means})  # fmt: skip
    for name, value in means.items():
        board.add_scalar(name, value, trainer.step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/default"))
    parser.add_argument("--minutes", type=float, default=95.0)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo" if chosen.device == "cpu" else "nccl")
    chosen.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(chosen.out, chosen.minutes, chosen.rate, chosen.seed, chosen.device)
    train(trainer, load_cases(chosen.data, held_back=False))


if __name__ == "__main__":
    main()
