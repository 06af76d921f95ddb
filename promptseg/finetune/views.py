"""Views of labelled cases: crops as the engine cuts them, with the organ's masks and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from promptseg.backbones.base import BackboneSpec, PixelPrompts
from promptseg.finetune.augment import augment
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.warping import warp
from promptseg.inference.crop import LEAST_VOXELS, MARGIN
from promptseg.propagation.carrying import CARRIED_MM, CARRIED_MOST, box_of, shown_as
from promptseg.simulation import users
from promptseg.simulation.pixel_prompts import sample_prompts
from promptseg.slicing import in_plane

LEAST_PIXELS = 12
BODY_LEVEL = 0.04
ON_SLICE, ALL_LABELS = 0.5, 0.2
Box = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OrganCase:
    """A labelled volume as training uses it.

    Args:
        name: Case name.
        image: (N, H, W) grey values, slices first.
        labels: (N, H, W) uint8, 0 or 1 + place of the label among the adapter's.
        spacing: Millimetres of a row and of a column.
        thickness: Millimetres from slice to slice.
        window: Grey values that become 0 and 1.
        slices: Indices of the slices on which each label has at least `LEAST_PIXELS`.
        boxes: Each label's box x0, y0, x1, y1 over all slices.
        body: Box of what is not black.
        mirror: Factors of x and y that swap left and right; 1, 1 where no side of a slice does.
    """

    name: str
    image: NDArray[np.generic]
    labels: NDArray[np.uint8]
    spacing: tuple[float, float]
    thickness: float
    window: tuple[float, float]
    slices: dict[int, NDArray[np.int64]]
    boxes: dict[int, Box]
    body: Box
    mirror: tuple[int, int] = (1, 1)


@dataclass(frozen=True, eq=False)
class View:
    """A training sample.

    Args:
        number: Its seed; equal numbers are equal views.
        image: (3, S, S) in [0, 1].
        masks: (L, m, m) share of each pixel inside each label, at the masks' resolution.
        prompts: Simulated interactions.
        places: Of each interaction, the place of its label.
        ambiguous: Of each interaction, True if it is a single click.
    """

    number: int
    image: Tensor
    masks: Tensor
    prompts: list[PixelPrompts]
    places: list[int]
    ambiguous: list[bool]

    @property
    def size(self) -> int:
        """Side of the image in pixels."""
        return int(self.image.shape[-1])


def organ_case(
    name: str,
    data: NDArray[np.generic],
    known: NDArray[np.integer],
    labels: Sequence[int],
    axis: int,
    spacing: Sequence[float] | NDArray[np.floating],
    window: tuple[float, float],
    sides: int | None = None,
) -> OrganCase:
    """Bring a case into the form that training uses.

    Args:
        name: Case name.
        data: (I, J, K) image.
        known: (I, J, K) labels.
        labels: Those the adapter learns, in order.
        axis: Slice axis.
        spacing: (3,) mm.
        window: Grey values that become 0 and 1.
        sides: Voxel axis from left to right; None if mirroring is not wanted.
    """
    image = np.ascontiguousarray(np.moveaxis(data, axis, 0))
    planes = np.zeros(image.shape, np.uint8)
    for place, label in enumerate(labels):
        planes[np.moveaxis(known, axis, 0) == label] = place + 1
    slices, boxes = {}, {}
    for place in range(len(labels)):
        mask = planes == place + 1
        filled = np.flatnonzero(mask.sum((1, 2)) >= LEAST_PIXELS)
        if len(filled):
            slices[place], boxes[place] = filled, users.tight_box(mask.any(0))
    shown = image.max(0) > window[0] + BODY_LEVEL * (window[1] - window[0])
    body = users.tight_box(shown if shown.any() else np.ones_like(shown))
    rows, cols = in_plane(axis)
    millimetres = (float(spacing[rows]), float(spacing[cols]))
    thickness = float(spacing[axis])
    mirror = -1 if sides == cols else 1, -1 if sides == rows else 1
    return OrganCase(
        name, image, planes, millimetres, thickness, window, slices, boxes, body, mirror
    )


class ViewMaker:
    """Draws views; view n depends on the seed and n alone.

    Args:
        cases: Labelled volumes.
        count: Number of labels.
        spec: Of the backbone: sizes and context.
        config: Shares, augmentation and seed.
        training: False gives plain views of the target with a box each, for validation.
    """

    def __init__(
        self,
        cases: Sequence[OrganCase],
        count: int,
        spec: BackboneSpec,
        config: FinetuneConfig,
        training: bool = True,
    ) -> None:
        self.cases, self.count, self.spec, self.config = list(cases), count, spec, config
        self.training = training

    def resized(self, spec: BackboneSpec) -> ViewMaker:
        """The same cases for another input size."""
        return ViewMaker(self.cases, self.count, spec, self.config, self.training)

    def plain(self) -> ViewMaker:
        """Plain views of the same cases, as in validation."""
        return ViewMaker(self.cases, self.count, self.spec, self.config, training=False)

    def __getitem__(self, number: int) -> View:
        pool = number % self.config.views if self._pooled else number
        rng = np.random.default_rng((self.config.seed, int(self.training), pool))
        case, place, index, absent = self._choose(rng)
        matrix = self._matrix(case, place, index, absent, rng)
        image, masks, beside = self._cut(case, index, matrix, rng)
        if self._pooled:
            rng = np.random.default_rng((self.config.seed, 2, number))
        shown = [n for n in range(self.count) if (masks[n] > 0.5).sum() >= LEAST_PIXELS]
        place = place if place in shown or not shown else shown[int(rng.integers(len(shown)))]
        prompts, ambiguous = self._prompts(masks[place] > 0.5, beside[place], rng)
        small = functional.interpolate(
            torch.from_numpy(masks)[None], size=(self.spec.mask_size,) * 2, mode="area"
        )[0]
        places = [place] * len(prompts)
        return View(pool if self._pooled else number, image, small, prompts, places, ambiguous)

    @property
    def _pooled(self) -> bool:
        return self.training and self.config.encoder == "frozen"

    def _choose(self, rng: np.random.Generator) -> tuple[OrganCase, int, int, bool]:
        """Case, place of a label, slice, and True if the slice was drawn without the label."""
        usable = [case for case in self.cases if case.slices]
        case = usable[int(rng.integers(len(usable)))]
        place = list(case.slices)[int(rng.integers(len(case.slices)))]
        within = case.slices[place]
        outside = np.setdiff1d(np.arange(len(case.image)), within)
        if self.training and len(outside) and rng.random() < self.config.absent:
            near = outside[(outside >= within[0] - 3) & (outside <= within[-1] + 3)]
            chosen = near if len(near) and rng.random() < 0.5 else outside
            return case, place, int(rng.choice(chosen)), True
        return case, place, int(rng.choice(within)), False

    def _matrix(
        self, case: OrganCase, place: int, index: int, absent: bool, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Whole, or around the label on its slice or on all slices, or around all labels."""
        if self.training and rng.random() < self.config.whole:
            return view_matrix(case.body, 1.0, case.spacing, self.spec.input_size, rng, 0.06)
        draw = rng.random()
        box = case.boxes[place]
        if draw < ON_SLICE and not absent:
            box = users.tight_box(case.labels[index] == place + 1)
        elif draw < ON_SLICE + ALL_LABELS:
            every = np.stack(list(case.boxes.values()))
            box = np.concatenate([every[:, :2].min(0), every[:, 2:].max(0)])
        loose = 0.35 if self.training else 0.0
        mirror = case.mirror if self.training else (1, 1)
        size = self.spec.input_size
        return view_matrix(box, MARGIN, case.spacing, size, rng, loose, mirror)

    def _cut(
        self, case: OrganCase, index: int, matrix: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[Tensor, NDArray[np.float32], list[NDArray[np.bool_] | None]]:
        """Image (3, S, S), masks (L, S, S) and of each label the mask on a slice beside."""
        size, last = self.spec.input_size, len(case.image) - 1
        stack = [max(index - 1, 0), index, min(index + 1, last)]
        low, high = case.window
        grey = warp(case.image[stack].transpose(1, 2, 0), matrix, size, low)
        if self.training:
            low, high = (b + rng.uniform(-0.06, 0.06) * (high - low) for b in (low, high))
        grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
        grey = augment(grey, rng, invert=False) if self.training else grey
        if self.spec.context == "grey":
            grey = np.repeat(grey[..., 1:2], 3, -1)
        # The engine hands masks on over a few millimetres, to either side.
        reach = int(np.clip(round(CARRIED_MM / case.thickness), 1, CARRIED_MOST))
        apart = int(rng.integers(1, reach + 1)) * (1 if rng.random() < 0.5 else -1)
        pair = case.labels[[index, int(np.clip(index + apart, 0, last))]]
        masks = np.zeros((self.count, size, size), np.float32)
        beside: list[NDArray[np.bool_] | None] = []
        for place in range(self.count):
            planes = (pair == place + 1).astype(np.uint8).transpose(1, 2, 0)
            warped = warp(planes, matrix, size) if planes.any() else np.zeros((size, size, 2))
            masks[place] = warped[..., 0]
            beside.append(warped[..., 1] > 0.5 if last else None)
        return torch.from_numpy(np.ascontiguousarray(grey.transpose(2, 0, 1))), masks, beside

    def _prompts(
        self, target: NDArray[np.bool_], beside: NDArray[np.bool_] | None, rng: np.random.Generator
    ) -> tuple[list[PixelPrompts], list[bool]]:
        target = target if target.sum() >= LEAST_PIXELS else np.zeros_like(target)
        beside = beside if beside is not None and beside.sum() >= LEAST_PIXELS else None
        if not target.any() and beside is None:
            return [], []
        if not self.training:
            box = torch.from_numpy(users.jittered_box(target, rng))
            return [PixelPrompts(box=box)], [False]
        prompts, ambiguous = sample_prompts(target, beside, self.config.prompts, rng)
        return [fitted(prompt, self.spec) for prompt in prompts], ambiguous


def view_matrix(
    box: Box,
    factor: float,
    spacing: tuple[float, float],
    size: int,
    rng: np.random.Generator,
    loose: float = 0.0,
    mirror: tuple[int, int] = (1, 1),
) -> NDArray[np.float32]:
    """(2, 3) map from the pixels of a square view to those of the slice.

    Args:
        box: x0, y0, x1, y1 in the middle of the view.
        factor: The view's side is this many times the box's longer side.
        spacing: Millimetres of a row and of a column.
        size: Side of the view in pixels.
        rng: Draws zoom, offset, rotation and stretch.
        loose: How much of them; 0 for none.
        mirror: Factors of x and y for every other view.
    """
    millimetres = np.array([spacing[1], spacing[0]])
    longest = float(((box[2:] - box[:2]) * millimetres).max())
    side = max(longest * factor, LEAST_VOXELS * float(millimetres.min()))
    side *= float(np.exp(rng.uniform(-loose, loose)))
    centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.25, 0.25, 2) * loose * side / millimetres
    turned = loose > 0 and rng.random() < 0.5
    turn = np.deg2rad(rng.uniform(-15, 15)) if turned else 0.0
    stretch = np.exp(rng.uniform(-0.2, 0.2, 2) * loose)
    stretch *= mirror if -1 in mirror and rng.random() < 0.5 else (1, 1)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = (rotation * stretch) * (side / size) / millimetres[:, None]
    # Pixel centres are at whole numbers plus one half in the view, at whole numbers in cv2.
    offset = centre - linear @ np.array([size / 2, size / 2]) + linear.sum(1) / 2 - 0.5
    return np.concatenate([linear, offset[:, None]], 1).astype(np.float32)


def fitted(prompts: PixelPrompts, spec: BackboneSpec) -> PixelPrompts:
    """Prompts as the engine would give them to this backbone: masks at its size, or as boxes."""
    if prompts.mask is None:
        return prompts
    if shown_as(spec) == "box":
        inside = bool((prompts.mask > 0).any())
        return replace(prompts, mask=None, box=box_of(prompts.mask, spec.input_size)
                       if inside else prompts.box)  # fmt: skip
    if prompts.mask.shape[-1] == spec.mask_size:
        return prompts
    mask = functional.interpolate(prompts.mask[None, None], size=(spec.mask_size,) * 2, mode="area")
    return replace(prompts, mask=mask[0, 0])
