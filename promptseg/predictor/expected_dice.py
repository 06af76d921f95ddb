"""The Dice that an answer will have, said before anybody has drawn the truth.

What a network predicts for its slices is an overlap of one slice with what it takes for the
target: of a whole that ran on or ended early it says nothing. A logistic regression on few
signs, fitted on targets that no training has read (benchmarks/expected_dice.py), turns them into
the Dice of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptseg.errors import WeightsError
from promptseg.inference.decoder import SliceMask
from promptseg.inference.labels import FrameMasks
from promptseg.io.atomic import atomic_path
from promptseg.io.toml_text import parse_toml
from promptseg.weights.assets import asset_dir

FILE = "expected_dice.toml"
SIGNS = ("constant", "quality", "weakest", "presence", "surety", "slices", "seen_whole", "whole")
LEAST = 0.01
# Of the slices, those of least quality say where an answer ran on: a quarter of them.
WEAKEST = 0.25
# Pulls the weights towards saying the mean Dice of all targets; in targets.
RIDGE = 1.0
STEPS = 100


def signs(masks: Sequence[SliceMask]) -> NDArray[np.float64]:
    """(8,) signs of how good the masks of one target are, in the order of `SIGNS`.

    Args:
        masks: Of all its slices, at least one that is not empty.
    """
    areas = np.array([mask.area for mask in masks], float)
    quality = np.array([mask.quality for mask in masks])
    dice = 2 * quality / (1 + quality)
    share = areas / areas.sum()
    weakest = np.sort(dice)[: max(1, round(WEAKEST * len(dice)))].mean()
    looked = [mask.looked for mask in masks if mask.looked is not None]
    return np.array(
        [
            1.0,
            log_odds(float(share @ dice)),
            log_odds(float(weakest)),
            log_odds(float(share @ np.array([mask.presence for mask in masks]))),
            log_odds(self_agreement(masks)),
            np.log(len(masks)),
            float(bool(looked)),
            log_odds(float(np.mean(looked))) if looked else 0.0,
        ]
    )


def self_agreement(masks: Sequence[SliceMask]) -> float:
    """Dice of masks with their own probabilities: what it would be if these were right."""
    inside = total = 0.0
    for mask in masks:
        share = mask.logits.sigmoid()
        drawn = mask.logits > 0
        inside += float(share[drawn].sum())
        total += float(share.sum() + drawn.sum())
    return 2 * inside / max(total, 1e-6)


def log_odds(share: float) -> float:
    """Of a number in [0, 1], those nearer than 0.01 to its ends cut."""
    bounded = min(max(share, LEAST), 1 - LEAST)
    return float(np.log(bounded / (1 - bounded)))


@dataclass(frozen=True)
class ExpectedDice:
    """Weights of the signs.

    Args:
        weights: (8,) in the order of `SIGNS`.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(SIGNS) or not np.isfinite(self.weights).all():
            raise WeightsError(f"{len(SIGNS)} finite weights are wanted, not {self.weights}")

    def __call__(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected Dice in [0, 1] of (8,) or (N, 8) signs."""
        return 1 / (1 + np.exp(-np.clip(found @ np.array(self.weights), -60, 60)))

    def of(self, answered: Sequence[FrameMasks], target: int) -> float:
        """Expected Dice of a target in all its parts; 0 where nothing was found."""
        found = [m for group in answered for m in group.answers.get(target, {}).values()]
        masks = [mask for mask in found if mask.given is None and mask.area]
        if not masks:
            return float(any(mask.given is not None for mask in found))
        return float(self(signs(masks)))


def fit(
    found: NDArray[np.float64], dice: NDArray[np.float64], weight: NDArray[np.float64] | None = None
) -> ExpectedDice:
    """Weights of least cross-entropy to the Dice that was reached, by Newton's method.

    Args:
        found: (N, 8) signs.
        dice: (N,) in [0, 1].
        weight: (N,) of every target; 1 if None.
    """
    scale = np.maximum(found.std(0), 1e-3)
    scale[0] = 1.0
    middle = found.mean(0)
    middle[0] = 0.0
    design = (found - middle) / scale
    weights = np.ones(len(found)) if weight is None else weight
    pull = RIDGE * np.eye(len(SIGNS))
    pull[0, 0] = 0.0
    solved = np.zeros(len(SIGNS))
    for _ in range(STEPS):
        said = 1 / (1 + np.exp(-design @ solved))
        gradient = design.T @ (weights * (said - dice)) + pull @ solved
        curvature = (design.T * (weights * said * (1 - said))) @ design + pull
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(SIGNS)), gradient)
        solved = solved - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-8:
            break
    own = solved / scale
    own[0] -= float((own * middle)[1:].sum())
    return ExpectedDice(tuple(float(w) for w in own))


def expected_dice_of(sha256: str | None, file: Path | None = None) -> ExpectedDice | None:
    """Weights fitted for a model; None where there are none.

    Args:
        sha256: Digest of the model's weights.
        file: By default weights/expected_dice.toml.

    Raises:
        WeightsError: The file is damaged.
    """
    path = asset_dir("weights") / FILE if file is None else file
    if sha256 is None or not path.is_file():
        return None
    return _read(path, path.stat().st_mtime_ns).get(sha256)


@lru_cache(maxsize=8)
def _read(path: Path, stamp: int) -> dict[str, ExpectedDice]:
    try:
        entries = parse_toml(path.read_text(encoding="utf-8"))
        return {
            digest: ExpectedDice(tuple(float(entry[name]) for name in SIGNS))
            for digest, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"cannot read the weights of expected Dice {path}: {error}") from error


def write_expected_dice(path: Path, sha256: str, fitted: ExpectedDice, about: str) -> None:
    """Write one model's weights; another model's are dropped.

    Args:
        path: File to write.
        sha256: Digest of the model's weights.
        fitted: The weights.
        about: Where they come from; one line.
    """
    lines = [
        "# Written by benchmarks/expected_dice.py: weights of the signs that say the Dice of an",
        f"# answer, by sha256 of the model's weights. {about}",
        "",
        f'["{sha256}"]',
        *(f"{name} = {w:.6g}" for name, w in zip(SIGNS, fitted.weights, strict=True)),
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
