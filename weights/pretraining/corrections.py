"""Training views of the 3D corrector: a mask with faults, and a user who clicks on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from pretraining.faults import faulty_logits, smooth_field
from promptseg.datasets.simulation.clicks import deepest, largest_component
from promptseg.prompts.types import Box
from promptseg.refine.corrector_inputs import (
    ClickDistances,
    choose_patch,
    corrector_inputs,
    logits_of,
    standardised,
)
from promptseg.refine.volume import frame_voxels, start_place
from promptseg.volume import bounding_slices

Mask = NDArray[np.bool_]
Field = NDArray[np.float32]
Rng = np.random.Generator

LEAST = 60
LONG_SIDES = (40, 48, 56, 64)
MARGINS = (0.1, 0.3)
CLICKS = (0.12, 0.28, 0.2, 0.16, 0.12, 0.12)
DEEPEST = 0.7


@dataclass(frozen=True)
class Crop:
    """Part of a volume around a target, with a network's answer.

    Args:
        image: (I, J, K) grey values in [0, 1].
        target: (I, J, K) bool.
        probability: (I, J, K) foreground probability as a network gave it from one box.
        spacing: (3,) mm.
        axis: Slice axis of the box.
    """

    image: NDArray[np.floating]
    target: Mask
    probability: NDArray[np.floating]
    spacing: tuple[float, ...]
    axis: int

    def turned(self, rng: Rng) -> Crop:
        """Axes in another order, some mirrored, spacings changed by up to a fifth."""
        order = rng.permutation(3) if rng.random() < 0.7 else np.arange(3)
        flips = tuple(a for a in range(3) if rng.random() < 0.5)
        turn = lambda x: np.flip(x.transpose(order), flips)  # noqa: E731
        spacing = np.array(self.spacing)[order] * np.exp(rng.uniform(-0.2, 0.2, 3))
        axis = int(np.flatnonzero(order == self.axis)[0])
        return Crop(
            turn(self.image),
            turn(self.target),
            turn(self.probability),
            tuple(float(s) for s in spacing),
            axis,
        )


@dataclass(frozen=True)
class Correction:
    """A mask to be corrected, in the corrector's view.

    Args:
        logits: (D, H, W) of the mask.
        target: (D, H, W) bool, what it should be.
        inside: Clicks on the target.
        outside: Clicks beside it.
    """

    logits: Tensor
    target: Mask
    inside: ClickDistances
    outside: ClickDistances

    def inputs(self) -> Tensor:
        """(1, INPUTS, D, H, W) for the network."""
        return corrector_inputs(self.logits, self.inside, self.outside)[None]

    def clicked(self, answer: Mask, rng: Rng) -> Correction:
        """After one more click, on the largest error of an answer; the same without an error."""
        error = largest_component(answer != self.target)
        if not error.any():
            return self
        at = deepest(error, (1, 1, 1), rng) if rng.random() < DEEPEST else inner(error, rng)
        seeds = np.zeros(self.target.shape, bool)
        seeds[at] = True
        if self.target[at]:
            return replace(self, inside=self.inside.and_at(seeds))
        return replace(self, outside=self.outside.and_at(seeds))


def inner(region: Mask, rng: Rng) -> tuple[int, ...]:
    """A random element of a region, likelier the deeper it lies."""
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1, 1:-1][region] ** 2
    chosen = rng.choice(len(depth), p=depth / depth.sum())
    return tuple(int(x) for x in np.argwhere(region)[chosen])


def changed_grey(image: Field, rng: Rng) -> Field:
    """Inverted, another gamma, a smooth field, blur, noise: each now and then."""
    if rng.random() < 0.15:
        image = 1 - image
    if rng.random() < 0.4:
        image = np.clip(image, 0, 1) ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    if rng.random() < 0.2:
        image = image * np.exp(smooth_field(image.shape, 30, rng) * 0.2)
    if rng.random() < 0.25:
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 1.2))
    if rng.random() < 0.5:
        noise = rng.standard_normal(image.shape).astype(np.float32)
        image = image + noise * np.float32(rng.uniform(0, 0.12))
    return np.asarray(image, np.float32)


def draw_correction(crop: Crop, rng: Rng, simulated: float = 0.55) -> Correction | None:
    """A view of a crop before any corrective click.

    Args:
        crop: What a network answered.
        rng: Draws the view, grey values and faults.
        simulated: Share of masks with simulated faults; the rest are the network's own.

    Returns:
        None where the target is too small in the view.
    """
    crop = crop.turned(rng)
    answer = crop.probability > 0.5
    own = bool(rng.random() >= simulated and answer.any())
    shown = answer | crop.target if rng.random() < 0.5 else (answer if own else crop.target)
    nowhere = np.zeros((0, 3), np.int64)
    side, margin = int(rng.choice(LONG_SIDES)), float(rng.uniform(*MARGINS))
    patch = choose_patch(shown, nowhere, crop.spacing, 16, side, margin)
    target = (patch.view(crop.target.astype(np.float32)) > 0.5).numpy()
    if target.sum() < LEAST:
        return None
    image = changed_grey(patch.view(crop.image).numpy(), rng)
    logits = (
        logits_of(patch.view(crop.probability))
        if own
        else torch.from_numpy(faulty_logits(target, image, rng))
    )
    inside, outside = np.zeros(target.shape, bool), np.zeros(target.shape, bool)
    if rng.random() < 0.8:
        start_with_box((logits > 0).numpy(), target, crop.axis, rng, inside, outside)
    grey = standardised(torch.from_numpy(image))
    return Correction(
        logits, target, ClickDistances.of(grey, inside), ClickDistances.of(grey, outside)
    )


def start_with_box(
    answer: Mask, target: Mask, axis: int, rng: Rng, inside: Mask, outside: Mask
) -> None:
    """Mark what a box on one slice says, as `certain_places` does, in `inside` and `outside`."""
    areas = target.sum(tuple(a for a in range(3) if a != axis))
    filled = np.flatnonzero(areas)
    index = int(areas.argmax()) if rng.random() < 0.5 else int(rng.choice(filled))
    found = bounding_slices(np.moveaxis(target, axis, 0)[index])
    if found is None:
        return
    lo, hi = (np.array([getattr(side, end) for side in found], float) for end in ("start", "stop"))
    lo, hi = (edge + rng.uniform(-0.05, 0.05, 2) * (hi - lo) for edge in (lo, hi))
    box = Box(_corner(lo, axis, index), _corner(hi, axis, index + 1))
    outside[tuple(frame_voxels(box, index, axis, target.shape).T)] = True
    outside &= ~target
    start = start_place(box, answer.astype(np.uint8), axis)
    if start is not None and target[place := tuple(int(x) for x in start.at)]:
        inside[place] = True


def _corner(at: NDArray[np.floating], axis: int, edge: int) -> tuple[float, float, float]:
    i, j, k = np.insert(at, axis, edge)
    return float(i), float(j), float(k)


def with_clicks(
    correction: Correction, answer: Callable[[Correction], Mask], rng: Rng
) -> Correction:
    """The same after none to five clicks, each on the answer to those before it."""
    for number in range(int(rng.choice(len(CLICKS), p=CLICKS))):
        plain = number == 0 and rng.random() < 0.5
        seen = (correction.logits > 0).numpy() if plain else answer(correction)
        correction = correction.clicked(seen, rng)
    return correction


def correction_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss, cross-entropy near the target, and half of it everywhere.

    Args:
        logits: (D, H, W).
        target: (D, H, W) 0 or 1.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    share = logits.sigmoid()
    overlap = (2 * (share * target).sum() + 1) / (share.sum() + target.sum() + 1)
    near = functional.max_pool3d(target[None, None], 7, 1, 3)[0, 0]
    return 1 - overlap + (entropy * near).sum() / near.sum().clamp(min=1) + entropy.mean() / 2
