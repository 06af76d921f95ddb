"""Train the ranking of the masks that a click could mean, on the masks of the shipped model.

    OMP_NUM_THREADS=1 python weights/train_ranking.py --clicks 3000 --out runs/ranking

Clicks targets of training images as a user would, mostly at their deepest point, and keeps the
features and the Dice of every candidate (resumable: `clicks.pt` is gone on with). Then fits the
members of the network to the Dice, and to the choice itself: the mean Dice of what a softmax of its
scores picks. Folds of whole data sets say what it is worth on sets that it has not seen.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretraining.episodes import choose_target, pick_component
from pretraining.named import NamedCase
from promptseg.datasets.simulation import users
from promptseg.evaluate.tasks import fixed_window
from promptseg.inference import multimask
from promptseg.inference.ranking import NAME, RankingNetwork, save_ranking
from promptseg.inference.slice_prompts import sort_prompts
from promptseg.io.atomic import atomic_path
from promptseg.prompts.types import Point, PromptSet
from promptseg.session import Segmenter
from promptseg.volume import Volume
from promptseg.weights.registry import sha256_file
from sources import load_cases

# CT and MR are what the project is for; other pictures teach edges.
SHARES = {"_us": 0.4, "_fundus": 0.15, "_octa": 0.15, "_endo": 0.15, "_micro": 0.15}
CENTRED, ALONE, LEAST_PIXELS = 0.7, 0.3, 20
EPOCHS, RATE, BATCH, DECAY = 20, 2e-3, 64, 1e-2
# How sharply a score decides, and how much the Dice itself counts beside the choice.
SHARPNESS, REGRESSION = 4.0, 3.0
FOLDS = 5


@dataclass
class Clicked:
    """One click and what it could have meant.

    Args:
        group: Data set.
        features: (N, F) of the candidates, see `candidate_features`.
        dice: (N,) with the target.
        trust: (N,) by predicted quality, what is chosen without a ranking.
    """

    group: str
    features: np.ndarray
    dice: np.ndarray
    trust: np.ndarray


def clicked(segmenter: Segmenter, case: NamedCase, rng: np.random.Generator) -> Clicked | None:
    """A click on a random target of a case; None if the draw had none."""
    axis = int(rng.choice(case.axes))
    chosen = choose_target(case, axis, rng)
    if chosen is None:
        return None
    index, labels = chosen
    truth = np.isin(np.moveaxis(case.labels, axis, 0)[index], labels)
    if case.instances or rng.random() < ALONE:
        truth = pick_component(np.repeat(truth[..., None], 3, -1), rng)[..., 1]
    if truth.sum() < LEAST_PIXELS:
        return None
    centred = rng.random() < CENTRED
    x, y = (users.centre_click(truth) if centred else users.inner_click(truth, rng))[0]
    low, high = max(0, index - 1), min(case.image.shape[axis], index + 2)
    slab = np.moveaxis(np.moveaxis(case.image, axis, 0)[low:high], 0, -1)
    sides = [s for a, s in enumerate(case.spacing) if a != axis] + [case.spacing[axis]]
    volume = Volume(np.ascontiguousarray(slab), np.diag([*sides, 1.0]).astype(float))
    whole = Volume(case.image, np.diag([*case.spacing, 1.0]).astype(float))
    session = segmenter.session(volume, window=fixed_window(whole, None))
    prompts = PromptSet([Point((int(y), int(x), index - low))])
    asker = session.asker
    resolved = asker.seen.prompts(prompts.to_voxel(volume))
    engine = asker.prepared(resolved, 2)
    ((place, click),) = sort_prompts(resolved, engine.axis, engine.shape)[1].items()
    looks = multimask.looked_at(engine.decoder, engine.axis, engine.spacing, place, click)
    dice = []
    for one in looks.masks:
        mask = np.zeros(engine.shape, bool)
        np.moveaxis(mask, engine.axis, 0)[place] = one.mask
        drawn = np.asarray(asker.seen.in_file(mask))[:, :, index - low]
        dice.append(multimask.overlap(drawn, truth) if drawn.any() else 0.0)
    trust = np.array([one.trust for one in looks.masks], np.float32)
    return Clicked(case.group, looks.features(), np.array(dice, np.float32), trust)


def gathered(segmenter: Segmenter, data: Path, count: int, seed: int, out: Path) -> list[Clicked]:
    """So many clicks, every data set as often as any other of its kind; gone on with."""
    file = out / "clicks.pt"
    rows: list[Clicked] = torch.load(file, weights_only=False) if file.is_file() else []
    groups: dict[str, list[NamedCase]] = {}
    for case in load_cases(data, held_back=False):
        groups.setdefault(case.group, []).append(case)
    names = sorted(groups)
    chances = np.array([next((v for k, v in SHARES.items() if n.endswith(k)), 1.0) for n in names])
    rng = np.random.default_rng((seed, len(rows)))
    while len(rows) < count:
        group = groups[names[int(rng.choice(len(names), p=chances / chances.sum()))]]
        one = clicked(segmenter, group[int(rng.integers(len(group)))], rng)
        if one is None:
            continue
        rows.append(one)
        if len(rows) % 100 == 0 or len(rows) == count:
            print(f"{len(rows)} clicks: {told(rows)}", flush=True)
            with atomic_path(file) as path:
                torch.save(rows, path)
    return rows


def told(rows: list[Clicked], picked: np.ndarray | None = None) -> str:
    """Mean Dice over data sets of what quality picks, of what was picked, and of the best."""
    quality = [r.dice[r.trust.argmax()] for r in rows]
    best = [r.dice.max() for r in rows]
    shown = {"by quality": quality, **({} if picked is None else {"by ranking": picked}),
             "best of all": best}  # fmt: skip
    return ", ".join(f"{name} {by_set(rows, values):.3f}" for name, values in shown.items())


def by_set(rows: list[Clicked], values: list[float] | np.ndarray) -> float:
    """Mean of the means of data sets."""
    held: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        held.setdefault(row.group, []).append(float(value))
    return float(np.mean([np.mean(one) for one in held.values()]))


def packed(rows: list[Clicked]) -> tuple[Tensor, Tensor, Tensor]:
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


def fitted(rows: list[Clicked], epochs: int, seed: int) -> RankingNetwork:
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
def picked_by(network: RankingNetwork, rows: list[Clicked]) -> np.ndarray:
    """Dice of what a network picks."""
    features, dice, valid = packed(rows)
    chosen = network(features, valid).sigmoid().mean(0).argmax(1, keepdim=True)
    return dice.gather(1, chosen)[:, 0].numpy()


def across_sets(rows: list[Clicked], epochs: int) -> str:
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
    parser.add_argument("--clicks", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    segmenter = Segmenter.from_pretrained(chosen.model, ranking=None)
    rows = gathered(segmenter, chosen.data, chosen.clicks, chosen.seed, chosen.out)
    print(f"sets apart: {across_sets(rows, chosen.epochs)}")
    network = fitted(rows, chosen.epochs, chosen.seed)
    about = {"clicks": str(len(rows)), "epochs": str(chosen.epochs)}
    target = chosen.out / f"{NAME}.safetensors"
    save_ranking(network, sha256_file(Path(chosen.model)), target, about)
    print(f"{target}: {target.stat().st_size} bytes, sha256 {sha256_file(target)}")


if __name__ == "__main__":
    main()
