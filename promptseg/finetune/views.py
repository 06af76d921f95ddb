"""Views of cases: crops as the engine cuts them, with the organ's masks and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from promptseg.backbones.base import BackboneSpec, PixelPrompts
from promptseg.datasets.simulation import users
from promptseg.datasets.simulation.pixel_prompts import sample_prompts
from promptseg.finetune.augment import augment
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.organ_case import LEAST_PIXELS, UNKNOWN, Box, OrganCase, carried, grown
from promptseg.finetune.stroke_prompts import stroke_prompts
from promptseg.finetune.warping import warp
from promptseg.inference.crop import CROP, LEAST_VOXELS
from promptseg.propagation.carrying import CARRIED_MM, CARRIED_MOST, box_of, shown_as

ON_SLICE, ALL_LABELS = 0.5, 0.2


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
        known: (m, m) share of each pixel that is annotated; None where the labels are whole.
        levels: (L, m, m) signed distances in [-1, 1]; None where they are not learned.
        labelled: False if nobody annotated anything.
        missing: Places of the labels that nobody annotated in this case.
    """

    number: int
    image: Tensor
    masks: Tensor
    prompts: list[PixelPrompts]
    places: list[int]
    ambiguous: list[bool]
    known: Tensor | None = None
    levels: Tensor | None = None
    labelled: bool = True
    missing: frozenset[int] = frozenset()

    @property
    def size(self) -> int:
        """Side of the image in pixels."""
        return int(self.image.shape[-1])


class ViewMaker:
    """Draws views; view n depends on the seed and n alone.

    With unlabelled volumes every second view is of one of them. It looks where the target lies in
    some labelled volume, in proportion to what is not black in both.

    Args:
        cases: Labelled volumes.
        count: Number of labels.
        spec: Of the backbone: sizes and context.
        config: Shares, augmentation and seed.
        training: False gives plain views of the target with a box each, for validation.
        unlabelled: Further volumes.
        strokes: True if labels are strokes.
    """

    def __init__(
        self,
        cases: Sequence[OrganCase],
        count: int,
        spec: BackboneSpec,
        config: FinetuneConfig,
        training: bool = True,
        unlabelled: Sequence[OrganCase] = (),
        strokes: bool = False,
    ) -> None:
        self.cases, self.count, self.spec, self.config = list(cases), count, spec, config
        self.training, self.unlabelled, self.strokes = training, list(unlabelled), strokes
        self.partial = strokes or any(bool((case.labels == UNKNOWN).any()) for case in self.cases)
        self.negatives = [case for case in self.cases if not case.slices]

    @property
    def boost(self) -> float:
        """Views over labelled views."""
        return 2.0 if self.unlabelled else 1.0

    def resized(self, spec: BackboneSpec) -> ViewMaker:
        """The same cases for another input size."""
        return ViewMaker(
            self.cases,
            self.count,
            spec,
            self.config,
            self.training,
            self.unlabelled,
            self.strokes,
        )

    def plain(self) -> ViewMaker:
        """Plain views of the same cases, as in validation."""
        return ViewMaker(self.cases, self.count, self.spec, self.config, training=False)

    def __getitem__(self, number: int) -> View:
        pool = number % self.config.views if self._pooled else number
        rng = np.random.default_rng((self.config.seed, int(self.training), pool))
        case, place, index, absent = self._choose(rng)
        if self.unlabelled and pool % 2:
            return self._unlabelled(pool if self._pooled else number, case, place, index, rng)
        matrix = self._matrix(case, place, index, absent, rng)
        image, masks, beside = self._cut(case, index, matrix, rng)
        if self._pooled:
            rng = np.random.default_rng((self.config.seed, 2, number))
        shown = [n for n in range(self.count) if (masks[n] > 0.5).sum() >= LEAST_PIXELS]
        place = place if place in shown or not shown else shown[int(rng.integers(len(shown)))]
        known = self._known(case, index, matrix) if self.partial else None
        if known is None or not self.strokes:
            prompts, ambiguous = self._prompts(masks[place] > 0.5, beside[place], rng)
        else:
            inside, outside = masks[place] > 0.5, known - masks[place] > 0.5
            prompts, ambiguous = stroke_prompts(inside, outside, self.config.prompts, rng)
        small = functional.interpolate(
            torch.from_numpy(masks)[None], size=(self.spec.mask_size,) * 2, mode="area"
        )[0]
        return View(
            pool if self._pooled else number,
            image,
            small,
            prompts,
            [place] * len(prompts),
            ambiguous,
            known=None if known is None else self._small(known),
            levels=self._levels(case, index, matrix),
            missing=case.missing,
        )

    def _unlabelled(
        self, number: int, like: OrganCase, place: int, index: int, rng: np.random.Generator
    ) -> View:
        """A view of an unlabelled volume, where the target lies in a labelled one."""
        case = self.unlabelled[int(rng.integers(len(self.unlabelled)))]
        case = replace(case, boxes={place: carried(like.boxes[place], like.body, case.body)})
        index = round(index * (len(case.image) - 1) / max(1, len(like.image) - 1))
        matrix = self._matrix(case, place, index, True, rng)
        image = self._image(case, index, matrix, rng)
        side = self.spec.mask_size
        masks = torch.zeros(self.count, side, side)
        known = torch.zeros(side, side) if self.partial else None
        levels = torch.zeros_like(masks) if like.levels is not None else None
        return View(number, image, masks, [], [], [], known, levels, labelled=False)

    def _known(
        self, case: OrganCase, index: int, matrix: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(S, S) share of each pixel that is annotated; none outside the image."""
        known = (case.labels[index] != UNKNOWN).astype(np.uint8)
        return warp(known, matrix, self.spec.input_size)

    def _levels(self, case: OrganCase, index: int, matrix: NDArray[np.float32]) -> Tensor | None:
        """(L, m, m) signed distances; far outside beyond the image."""
        if case.levels is None:
            return None
        size = self.spec.input_size
        planes = case.levels[:, index].astype(np.float32)
        return torch.stack([self._small(warp(plane, matrix, size, 1.0)) for plane in planes])

    def _small(self, plane: NDArray[np.float32]) -> Tensor:
        side = (self.spec.mask_size,) * 2
        whole = torch.from_numpy(np.ascontiguousarray(plane))[None, None]
        return functional.interpolate(whole, size=side, mode="area")[0, 0]

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
            if self.negatives and rng.random() < len(self.negatives) / len(self.cases):
                return self._negative(case, place, rng)
            near = outside[(outside >= within[0] - 3) & (outside <= within[-1] + 3)]
            chosen = near if len(near) and rng.random() < 0.5 else outside
            return case, place, int(rng.choice(chosen)), True
        return case, place, int(rng.choice(within)), False

    def _negative(
        self, like: OrganCase, place: int, rng: np.random.Generator
    ) -> tuple[OrganCase, int, int, bool]:
        """A slice of a case that has no label, looked at where the label lies in another case."""
        case = self.negatives[int(rng.integers(len(self.negatives)))]
        boxes = {place: carried(like.boxes[place], like.body, case.body)}
        return replace(case, boxes=boxes), place, int(rng.integers(len(case.image))), True

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
            box = grown(box) if self.strokes else box
        elif draw < ON_SLICE + ALL_LABELS:
            every = np.stack(list(case.boxes.values()))
            box = np.concatenate([every[:, :2].min(0), every[:, 2:].max(0)])
        loose = 0.35 if self.training else 0.0
        mirror = case.mirror if self.training else (1, 1)
        size = self.spec.input_size
        return view_matrix(box, self._factor, case.spacing, size, rng, loose, mirror)

    @property
    def _factor(self) -> float:
        """Side of a view over that of the target's box."""
        stored = stored_factor(self.config, self.spec)
        return CROP.trained if stored is None else stored

    def _cut(
        self, case: OrganCase, index: int, matrix: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[Tensor, NDArray[np.float32], list[NDArray[np.bool_] | None]]:
        """Image (3, S, S), masks (L, S, S) and of each label the mask on a slice beside."""
        size, last = self.spec.input_size, len(case.image) - 1
        image = self._image(case, index, matrix, rng)
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
        return image, masks, beside

    def _image(
        self, case: OrganCase, index: int, matrix: NDArray[np.float32], rng: np.random.Generator
    ) -> Tensor:
        """(3, S, S) grey values of a slice and of those beside it."""
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
        return torch.from_numpy(np.ascontiguousarray(grey.transpose(2, 0, 1)))

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


def stored_factor(config: FinetuneConfig, spec: BackboneSpec) -> float | None:
    """The crop factor that an adapter is trained with and keeps: the recipe's, or the model's."""
    return spec.crop_factor if config.crop_factor is None else config.crop_factor


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
