"""Probabilities that mean what they say: Platt scaling fitted on validation cases.

Platt, Probabilistic outputs for support vector machines, 1999; with an offset of 0 it is the
temperature scaling of Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.errors import WeightsError
from promptseg.io.atomic import atomic_path
from promptseg.io.toml_text import parse_toml
from promptseg.weights.assets import asset_dir

FILE = "calibration.toml"
LEAST = 1e-4
STEPS = 50
RIDGE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """Maps mean foreground probabilities to calibrated ones.

    `sigmoid(slope * logit(p) + offset)`; the temperature is 1 / slope.

    Args:
        slope: Greater than 0; 1 changes nothing.
        offset: 0 changes nothing.
    """

    slope: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.slope) and np.isfinite(self.offset) and self.slope > 0):
            raise WeightsError(
                f"calibration has slope {self.slope} and offset {self.offset}: give finite "
                "numbers and a slope above 0"
            )

    def __call__(self, share: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float32; 0 where no member saw the target at all."""
        wanted = np.asarray(share, np.float32)
        calibrated = _sigmoid(self.slope * logit(wanted) + self.offset)
        return np.where(wanted > 0, calibrated, np.float32(0)).astype(np.float32)


def logit(share: np.ndarray) -> np.ndarray:
    """Log odds of probabilities, those beyond 1e-4 of 0 or 1 cut."""
    bounded = np.clip(share, LEAST, 1 - LEAST)
    return np.log(bounded) - np.log1p(-bounded)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def fit(share: np.ndarray, truth: np.ndarray, weight: np.ndarray | None = None) -> Calibration:
    """Calibration of least mean negative log likelihood, by Newton's method.

    Args:
        share: (N,) probabilities.
        truth: (N,) bool, both values present.
        weight: (N,) of every sample; 1 if None.

    Raises:
        WeightsError: All samples have the same truth.
    """
    if not len(truth) or truth.all() or not truth.any():
        raise WeightsError("cannot calibrate: give samples inside and outside the target")
    design = np.stack([logit(np.asarray(share, np.float64)), np.ones(len(share))])
    weights = np.ones(len(share)) if weight is None else np.asarray(weight, np.float64)
    found = np.array([1.0, 0.0])
    for _ in range(STEPS):
        probability = _sigmoid(found @ design)
        gradient = design @ (weights * (probability - truth))
        curvature = (design * (weights * probability * (1 - probability))) @ design.T
        step = np.linalg.solve(curvature + RIDGE * np.eye(2) * weights.sum(), gradient)
        found = found - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-8:
            break
    return Calibration(max(float(found[0]), 1e-3), float(found[1]))


@dataclass(frozen=True)
class Reliability:
    """How often what was said with some probability was so.

    Args:
        said: (B,) mean probability in each bin.
        happened: (B,) share of truth in it.
        count: (B,) samples in it.
    """

    said: np.ndarray
    happened: np.ndarray
    count: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error: mean gap weighted by samples (Naeini et al., 2015)."""
        gap = np.abs(self.said - self.happened)
        return float((gap * self.count).sum() / max(self.count.sum(), 1))


def reliability(share: np.ndarray, truth: np.ndarray, bins: int = 15) -> Reliability:
    """Sort (N,) probabilities into equal bins and compare them with (N,) bool truth."""
    place = np.clip((np.asarray(share) * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    some = np.maximum(count, 1)
    said = np.bincount(place, weights=share, minlength=bins) / some
    happened = np.bincount(place, weights=np.asarray(truth, float), minlength=bins) / some
    return Reliability(said, happened, count)


def calibration_of(sha256: str | None, file: Path | None = None) -> Calibration:
    """Constants that were fitted for a model; without any, probabilities stay as they are.

    Args:
        sha256: Digest of the model's weights; None has no constants.
        file: By default weights/calibration.toml.

    Raises:
        WeightsError: The file is damaged.
    """
    path = asset_dir("weights") / FILE if file is None else file
    entry = read_calibrations(path).get(sha256 or "", {})
    return Calibration(entry.get("slope", 1.0), entry.get("offset", 0.0))


@lru_cache(maxsize=8)
def _read(path: Path, stamp: int) -> dict[str, dict[str, Any]]:
    try:
        found = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read the calibration {path}: {error}") from error
    for sha256, entry in found.items():
        numbers = (
            [entry.get(name) for name in ("slope", "offset")] if isinstance(entry, dict) else []
        )
        if not numbers or not all(isinstance(number, (int, float)) for number in numbers):
            raise WeightsError(f"{path}: entry {sha256[:12]} needs the numbers slope and offset")
    return found


def read_calibrations(path: Path) -> dict[str, dict[str, Any]]:
    """Entries by digest of the model; none if there is no file."""
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


def write_calibration(
    path: Path, sha256: str, calibration: Calibration, about: dict[str, str | float | int]
) -> None:
    """Add or replace one model's entry, keeping the others.

    Args:
        path: File to write.
        sha256: Digest of the model's weights.
        calibration: Its constants.
        about: Where they come from: strings and numbers.
    """
    entries = {**read_calibrations(path), sha256: {**asdict(calibration), **about}}
    lines = [
        "# Written by benchmarks/calibration.py: what maps mean probabilities to calibrated ones,",
        "# by sha256 of the model's weights.",
    ]
    for digest, entry in entries.items():
        lines += ["", f'["{digest}"]'] + [f"{name} = {_toml(v)}" for name, v in entry.items()]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: str | float | int) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
