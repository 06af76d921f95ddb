"""Train the ranking of the masks that a click or a box could mean, on those of the shipped model.

    OMP_NUM_THREADS=1 python weights/train_ranking.py --out runs/ranking
    OMP_NUM_THREADS=1 python weights/train_ranking.py --clicks 0 --out runs/ranking   # boxes alone

Clicks targets of training images as a user would, mostly at their deepest point, and draws boxes
around them, some of them loose, some around the whole of a target in 3D; keeps the features and the
Dice of every candidate (resumable: `clicks.pt`, `boxes.pt` and `rings.pt`, the boxes in hearts, are
gone on with). Then fits the members of a network for each to the Dice, and to the choice itself:
the mean Dice of what a softmax of its scores picks. Folds of whole data sets say what it is worth
on sets that it has not seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretraining.episodes import choose_target, pick_component
from pretraining.named import NamedCase
from promptseg.datasets.simulation import users
from promptseg.evaluate.tasks import fixed_window
from promptseg.inference import multimask
from promptseg.inference.box_reading import FACTORS, LEVELS, box_looks
from promptseg.inference.crop import CROP
from promptseg.inference.ranking import (
    NAME,
    RankingNetwork,
    RankingNetworks,
    load_ranking,
    save_ranking,
)
from promptseg.inference.slice_prompts import SlicePrompts, sort_prompts
from promptseg.io.atomic import atomic_path
from promptseg.predictor.engine import Engine
from promptseg.prompts.types import Box, Point, PromptSet
from promptseg.session import Segmenter, Session
from promptseg.volume import Volume
from promptseg.weights.registry import sha256_file
from sources import load_cases

# CT and MR are what the project is for; other pictures teach edges.
SHARES = {"_us": 0.4, "_fundus": 0.15, "_octa": 0.15, "_endo": 0.15, "_micro": 0.15}
CENTRED, ALONE, LEAST_PIXELS = 0.7, 0.3, 20
# Of the boxes, those that are larger than tight, and by which share of their side at most.
JITTER, LOOSE, LOOSEST = 0.05, 0.4, 0.15
EPOCHS, RATE, BATCH, DECAY = 20, 2e-3, 64, 1e-2
# A box around a ventricle with a tenth of room is nearly that of its wall: what tells the two apart
# takes more boxes around them than one set of many has.
RINGED, RINGS_DEEP = ("acdc", "mscmr_bssfp", "mscmr_lge"), 0.3
# Of the boxes in volumes, those around all slices of a target, asked for on the middle one.
DEEP, LEAST_DEEP = 0.5, 3
# How sharply a score decides, and how much the Dice itself counts beside the choice.
SHARPNESS, REGRESSION = 4.0, 3.0
FOLDS = 5


@dataclass
class Asked:
    """One click or box and what it could have meant.

    Args:
        group: Data set.
        features: (N, F) of the candidates, see `ranking_features.FEATURES` and
            `box_features.FEATURES`.
        dice: (N,) with the target.
        trust: (N,) what is chosen without a ranking: the greatest.
    """

    group: str
    features: np.ndarray
    dice: np.ndarray
    trust: np.ndarray


@dataclass
class Target:
    """A target on a slice of a training image, and a session on that slice and its neighbours.

    Args:
        truth: (H, W) bool.
        session: Of the slices.
        index: Of the target's slice in the session's volume.
        shadow: (H, W) what a box is drawn around: the truth, or what the target fills on any slice.
    """

    truth: np.ndarray
    session: Session
    index: int
    shadow: np.ndarray

    def prepared(self, prompt: Point | Box) -> tuple[Engine, int, SlicePrompts]:
        """Engine, slice and what the prompt says there."""
        asker = self.session.asker
        resolved = asker.seen.prompts(PromptSet([prompt]).to_voxel(self.session.volume))
        engine = asker.prepared(resolved, 2)
        ((place, said),) = sort_prompts(resolved, engine.axis, engine.shape)[1].items()
        return engine, place, said

    def reached(self, engine: Engine, place: int, masks: Iterable[np.ndarray]) -> np.ndarray:
        """Dice of (H, W) masks of the engine's slice with the truth; 0 of empty ones."""
        dice = []
        for one in masks:
            mask = np.zeros(engine.shape, bool)
            np.moveaxis(mask, engine.axis, 0)[place] = one
            drawn = np.asarray(self.session.asker.seen.in_file(mask))[:, :, self.index]
            dice.append(multimask.overlap(drawn, self.truth) if drawn.any() else 0.0)
        return np.array(dice, np.float32)


def drawn_target(
    segmenter: Segmenter, case: NamedCase, rng: np.random.Generator, deep: bool = False
) -> Target | None:
    """A random target of a case, on its middle slice if `deep`; None if the draw had none."""
    axis = int(rng.choice(case.axes))
    chosen = choose_target(case, axis, rng)
    if chosen is None:
        return None
    index, labels = chosen
    slices = np.moveaxis(case.labels, axis, 0)
    if deep:
        filled = np.isin(slices, labels)
        held = np.flatnonzero(filled.any((1, 2)))
        if np.ptp(held) + 1 < LEAST_DEEP:
            return None
        index = int(held[0] + held[-1]) // 2
        truth, shadow = filled[index], filled.any(0)
    else:
        truth = np.isin(slices[index], labels)
        if case.instances or rng.random() < ALONE:
            truth = pick_component(np.repeat(truth[..., None], 3, -1), rng)[..., 1]
        shadow = truth
    if truth.sum() < LEAST_PIXELS:
        return None
    low, high = max(0, index - 1), min(case.image.shape[axis], index + 2)
    slab = np.moveaxis(np.moveaxis(case.image, axis, 0)[low:high], 0, -1)
    sides = [s for a, s in enumerate(case.spacing) if a != axis] + [case.spacing[axis]]
    volume = Volume(np.ascontiguousarray(slab), np.diag([*sides, 1.0]).astype(float))
    whole = Volume(case.image, np.diag([*case.spacing, 1.0]).astype(float))
    session = segmenter.session(volume, window=fixed_window(whole, None))
    return Target(truth, session, index - low, shadow)


def clicked(segmenter: Segmenter, case: NamedCase, rng: np.random.Generator) -> Asked | None:
    """A click on a random target of a case; None if the draw had none."""
    target = drawn_target(segmenter, case, rng)
    if target is None:
        return None
    centred, truth = rng.random() < CENTRED, target.truth
    x, y = (users.centre_click(truth) if centred else users.inner_click(truth, rng))[0]
    engine, place, click = target.prepared(Point((int(y), int(x), target.index)))
    looks = multimask.looked_at(engine.decoder, engine.axis, engine.spacing, place, click)
    dice = target.reached(engine, place, (one.mask for one in looks.masks))
    trust = np.array([one.trust for one in looks.masks], np.float32)
    return Asked(case.group, looks.features(), dice, trust)


def boxed(
    segmenter: Segmenter, case: NamedCase, rng: np.random.Generator, share: float = DEEP
) -> Asked | None:
    """A box around a random target of a case, in 3D for a `share`; None if the draw had none."""
    volume = min(case.image.shape) >= LEAST_DEEP and not case.instances
    deep = bool(rng.random() < share) and volume
    target = drawn_target(segmenter, case, rng, deep)
    if target is None:
        return None
    loose = rng.uniform(0, LOOSEST) if rng.random() < LOOSE else 0.0
    drawn = users.jittered_box(target.shadow, rng, JITTER, loose)
    x0, y0, x1, y1 = np.floor(drawn + 0.5).astype(int)
    x0, y0 = (min(first, side - 1) for first, side in zip((x0, y0), target.truth.shape[::-1],
                                                          strict=True))  # fmt: skip
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    around = int(deep)
    box = Box(
        (int(y0), int(x0), target.index - around), (int(y1), int(x1), target.index + 1 + around)
    )
    engine, place, said = target.prepared(box)
    looks = box_looks(engine.decoder, engine.axis, engine.spacing, place, said)
    dice = target.reached(engine, place, looks.masks)
    trust = np.zeros(len(dice), np.float32)
    trust[FACTORS.index(CROP.trained) * len(LEVELS) + LEVELS.index(0.0)] = 1.0
    return Asked(case.group, looks.features(), dice, trust)


DRAWN: dict[str, Callable[..., Asked | None]] = {
    "clicks": clicked,
    "boxes": boxed,
    "rings": partial(boxed, share=RINGS_DEEP),
}


def gathered(
    kind: str, segmenter: Segmenter, cases: list[NamedCase], count: int, seed: int, out: Path
) -> list[Asked]:
    """So many clicks, boxes or rings, every set as often as any other; gone on with."""
    file = out / f"{kind}.pt"
    rows: list[Asked] = torch.load(file, weights_only=False) if file.is_file() else []
    groups: dict[str, list[NamedCase]] = {}
    for case in cases:
        if kind != "rings" or case.group in RINGED:
            groups.setdefault(case.group, []).append(case)
    names = sorted(groups)
    chances = np.array([next((v for k, v in SHARES.items() if n.endswith(k)), 1.0) for n in names])
    rng = np.random.default_rng((seed, len(rows)))
    while len(rows) < count:
        group = groups[names[int(rng.choice(len(names), p=chances / chances.sum()))]]
        one = DRAWN[kind](segmenter, group[int(rng.integers(len(group)))], rng)
        if one is None:
            continue
        rows.append(one)
        if len(rows) % 100 == 0 or len(rows) == count:
            print(f"{len(rows)} {kind}: {told(rows)}", flush=True)
            with atomic_path(file) as path:
                torch.save(rows, path)
    return rows


def told(rows: list[Asked], picked: np.ndarray | None = None) -> str:
    """Mean Dice over data sets of what is chosen without, of what was picked, and of the best."""
    quality = [r.dice[r.trust.argmax()] for r in rows]
    best = [r.dice.max() for r in rows]
    shown = {"without": quality, **({} if picked is None else {"by ranking": picked}),
             "best of all": best}  # fmt: skip
    return ", ".join(f"{name} {by_set(rows, values):.3f}" for name, values in shown.items())


def by_set(rows: list[Asked], values: list[float] | np.ndarray) -> float:
    """Mean of the means of data sets."""
    held: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        held.setdefault(row.group, []).append(float(value))
    return float(np.mean([np.mean(one) for one in held.values()]))


def packed(rows: list[Asked]) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, F) features, (B, N) Dice, (B, N) which are there."""
    most = max(len(r.dice) for r in rows)
    features = torch.zeros(len(rows), most, rows[0].features.shape[1])
    dice, valid = torch.zeros(len(rows), most), torch.zeros(len(rows), most, dtype=torch.bool)
    for n, row in enumerate(rows):
        held = len(row.dice)
        features[n, :held] = torch.from_numpy(row.features)
        dice[n, :held] = torch.from_numpy(row.dice)
        valid[n, :held] = True
    return features, dice, valid


def fitted(rows: list[Asked], epochs: int, seed: int) -> RankingNetwork:
    """A network trained on clicks."""
    torch.manual_seed(seed)
    features, dice, valid = packed(rows)
    network = RankingNetwork(features.shape[-1])
    network.mean.copy_(features[valid].mean(0))
    network.spread.copy_(features[valid].std(0).clamp(min=0.05))
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    steps = epochs * -(-len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    for _ in range(epochs):
        for some in torch.randperm(len(rows)).split(BATCH):
            scores = network(features[some], valid[some])
            choice = (SHARPNESS * scores).softmax(-1)
            wrong = (scores.sigmoid() - dice[some]).square() * valid[some]
            picked = (choice * dice[some]).sum(-1).mean(-1)
            loss = (REGRESSION * wrong.sum((1, 2)) / valid[some].sum() - picked).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def picked_by(network: RankingNetwork, rows: list[Asked]) -> np.ndarray:
    """Dice of what a network picks."""
    features, dice, valid = packed(rows)
    chosen = network(features, valid).sigmoid().mean(0).argmax(1, keepdim=True)
    return dice.gather(1, chosen)[:, 0].numpy()


def across_sets(rows: list[Asked], epochs: int) -> str:
    """What networks pick on data sets that they have not seen."""
    names = sorted({r.group for r in rows})
    fold = {name: n % FOLDS for n, name in enumerate(np.random.default_rng(0).permutation(names))}
    picked = np.zeros(len(rows), np.float32)
    for n in range(FOLDS):
        apart = np.array([fold[r.group] == n for r in rows])
        network = fitted([r for r, held in zip(rows, apart, strict=True) if not held], epochs, n)
        picked[apart] = picked_by(network, [r for r, held in zip(rows, apart, strict=True) if held])
    return told(rows, picked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/ranking"))
    parser.add_argument("--model", default=str(Path(__file__).with_name("default.safetensors")))
    parser.add_argument("--clicks", type=int, default=2000, help="0 keeps those that ship")
    parser.add_argument("--boxes", type=int, default=2000)
    parser.add_argument("--rings", type=int, default=1600, help="boxes in hearts beside them")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    base = sha256_file(Path(chosen.model))
    if not chosen.clicks and load_ranking().base != base:
        parser.error("--clicks 0 keeps the ranking that ships, and it belongs to another model")
    chosen.out.mkdir(parents=True, exist_ok=True)
    segmenter = Segmenter.from_pretrained(chosen.model, ranking=None)
    cases = load_cases(chosen.data, held_back=False)

    def fit(*kinds: str) -> RankingNetwork:
        rows: list[Asked] = []
        for kind in kinds:
            count = getattr(chosen, kind)
            rows += gathered(kind, segmenter, cases, count, chosen.seed, chosen.out)
        print(f"{kinds[0]}, sets apart: {across_sets(rows, chosen.epochs)}", flush=True)
        return fitted(rows, chosen.epochs, chosen.seed)

    box = fit("boxes", "rings")
    click = fit("clicks") if chosen.clicks else load_ranking().network.click
    networks = RankingNetworks(click.config, box.config)
    networks.click, networks.box = click, box
    about = {name: str(getattr(chosen, name)) for name in ("clicks", "boxes", "rings", "epochs")}
    target = chosen.out / f"{NAME}.safetensors"
    save_ranking(networks, base, target, about)
    print(f"{target}: {target.stat().st_size} bytes, sha256 {sha256_file(target)}")


if __name__ == "__main__":
    main()
