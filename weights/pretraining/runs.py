"""Runs of neighbouring slices: the network's own answer is the prompt of the next slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pretraining.episodes import Case, choose_target, crop_matrix, normalise_crop
from promptseg.backbones.base import PixelPrompts
from promptseg.datasets.simulation import users
from promptseg.datasets.simulation.pixel_prompts import box_prompt, click_prompt, rough_prompt
from promptseg.finetune.augment import augment
from promptseg.finetune.warping import warp

STEPS = 4
# How far a run may begin from the target's last slice, in steps: so many of its slices lie beyond.
NEAR_END = 0.5


@dataclass
class Run:
    """Slices in a row, the first with a prompt.

    Args:
        images: (STEPS, 3, S, S) in [0, 1].
        targets: (STEPS, S / 2, S / 2) share of each pixel inside the target; empty beyond its end.
        prompt: On the first slice.
    """

    images: Tensor
    targets: Tensor
    prompt: PixelPrompts


def run_episode(case: Case, size: int, rng: np.random.Generator) -> Run | None:
    """A run through a target, often over its end; None if the draw had no usable one."""
    axis = int(rng.choice(case.axes))
    count = case.image.shape[axis]
    chosen = choose_target(case, axis, rng) if count > STEPS else None
    if chosen is None:
        return None
    index, labels = chosen
    step = int(rng.integers(1, case.reach(axis) + 1)) * (1 if rng.random() < 0.5 else -1)
    if rng.random() < NEAR_END:
        index = _near_end(case, axis, labels, step, rng)
    indices = [index + step * n for n in range(STEPS)]
    if not (min(indices) >= 0 and max(indices) < count):
        return None
    stacks = [case.slice_stack(axis, n) for n in indices]
    masks = [np.isin(labels_[..., 1], labels) for _, labels_ in stacks]
    if masks[0].sum() < 12:
        return None
    row_mm, col_mm = (s for a, s in enumerate(case.spacing) if a != axis)
    reference = masks[0] if rng.random() < 0.5 else np.any(masks, axis=0)
    matrix = crop_matrix(users.tight_box(reference), reference.shape, (row_mm, col_mm), size, rng)
    planes = np.stack([warp(m.astype(np.uint8), matrix, size) for m in masks])
    if (planes[0] > 0.5).sum() < 12:
        return None
    images = _images(case, [image for image, _ in stacks], matrix, planes[0] > 0.5, size, rng)
    targets = functional.avg_pool2d(torch.from_numpy(planes)[:, None], 2)[:, 0]
    return Run(images, targets, _first_prompt(planes[0] > 0.5, rng))


def _near_end(
    case: Case, axis: int, labels: tuple[int, ...], step: int, rng: np.random.Generator
) -> int:
    """A slice of the target from which a few steps lead over its end."""
    slices = np.unique(
        np.concatenate([case.extents[axis].get(x, np.zeros(0, int)) for x in labels])
    )
    last = slices[-1] if step > 0 else slices[0]
    near = slices[np.abs(slices - last) < abs(step) * (STEPS - 1)]
    return int(rng.choice(near))


def _images(
    case: Case,
    stacks: list[NDArray[np.generic]],
    matrix: NDArray[np.float32],
    inside: NDArray[np.bool_],
    size: int,
    rng: np.random.Generator,
) -> Tensor:
    """The slices in one window, all changed by the same augmentation."""
    window, change = (int(n) for n in rng.integers(0, 2**31, 2))
    images: list[Tensor] = []
    for stack in stacks:
        crop = warp(stack, matrix, size, case.ground)
        if not images:
            first = crop
        # The window of CT follows the target's grey values on the first slice.
        pair = np.stack([crop[..., 0], first[..., 1], crop[..., 2], crop[..., 1]], -1)
        grey = normalise_crop(pair, case, inside, np.random.default_rng(window))
        grey = np.ascontiguousarray(grey[..., [0, 3, 2]])
        changed = augment(grey, np.random.default_rng(change), case.modality != "CT")
        images.append(torch.from_numpy(np.ascontiguousarray(changed.transpose(2, 0, 1))))
    return torch.stack(images)


def _first_prompt(target: NDArray[np.bool_], rng: np.random.Generator) -> PixelPrompts:
    draw = rng.random()
    if draw < 0.6:
        return box_prompt(target, rng)
    return click_prompt(target, rng) if draw < 0.8 else rough_prompt(target, rng)
