"""Volumes with known targets, and boxes around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from promptseg.datasets.phantom import SHAPE, abdomen_phantom
from promptseg.evaluate.metrics import dice
from promptseg.prompts.types import Box, PromptSet
from promptseg.volume import Volume

ORGANS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Scene:
    """A volume and targets in it.

    Args:
        volume: The image; slices are along its last axis.
        targets: (T, I, J, K) bool, none empty.
    """

    volume: Volume
    targets: np.ndarray


def ball_scene(shape: tuple[int, int, int], seed: int = 0, noise: float = 15.0) -> Scene:
    """Noise with a bright ball a third of the volume wide along every axis."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape, dtype=np.float32)
    middle = np.array(shape, dtype=np.float32) // 2
    radius = np.maximum(np.array(shape, dtype=np.float32) / 6, 1.2)
    distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, middle, radius, strict=True))
    mask = np.asarray(distance <= 1)
    data = (mask * 120 + rng.normal(60, noise, shape)).clip(0, 255).astype(np.uint8)
    return Scene(Volume(data, np.diag([0.8, 0.8, 3.0, 1.0]), "MR"), mask[None])


def organ_scene(shape: tuple[int, int, int] = SHAPE) -> Scene:
    """Liver, spleen and kidneys of the synthetic abdominal CT."""
    volume, labels, _ = abdomen_phantom(0, shape)
    masks = [labels == organ for organ in ORGANS]
    return Scene(volume, np.stack([mask for mask in masks if mask.any()]))


def slice_boxes(mask: np.ndarray, everywhere: bool) -> PromptSet:
    """One tight box a slice; `everywhere` repeats the nearest one beyond the mask."""
    filled = np.flatnonzero(mask.any((0, 1)))
    indices = range(mask.shape[2]) if everywhere else [int(k) for k in filled]
    return PromptSet([_box(mask, k, int(np.clip(k, filled[0], filled[-1]))) for k in indices])


def largest_box(mask: np.ndarray) -> PromptSet:
    """One tight box, on the slice where the mask is largest."""
    k = int(mask.sum((0, 1)).argmax())
    return PromptSet([_box(mask, k, k)])


def _box(mask: np.ndarray, index: int, shown: int) -> Box:
    """On slice `index` the box of what slice `shown` has."""
    inside = np.argwhere(mask[:, :, shown])
    (i0, j0), (i1, j1) = inside.min(0).tolist(), (inside.max(0) + 1).tolist()
    return Box((i0, j0, index), (i1, j1, index + 1))


def mean_overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Mean Dice of T targets, each of (T, I, J, K) bool."""
    return float(np.mean([dice(a, b) for a, b in zip(one, other, strict=True)]))
