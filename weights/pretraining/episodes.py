"""Episodes: a crop of a case, a target in it, and the prompts a user would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretraining.conventions import random_convention
from pretraining.lesions import with_lesion
from pretraining.synthetic import INNER, synthetic_slices
from pretraining.vessels import with_vessels
from promptseg.backbones.base import PixelPrompts
from promptseg.datasets.simulation import users
from promptseg.datasets.simulation.pixel_prompts import (
    KINDS,
    OUTLINING,
    TRACING,
    Mask2D,
    Prompter,
    sample_prompts,
)
from promptseg.finetune.augment import augment
from promptseg.finetune.warping import warp

REDRAWN = 0.25
LESIONS = 0.06
# Of generated lesions and of synthetic tasks.
VESSELS = 0.3
CT_WINDOWS = ((400, 40), (1500, -600), (1800, 400), (80, 40), (150, 30), (350, 50))


@dataclass
class Case:
    """One labelled image held in memory.

    Args:
        name: Case name, unique in its group.
        group: Data set.
        image: (I, J, K) grey values or Hounsfield units; a 2D image has K = 1.
        labels: (I, J, K) uint8.
        spacing: (3,) mm; 1 where unknown.
        modality: `CT` takes a random window, anything else its own percentiles.
        axes: Axes along which slices are taken.
        instances: True if every label or component is an object of its own.
        wholes: Label sets that are one structure, such as the parts of a tumour.
    """

    name: str
    group: str
    image: NDArray[np.generic]
    labels: NDArray[np.uint8]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    modality: str = "MR"
    axes: tuple[int, ...] = (2,)
    instances: bool = False
    wholes: tuple[tuple[int, ...], ...] = ()
    limits: tuple[float, float] = field(init=False)
    extents: dict[int, dict[int, NDArray[np.int64]]] = field(init=False)
    _kept: dict[tuple[int, ...], Mask2D] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        positive = np.asarray(self.image, np.float32)
        positive = positive[positive > 0]
        inside = positive if positive.size else np.zeros(1, np.float32)
        low, high = np.percentile(inside, (0.5, 99.5))
        self.limits = (float(min(low, 0)), float(max(high, low + 1e-3)))
        self.extents = {axis: self._slices_with(axis) for axis in self.axes}

    @property
    def ground(self) -> float:
        """Grey value outside the image: air, or black."""
        return -1000.0 if self.modality == "CT" else 0.0

    def _slices_with(self, axis: int, least: int = 12) -> dict[int, NDArray[np.int64]]:
        """Label -> indices of the slices on which it has at least `least` pixels."""
        planes = np.moveaxis(self.labels, axis, 0)
        counts = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in planes])
        filled = counts >= least
        labels = np.flatnonzero(filled[:, 1:].any(0)) + 1
        return {int(label): np.flatnonzero(filled[:, label]) for label in labels}

    def shadow(self, axis: int, labels: tuple[int, ...]) -> Mask2D:
        """Where some labels are on any slice along `axis`, kept: (rows, columns) bool."""
        key = (axis, *labels)
        if key not in self._kept:
            self._kept[key] = np.asarray(np.isin(self.labels, labels).any(axis))
        return self._kept[key]

    def bounds(self, labels: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First corner and size of the box that holds some labels, from their shadows."""
        sides = []
        for axis in range(3):
            other, side = (1, 0) if axis == 0 else (0, axis - 1)
            filled = np.flatnonzero(self.shadow(other, labels).any(1 - side))
            sides.append((int(filled[0]), int(filled[-1] + 1 - filled[0])))
        return tuple(low for low, _ in sides), tuple(size for _, size in sides)

    def slice_stack(
        self, axis: int, index: int, apart: int = 1
    ) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:
        """Neighbouring slices of the image, and of the labels `apart` slices away: (H, W, 3)."""
        last = self.image.shape[axis] - 1

        def stack(data: NDArray[np.generic], step: int) -> NDArray[np.generic]:
            indices = [max(index - step, 0), index, min(index + step, last)]
            return np.stack([np.moveaxis(data, axis, 0)[n] for n in indices], -1)

        return stack(self.image, 1), stack(self.labels, apart).astype(np.uint8)

    def reach(self, axis: int, millimetres: float = 3.5, most: int = 5) -> int:
        """Slices within `millimetres`, at least one: how far a mask may be carried at once."""
        return int(np.clip(round(millimetres / self.spacing[axis]), 1, most))


@dataclass
class Episode:
    """A training sample.

    Args:
        image: (3, S, S) in [0, 1].
        target: (S, S) share of each pixel inside the target.
        prompts: Independent interactions with this target.
        ambiguous: Per interaction, True if it is a single click.
    """

    image: Tensor
    target: Tensor
    prompts: list[PixelPrompts]
    ambiguous: list[bool]


def choose_target(
    case: Case, axis: int, rng: np.random.Generator
) -> tuple[int, tuple[int, ...]] | None:
    """Slice index and label set; often a whole where there are some, rarely a chance union."""
    extents = case.extents[axis]
    if not extents:
        return None
    labels = list(extents)
    chosen: tuple[int, ...] = (labels[int(rng.integers(len(labels)))],)
    if case.wholes and rng.random() < 0.6:
        whole = case.wholes[int(rng.integers(len(case.wholes)))]
        chosen = tuple(label for label in whole if label in extents) or chosen
    elif not case.instances and rng.random() < 0.06:
        chosen = tuple({*chosen, labels[int(rng.integers(len(labels)))]})
    slices = np.unique(np.concatenate([extents[label] for label in chosen]))
    return int(rng.choice(slices)), chosen


def normalise_crop(
    crop: NDArray[np.float32], case: Case, target: Mask2D, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Grey values to [0, 1]: a random window for CT, jittered percentiles otherwise."""
    if case.modality == "CT":
        low, high = random_window(crop[..., 1][target], rng)
    else:
        span = case.limits[1] - case.limits[0]
        low = case.limits[0] + rng.uniform(-0.05, 0.05) * span
        high = case.limits[1] + rng.uniform(-0.15, 0.1) * span
    return np.clip((crop - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)


def random_window(inside: NDArray[np.float32], rng: np.random.Generator) -> tuple[float, float]:
    """A preset, or a random window in which the target's mean is not clipped away."""
    width, level = (float(v) for v in CT_WINDOWS[int(rng.integers(len(CT_WINDOWS)))])
    if rng.random() >= 0.4:
        width = float(np.exp(rng.uniform(np.log(100), np.log(2500))))
        level = float(inside.mean() if inside.size else 0) + rng.uniform(-0.3, 0.3) * width
    if inside.size and abs(float(inside.mean()) - level) > width * 0.55:
        level = float(inside.mean())
    return level - width / 2, level + width / 2


def crop_matrix(
    box: NDArray[np.float32],
    shape: tuple[int, int],
    spacing: tuple[float, float],
    size: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """(2, 3) map from crop pixels to slice pixels: zoom, offset, flips, rotation.

    Args:
        box: x0, y0, x1, y1 of the target.
        shape: Rows and columns of the slice.
        spacing: mm of a row and of a column.
        size: Side of the crop in pixels.
    """
    millimetres = np.array([spacing[1], spacing[0]])
    extent = (box[2:] - box[:2]) * millimetres
    whole = max(shape[1] * spacing[1], shape[0] * spacing[0])
    near, far = (1.2, 2.4) if rng.random() < 0.85 else (2.4, 6.0)
    side = float(extent.max()) * np.exp(rng.uniform(np.log(near), np.log(far)))
    side = whole * rng.uniform(0.9, 1.1) if rng.random() < 0.04 else side
    side = max(side, 14 * float(millimetres.min()))
    slack = np.maximum(side - extent, 0) * 0.48
    centre = (box[:2] + box[2:]) / 2 * millimetres + rng.uniform(-1, 1, 2) * slack
    turn = np.deg2rad(rng.uniform(-25, 25) if rng.random() < 0.3 else 0)
    turn += np.pi / 2 * int(rng.integers(4)) if rng.random() < 0.4 else 0
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = np.exp(rng.uniform(-0.12, 0.12, 2)) * (1 if rng.random() < 0.5 else [-1, 1])
    linear = (rotation * stretch) * (side / size) / millimetres[:, None]
    offset = centre / millimetres - linear @ np.array([size / 2, size / 2]) + linear.sum(1) / 2
    return np.concatenate([linear, (offset - 0.5)[:, None]], 1).astype(np.float32)


def pick_component(stack: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Keep one component of the middle slice of (H, W, 3), and what it touches beside it."""
    count, components, stats, _ = cv2.connectedComponentsWithStats(stack[..., 1].astype(np.uint8))
    large = np.flatnonzero(stats[1:count, cv2.CC_STAT_AREA] >= 12) + 1
    if len(large) < 2:
        return stack
    kept = components == rng.choice(large)
    sides = [stack[..., n] & (cv2.dilate(kept.astype(np.uint8), np.ones((9, 9))) > 0)
             for n in (0, 2)]  # fmt: skip
    return np.stack([sides[0], kept, sides[1]], -1)


def real_episode(case: Case, size: int, count: int, rng: np.random.Generator) -> Episode | None:
    """An episode of a case, None if the draw had no usable target."""
    axis = int(rng.choice(case.axes))
    chosen = choose_target(case, axis, rng)
    if chosen is None:
        return None
    index, labels = chosen
    apart = int(rng.integers(1, case.reach(axis) + 1))
    beyond = beyond_extent(case, axis, labels, apart, rng) if rng.random() < 0.16 else None
    index, absent = (beyond, True) if beyond is not None else (index, False)
    image, stack = case.slice_stack(axis, index, apart)
    masks = np.isin(stack, labels)
    if not absent and rng.random() < (0.9 if case.instances else 0.2):
        masks = pick_component(masks, rng)
    reference = np.asarray(masks.any(-1) if absent else masks[..., 1])
    if not reference.any():
        return None
    row_mm, col_mm = (s for a, s in enumerate(case.spacing) if a != axis)
    matrix = crop_matrix(users.tight_box(reference), reference.shape, (row_mm, col_mm), size, rng)
    warped = warp(masks.astype(np.uint8), matrix, size)
    target = warped[..., 1]
    hard = target > 0.5
    if not absent and hard.sum() < 12:
        return None
    side = 0 if rng.random() < 0.5 else 2
    side = side if warped[..., side].max() > 0.5 else 2 - side
    neighbour = None if case.image.shape[axis] == 1 else warped[..., side] > 0.5
    if absent and (neighbour is None or not neighbour.any()):
        return None
    grey = normalise_crop(warp(image, matrix, size, case.ground), case, hard, rng)
    if not absent and rng.random() < LESIONS:
        return lesion_episode(grey, count, rng)
    return finish(grey, target, neighbour, count, case.modality != "CT", rng)


def lesion_episode(
    grey: NDArray[np.float32], count: int, rng: np.random.Generator
) -> Episode | None:
    """An episode on a lesion or on vessels generated in a real crop (S, S, 3)."""
    if rng.random() < VESSELS:
        return vessel_episode(grey, count, rng)
    image, masks = with_lesion(grey, rng)
    if masks[..., 1].sum() < 12:
        return None
    return finish(image, masks[..., 1].astype(np.float32), masks[..., 0], count, True, rng)


def vessel_episode(
    grey: NDArray[np.float32], count: int, rng: np.random.Generator
) -> Episode | None:
    """An episode on vessels generated in a crop (S, S, 3); mostly traced by strokes."""
    image, shares = with_vessels(grey, rng)
    if (shares[..., 1] > 0.5).sum() < 12:
        return None
    return packed(image, shares[..., 1], shares[..., 0] > 0.5, count, True, TRACING, rng)


def beyond_extent(
    case: Case, axis: int, labels: tuple[int, ...], apart: int, rng: np.random.Generator
) -> int | None:
    """Index of a slice up to `apart` outside the target's extent, None at the volume's end."""
    # Seen along another axis, the axis of slices is one side of the shadow.
    other, side = (1, 0) if axis == 0 else (0, axis - 1)
    present = np.flatnonzero(case.shadow(other, labels).any(1 - side))
    step = int(rng.integers(1, apart + 1))
    index = int(present[0] - step if rng.random() < 0.5 else present[-1] + step)
    return index if 0 <= index < case.labels.shape[axis] else None


def synthetic_episode(size: int, count: int, rng: np.random.Generator) -> Episode | None:
    """An episode on generated shapes."""
    image, stack = synthetic_slices(size, rng)
    if rng.random() < VESSELS:
        return vessel_episode(image, count, rng)
    areas = np.bincount(stack[..., 1].ravel(), minlength=256)
    usable = np.flatnonzero((areas >= 0.004 * size**2) & (areas <= 0.6 * size**2))
    if not len(usable):
        return None
    chosen = int(rng.choice(usable))
    parts = [chosen, chosen + INNER] if rng.random() < 0.4 else [chosen]
    masks = np.isin(stack, parts)
    if rng.random() < 0.5:
        masks = pick_component(masks, rng)
    target = masks[..., 1].astype(np.float32)
    neighbour = masks[..., 0]
    return finish(image, target, neighbour, count, True, rng)


def finish(
    grey: NDArray[np.float32],
    target: NDArray[np.float32],
    neighbour: Mask2D | None,
    count: int,
    invert: bool,
    rng: np.random.Generator,
) -> Episode:
    """Redraw the outline now and then, and pack."""
    kinds: Sequence[tuple[float, Prompter]] = KINDS
    if (target > 0.5).any() and rng.random() < REDRAWN:
        redraw = random_convention(target, rng)
        redrawn = redraw(target)
        if (redrawn > 0.5).sum() >= 12:
            target, kinds = redrawn, OUTLINING
            neighbour = None if neighbour is None else redraw(neighbour.astype(np.float32)) > 0.5
    return packed(grey, target, neighbour, count, invert, kinds, rng)


def packed(
    grey: NDArray[np.float32],
    target: NDArray[np.float32],
    neighbour: Mask2D | None,
    count: int,
    invert: bool,
    kinds: Sequence[tuple[float, Prompter]],
    rng: np.random.Generator,
) -> Episode:
    """Augment, draw the prompts, pack as tensors."""
    image = augment(grey, rng, invert)
    if rng.random() < 0.15:
        image = np.repeat(image[..., 1:2], 3, -1)
    prompts, ambiguous = sample_prompts(target > 0.5, neighbour, count, rng, kinds)
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    return Episode(pixels, torch.from_numpy(np.ascontiguousarray(target)), prompts, ambiguous)
