"""Train the default model on ../shared/data, regions of its images and synthetic tasks.

    OMP_NUM_THREADS=1 nice -n 19 torchrun --nproc-per-node 2 weights/train_default.py --hours 40

One single-threaded process a core (or one process a GPU) is several times as fast on small
tensors as one process with many threads. A second call goes on from `last.pt`; the rate is
constant but for a warm-up and the last quarter of the hours, so that a run may be cut and gone on
with at any time. Every step has crops with prompts and a correction, views asked for structures by
name, and runs of slices in which the network's own answer is the next prompt. left_atrium and
medscribble are never read (`sources.py` says what else is held back).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from pretraining.episodes import Episode, real_episode, synthetic_episode
from pretraining.named import NamedCase, NamedEpisode, named_episode
from pretraining.pacing import follow, log, rate_share, run_to_end
from pretraining.processes import average_gradients, place
from pretraining.regions import region_episode
from pretraining.runs import Run, run_episode
from promptseg.backbones.base import PixelPrompts, PromptBatch
from promptseg.backbones.network import PromptsegConfig, PromptsegModel
from promptseg.backbones.prompt_maps import named_maps, prompt_maps
from promptseg.datasets.simulation import users
from promptseg.datasets.simulation.clicks import largest_component
from promptseg.finetune.learning import dense_loss
from promptseg.finetune.losses import (
    candidate_loss,
    cross_entropy,
    intersection_over_union,
    soft_dice_loss,
)
from promptseg.finetune.muon import Muon
from promptseg.inference.device import cpu_computes_bfloat16
from promptseg.io.atomic import atomic_path
from sources import load_cases, named_concepts

SHARES = {
    "acdc": 0.16, "hippocampus": 0.04, "totalsegmentator": 0.09, "brats": 0.07, "sarcoma": 0.04,
    "spinal_cord": 0.015, "ct_lesions": 0.015, "nrrd": 0.01,
    "chest_xray": 0.03, "covid_ct": 0.015, "fetal_head_us": 0.015, "glioma_flair": 0.03,
    "liver_ct": 0.025, "lung_nodule_ct": 0.015,
    "chaos_mr": 0.03, "mscmr_bssfp": 0.01, "mscmr_lge": 0.01, "aspects_ct": 0.01,
    "cerebellum_atlas": 0.01, "cit168_atlas": 0.01, "brainstem": 0.01,
    "fives_fundus": 0.015, "regions": 0.06, "synthetic": 0.07,
}  # fmt: skip
# Tasks that need no label.
MADE = ("regions", "synthetic")
# CT and MR are what the project is for; the rest of breadth teaches edges and textures.
BREADTH = {"CT": 0.14, "MR": 0.16, "US": 0.02, "EYE": 0.005, "ENDO": 0.008, "MICRO": 0.007}
# Small and large crops alternate: at 256 the network is asked, at 128 it learns four times as fast.
SIZES = ((128, 12), (128, 12), (128, 12), (256, 4))
# What small crops blur, such as the wall of a ventricle, is forgotten there: the end is at 256.
FINE_SIZES = ((256, 6),)
NAMED, RUNS = 1 / 6, 1 / 6
NAMED_WEIGHT, DENSE_WEIGHT, RUN_WEIGHT = 0.7, 0.1, 0.7
MUON_RATIO = 30.0
# Tokens of names learn so many times as fast, as those of adapters do.
NAMES_RATIO = 8.0
WARM = 100
# Parts of the body that one image may show together although its set labels few of them.
TOGETHER = (
    {"abdomen", "chest", "liver", "kidney", "prostate", "bladder", "spine", "heart", "colon",
     "limb", "breast", "bone", "ovary"},
    {"brain", "head", "neck"},
)  # fmt: skip
ENDINGS = {
    "CT": "_ct", "MR": "_mr", "US": "_us", "EYE": ("_fundus", "_octa"), "ENDO": "_endo",
    "MICRO": "_micro",
}  # fmt: skip


@dataclass
class Batch:
    """What one process learns from in one step.

    Args:
        images: (B, 3, S, S).
        targets: (B, S/2, S/2).
        prompts: Of B * K interactions.
        ambiguous: (B * K,) bool.
        named: Views asked by name.
        runs: Slices in a row.
    """

    images: Tensor
    targets: Tensor
    prompts: PromptBatch
    ambiguous: Tensor
    named: list[NamedEpisode]
    runs: list[Run]


class Draw:
    """Batches; batch n of a process depends on the seed and n."""

    def __init__(
        self,
        cases: list[NamedCase],
        concepts: list[str],
        seed: int,
        fine: bool = False,
        without: Collection[str] = (),
    ) -> None:
        cv2.setNumThreads(1)
        self.cases, self.seed, self.fine = cases, seed, fine
        self.numbers = {name: n for n, name in enumerate(concepts)}
        self.groups: dict[str, list[NamedCase]] = {}
        for case in cases:
            self.groups.setdefault(case.group, []).append(case)
        here = {*self.groups, *MADE} - set(without)
        shares = {**SHARES, **breadth_shares(self.groups)}
        self.shares = {group: share for group, share in shares.items() if group in here}
        self.named = {g: s for g, s in self.shares.items() if self._names(g)}
        self.deep = {
            g: s for g, s in self.shares.items()
            if g in self.groups and self.groups[g][0].image.shape[-1] > 1
        }  # fmt: skip
        self.foreign = {case.body: self._foreign(case.body) for case in cases}

    def _names(self, group: str) -> bool:
        return any(set(case.called) & set(self.numbers) for case in self.groups.get(group, ()))

    def _foreign(self, body: str) -> list[str]:
        """Concepts of parts of the body that share no word with this one."""
        words = set(body.replace("/", " ").split())
        shared = next((region for region in TOGETHER if words & region), set())
        here = words | shared
        near = {
            name for case in self.cases if set(case.body.replace("/", " ").split()) & here
            for name in case.called
        }  # fmt: skip
        return sorted(set(self.numbers) - near)

    def _until(self, draw: Callable[[], object]) -> object:
        while True:
            made = draw()
            if made is not None:
                return made

    def _case(self, shares: dict[str, float], rng: np.random.Generator) -> NamedCase:
        names, chances = list(shares), np.array(list(shares.values()))
        group = self.groups[names[int(rng.choice(len(names), p=chances / chances.sum()))]]
        return group[int(rng.integers(len(group)))]

    def single(self, size: int, rng: np.random.Generator) -> Episode | None:
        names, chances = list(self.shares), np.array(list(self.shares.values()))
        name = names[int(rng.choice(len(names), p=chances / chances.sum()))]
        if name == "synthetic":
            return synthetic_episode(size, 2, rng)
        if name == "regions":
            return region_episode(self._case(self.labelled, rng), size, 2, rng)
        return real_episode(
            self.groups[name][int(rng.integers(len(self.groups[name])))], size, 2, rng
        )

    @property
    def labelled(self) -> dict[str, float]:
        return {g: s for g, s in self.shares.items() if g in self.groups}

    def singles(self, size: int, count: int, rng: np.random.Generator) -> list[Episode]:
        """So many crops with prompts."""
        return [self._until(lambda: self.single(size, rng)) for _ in range(count)]

    def batch(self, number: int, world: int, rank: int) -> Batch:
        sizes = FINE_SIZES if self.fine else SIZES
        size, count = sizes[number % len(sizes)]
        rng = np.random.default_rng((self.seed, rank, number))
        count = max(2, count // world)
        singles = self.singles(size, count, rng)
        asked = 0 if self.fine else max(1, round(count * NAMED))
        named = [
            self._until(lambda: self._named(self._case(self.named, rng), size, rng))
            for _ in range(asked)
        ]
        rows = max(1, round(count * RUNS))
        runs = [self._until(lambda: run_episode(self._case(self.deep, rng), size, rng))
                for _ in range(rows)]  # fmt: skip
        return Batch(*collate(singles), named, runs)

    def _named(self, case: NamedCase, size: int, rng: np.random.Generator) -> NamedEpisode | None:
        return named_episode(case, size, self.numbers, self.foreign[case.body], rng)


def collate(episodes: list[Episode]) -> tuple[Tensor, Tensor, PromptBatch, Tensor]:
    """Images (B, 3, S, S), targets (B, S/2, S/2), prompts and ambiguity of B * K interactions."""
    images = torch.stack([e.image for e in episodes])
    targets = functional.avg_pool2d(torch.stack([e.target for e in episodes])[:, None], 2)[:, 0]
    size = images.shape[-1]
    prompts = PromptBatch.collate([p for e in episodes for p in e.prompts], size, size // 2)
    return images, targets, prompts, torch.tensor([a for e in episodes for a in e.ambiguous])


def breadth_shares(groups: Iterable[str]) -> dict[str, float]:
    """Each set of breadth by itself: the share of its modality, divided evenly."""
    by_kind = {kind: [g for g in groups if g.endswith(ends) and g not in SHARES]
               for kind, ends in ENDINGS.items()}  # fmt: skip
    return {g: BREADTH[kind] / len(held) for kind, held in by_kind.items() for g in held}


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
            part = largest_component(wrong)
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


def computes_bfloat16(device: str) -> bool:
    """True where bfloat16 is faster than single precision, not merely possible."""
    return device != "cpu" or cpu_computes_bfloat16()


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
        fine: AdamW for all. A step of Muon is as long whatever the gradient: of small batches from
            weights that know much it is noise (myocardium 0.895 -> 0.724 in 230 steps at 5e-5).
    """

    def __init__(self, model: PromptsegModel, rate: float, fine: bool = False) -> None:
        named = list(model.named_parameters())
        plain = ("tokens", "concept", "names", "rel_pos")
        wide = [p for n, p in named if p.ndim >= 2 and not any(word in n for word in plain)]
        self.wide = [] if fine else wide
        taken = {id(p) for p in self.wide}
        self.flat = [torch.nn.Parameter(p.data.view(len(p), -1)) for p in self.wide]
        self.muon = Muon(self.flat, rate * MUON_RATIO, weight_decay=0.02) if self.flat else None
        others = [(n, p) for n, p in named if id(p) not in taken]
        names = [p for n, p in others if n.endswith("names.weight")]
        rest = [p for n, p in others if not n.endswith("names.weight")]
        groups = [{"params": rest, "ratio": 1.0}, {"params": names, "ratio": NAMES_RATIO}]
        self.adam = torch.optim.AdamW(groups, rate, (0.9, 0.98), weight_decay=0.02)

    def set_rate(self, rate: float) -> None:
        for group in () if self.muon is None else self.muon.param_groups:
            group["lr"] = rate * MUON_RATIO
        for group in self.adam.param_groups:
            group["lr"] = rate * group["ratio"]

    def step(self) -> None:
        rank, world = place()
        for n, (flat, parameter) in enumerate(zip(self.flat, self.wide, strict=True)):
            mine = n % world == rank and parameter.grad is not None
            flat.grad = parameter.grad.view_as(flat) if mine else None
        if self.muon is not None:
            self.muon.step()
        self.adam.step()
        for owner in range(world if world > 1 else 0):
            exchange(self.flat[owner::world], owner)

    def state_dict(self) -> dict:
        muon = {} if self.muon is None else {"muon": self.muon.state_dict()}
        return {**muon, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        if self.muon is not None:
            self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


class Trainer:
    """Model, moving average, optimiser and clock, saved together."""

    def __init__(
        self,
        out: Path,
        hours: float,
        rate: float,
        seed: int,
        device: str,
        concepts: list[str],
        fine: bool = False,
    ) -> None:
        self.out, self.hours, self.rate, self.seed, self.device = out, hours, rate, seed, device
        torch.manual_seed(seed)
        config = PromptsegConfig(names=concepts)
        self.model = PromptsegModel(config).to(device)
        self.average = PromptsegModel(config).to(device).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.optimiser = Optimiser(self.model, rate, fine)
        self.step, self.seconds, self.drawn = 0, 0.0, 0
        self.rank, self.world = place()
        if (out / "last.pt").exists():
            self.load()

    def start_from(self, path: Path) -> None:
        """Take over the weights of an earlier model; new names begin near "whatever is asked"."""
        state = load_file(path)
        with torch.no_grad():
            names = self.model.mask_decoder.names.weight
            general = state["mask_decoder.concept.weight"]
            names.copy_(general + general.std() * torch.randn(names.shape))
        own = self.model.state_dict()
        own.update({name: value.to(own[name]) for name, value in state.items() if name in own})
        self.model.load_state_dict(own)
        self.average.load_state_dict(own)

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
            "names": list(self.model.config.names),
        }  # fmt: skip
        with atomic_path(self.out / "last.pt") as path:
            torch.save(state, path)

    @property
    def progress(self) -> float:
        return min(1.0, self.seconds / (self.hours * 3600))

    def losses(self, batch: Batch) -> tuple[Tensor, dict]:
        """Loss of the first answers, after corrections, by name, and along runs."""
        with torch.autocast(self.device, torch.bfloat16, enabled=computes_bfloat16(self.device)):
            prompted, parts = self.prompted_loss(batch)
            named, more = self.named_loss(batch.named) if batch.named else (prompted * 0, {})
            run, most = self.run_loss(batch.runs)
        loss = prompted + NAMED_WEIGHT * named + RUN_WEIGHT * run
        return loss, {**parts, **more, **most}

    def prompted_loss(self, batch: Batch) -> tuple[Tensor, dict]:
        images, prompts = batch.images, batch.prompts
        size, each = images.shape[-1], len(prompts) // len(images)
        rng = np.random.default_rng((self.seed, self.step, self.rank))
        features = self.model.encode(images.to(self.device))
        rows = torch.arange(len(images)).repeat_interleave(each)
        first = self.model.decode(
            tuple(f[rows] for f in features), prompt_maps(prompts, size).to(self.device)
        )
        picked = torch.from_numpy(
            np.arange(len(images)) * each + rng.integers(0, each, len(images))
        )
        fixed = corrected(
            prompts[picked], first[0][picked, 0].detach().float().cpu(), batch.targets, rng
        )
        second = self.model.decode(features, prompt_maps(fixed, size).to(self.device))
        targets, ambiguous = batch.targets.to(self.device), batch.ambiguous.to(self.device)
        loss, parts = candidate_loss(*(x.float() for x in first), targets[rows], ambiguous)
        single = ambiguous.new_zeros(len(images))
        again, after = candidate_loss(*(x.float() for x in second), targets, single)
        return loss + 0.5 * again, {**parts, "corrected": after["iou"]}

    def named_loss(self, episodes: list[NamedEpisode]) -> tuple[Tensor, dict]:
        """Every view asked for each of its structures by the token alone, as adapters are."""
        images = torch.stack([e.image for e in episodes]).to(self.device)
        masks = torch.stack([e.masks for e in episodes]).to(self.device)
        concepts = torch.stack([e.concepts for e in episodes]).to(self.device)
        tokens = self.model.mask_decoder.names(concepts)
        features = self.model.encode(images)
        views, asked = concepts.shape
        rows = torch.arange(views).repeat_interleave(asked)
        nothing = PromptBatch.collate([PixelPrompts()] * len(rows), images.shape[-1],
                                      images.shape[-1] // 2)  # fmt: skip
        token = tokens.flatten(0, 1)
        maps = prompt_maps(nothing, images.shape[-1]).to(self.device)
        maps = named_maps(maps, features[0][rows], token)
        logits, quality, presence = (
            x.float() for x in self.model.decode(tuple(f[rows] for f in features), maps, token)
        )
        target = masks.flatten(0, 1)
        mask = soft_dice_loss(logits[:, 0], target) + 3 * cross_entropy(logits[:, 0], target)
        overlap = intersection_over_union(logits[:, 0].detach(), target)
        shown = (target > 0.5).flatten(1).any(1)
        scoring = functional.mse_loss(quality[:, 0].sigmoid(), overlap)
        seen = functional.binary_cross_entropy_with_logits(presence, shown.float())
        own = masks / masks.sum(1, keepdim=True).clamp(min=1)
        dense = dense_loss(features[0], tokens, own).mean()
        loss = mask.mean() + scoring + 0.4 * seen + DENSE_WEIGHT * dense
        right = ((presence > 0) == shown).float().mean()
        return loss, {"named": overlap[shown].mean() if shown.any() else overlap.mean(),
                      "named_presence": right}  # fmt: skip

    def run_loss(self, runs: list[Run]) -> tuple[Tensor, dict]:
        """Slice after slice, the answer on one handed to the next as its rough mask."""
        size = runs[0].images.shape[-1]
        images = torch.stack([run.images for run in runs], 1).to(self.device)
        targets = torch.stack([run.targets for run in runs], 1).to(self.device)
        features = self.model.encode(images.flatten(0, 1))
        prompts = [run.prompt for run in runs]
        steps, count = images.shape[:2]
        total, overlaps = images.new_zeros(()), []
        single = torch.zeros(count, dtype=torch.bool, device=self.device)
        for n in range(steps):
            batch = PromptBatch.collate(prompts, size, size // 2)
            maps = prompt_maps(batch, size).to(self.device)
            answer = self.model.decode(
                tuple(f[n * count : (n + 1) * count] for f in features), maps
            )
            loss, parts = candidate_loss(*(x.float() for x in answer), targets[n], single)
            total = total + loss / steps
            overlaps.append(parts["iou"])
            given = answer[0][:, 0].detach().float().cpu()
            prompts = [PixelPrompts(mask=one) for one in given]
        return total, {"run_first": overlaps[0], "run_last": overlaps[-1]}

    def update(self, batch: Batch) -> dict[str, float]:
        self.optimiser.set_rate(self.rate * rate_share(self, WARM))
        self.model.train()
        loss, parts = self.losses(batch)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        follow(self.average, self.model, self.step)
        self.step += 1
        return {"loss": float(loss.detach()), **{k: float(v.detach()) for k, v in parts.items()}}


def train(trainer: Trainer, draw: Draw) -> None:
    """From where the trainer stands to the end of its hours."""
    board = SummaryWriter(str(trainer.out)) if trainer.rank == 0 else None

    def learn() -> dict[str, float]:
        batch = draw.batch(trainer.step, trainer.world, trainer.rank)
        trainer.drawn += trainer.world * (len(batch.images) + len(batch.named) + len(batch.runs))
        return trainer.update(batch)

    def report(means: dict[str, float]) -> None:
        """One line to the log, one point to each TensorBoard curve."""
        clock = {"step": trainer.step, "minutes": trainer.seconds / 60, "seen": trainer.drawn}
        log(trainer.out, {**clock, **means})
        for name, value in means.items():
            board.add_scalar(name, value, trainer.step)

    run_to_end(trainer, learn, report, every=100)
    if board is not None:
        board.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/default"))
    parser.add_argument("--hours", type=float, default=20.0, help="of the processor, in all")
    # From weights that can do something already 3e-4 loses what they knew (weights/README.md).
    parser.add_argument("--rate", type=float, help="5e-5 with --start, else 3e-4")
    parser.add_argument("--start", type=Path, help="weights to start from; none is from scratch")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="SET",
        help="sets to leave out, for a base that never saw their labels; also "
        f"{' and '.join(MADE)}, tasks made without labels",
    )
    parser.add_argument(
        "--fine",
        action="store_true",
        help="go on gently: crops of 256 pixels and AdamW alone, nothing asked by name",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo" if chosen.device == "cpu" else "nccl")
    chosen.out.mkdir(parents=True, exist_ok=True)
    cases = list(load_cases(chosen.data, held_back=False))
    unknown = set(chosen.without) - {case.group for case in cases} - set(MADE)
    if unknown:
        parser.error(f"--without {' '.join(sorted(unknown))}: no such set is trained on")
    cases = [case for case in cases if case.group not in chosen.without]
    concepts = named_concepts(cases)
    rate = chosen.rate or (3e-4 if chosen.start is None else 5e-5)
    trainer = Trainer(chosen.out, chosen.hours, rate, chosen.seed, chosen.device, concepts,
                      chosen.fine)  # fmt: skip
    if chosen.start is not None and trainer.step == 0:
        trainer.start_from(chosen.start)
    train(trainer, Draw(cases, concepts, chosen.seed, chosen.fine, chosen.without))


if __name__ == "__main__":
    main()
