"""Batches for plain networks: whole slices for 2D, cropped blocks for 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptseg.backbones.base import BackboneSpec
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.objectives.base import Batch
from promptseg.finetune.objectives.levels import level_set
from promptseg.finetune.organ_case import UNKNOWN, OrganCase
from promptseg.finetune.views import ViewMaker

Block = tuple[int, int, int]


class SliceSampler:
    """Whole slices of labelled and unlabelled cases in turn, augmented as an adapter's views are.

    Args:
        cases: Labelled cases.
        unlabelled: Further cases.
        count: Number of labels.
        size: Side of the network's input in pixels.
        strokes: True if labels are strokes.
        seed: Decides the draws.
    """

    def __init__(
        self,
        cases: Sequence[OrganCase],
        unlabelled: Sequence[OrganCase],
        count: int,
        size: int,
        strokes: bool,
        seed: int = 0,
    ) -> None:
        spec = BackboneSpec("unet", "promptseg", size, size, "2.5d", True)
        config = FinetuneConfig(organ="any", whole=1.0, prompts=1, seed=seed)
        self.views = ViewMaker(cases, count, spec, config, unlabelled=unlabelled, strokes=strokes)
        self.strokes = strokes

    def batch(self, numbers: Sequence[int], progress: float) -> Batch:
        """Samples of some numbers; equal numbers are equal samples."""
        views = [self.views[number] for number in numbers]
        known = [view.known for view in views if view.known is not None]
        levels = [view.levels for view in views if view.levels is not None]
        return Batch(
            images=torch.stack([view.image[1:2] for view in views]),
            masks=torch.stack([view.masks for view in views]),
            known=torch.stack(known) if known else None,
            labelled=torch.tensor([view.labelled for view in views]),
            levels=torch.stack(levels) if levels else None,
            progress=progress,
            boost=self.views.boost,
            strokes=self.strokes,
        )


class BlockSampler:
    """Cropped blocks, mirrored at random; every second one of an unlabelled case if there are any.

    Args:
        cases: Labelled cases.
        unlabelled: Further cases.
        count: Number of labels.
        block: Sides of a block in voxels, slices first.
        strokes: True if labels are strokes.
        seed: Decides the draws.
        levels: True to give signed distances, measured in 3D once, here.
    """

    def __init__(
        self,
        cases: Sequence[OrganCase],
        unlabelled: Sequence[OrganCase],
        count: int,
        block: Block,
        strokes: bool,
        seed: int = 0,
        levels: bool = False,
    ) -> None:
        self.cases = [_deep(case, count) if levels else case for case in cases]
        self.unlabelled, self.count, self.block = list(unlabelled), count, block
        self.strokes, self.seed, self.levels = strokes, seed, levels

    @property
    def boost(self) -> float:
        """Blocks over labelled blocks."""
        return 2.0 if self.unlabelled else 1.0

    def batch(self, numbers: Sequence[int], progress: float) -> Batch:
        """Blocks of some numbers; equal numbers are equal blocks."""
        rows = [self._block(number) for number in numbers]
        images, masks, known, levels, labelled = (list(c) for c in zip(*rows, strict=True))
        return Batch(
            images=torch.stack(images)[:, None],
            masks=torch.stack(masks),
            known=torch.stack(known),
            labelled=torch.tensor(labelled),
            levels=torch.stack(levels) if self.levels else None,
            progress=progress,
            boost=self.boost,
            strokes=self.strokes,
        )

    def _block(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor, bool]:
        rng = np.random.default_rng((self.seed, number))
        labelled = not self.unlabelled or number % 2 == 0
        pool = self.cases if labelled else self.unlabelled
        case = pool[int(rng.integers(len(pool)))]
        starts = [int(rng.integers(0, max(0, n - b) + 1))
                  for n, b in zip(case.image.shape, self.block, strict=True)]  # fmt: skip
        # Slices have an up and a down; within them the thesis mirrors freely.
        flips = tuple(axis for axis in (1, 2) if rng.random() < 0.5)

        def cut(data: NDArray[np.generic], blank: float) -> Tensor:
            return _cut(data, starts, self.block, blank, flips)

        image = cut(grey(case), 0.0)
        labels = cut(case.labels, UNKNOWN)
        masks = torch.stack([(labels == place + 1).float() for place in range(self.count)])
        levels = torch.zeros_like(masks)
        if labelled and case.levels is not None:
            levels = torch.stack([cut(plane, 1.0) for plane in case.levels])
        return image, masks, (labels != UNKNOWN).float(), levels, labelled


def shrunk(case: OrganCase, factor: int) -> OrganCase:
    """The same at a fraction of its voxels: means of grey values, labels of the greater half.

    Args:
        case: Only image, labels and distances between voxels are changed.
        factor: Voxels of every side that become one; an incomplete last one is filled up.
    """
    if factor == 1:
        return case
    missing = [(0, -n % factor) for n in case.image.shape]

    def means(values: NDArray[np.generic]) -> NDArray[np.float32]:
        whole = np.pad(values.astype(np.float32), missing, mode="edge")
        sides = [n for side in whole.shape for n in (side // factor, factor)]
        return whole.reshape(sides).mean((1, 3, 5))

    labels = np.zeros([-(-n // factor) for n in case.labels.shape], np.uint8)
    for value in np.unique(case.labels):
        labels[means(case.labels == value) >= 0.5] = value
    row, column = case.spacing
    return replace(
        case,
        image=means(case.image),
        labels=labels,
        spacing=(row * factor, column * factor),
        thickness=case.thickness * factor,
    )


def grey(case: OrganCase) -> NDArray[np.float32]:
    """(N, H, W) grey values in [0, 1]."""
    low, high = case.window
    scaled = (case.image.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.clip(scaled, 0, 1)


def _deep(case: OrganCase, count: int) -> OrganCase:
    """The same with the signed distances of each label in 3D."""
    spacing = (case.thickness, *case.spacing)
    maps = [level_set(case.labels == place + 1, spacing, planes=False) for place in range(count)]
    return replace(case, levels=np.stack(maps).astype(np.float16))


def _cut(
    data: NDArray[np.generic],
    starts: Sequence[int],
    block: Block,
    blank: float,
    flips: tuple[int, ...],
) -> Tensor:
    """A block of a volume, `blank` beyond it."""
    part = data[tuple(slice(s, s + b) for s, b in zip(starts, block, strict=True))]
    missing = [(0, b - n) for n, b in zip(part.shape, block, strict=True)]
    whole = np.pad(part.astype(np.float32), missing, constant_values=blank)
    return torch.from_numpy(np.ascontiguousarray(np.flip(whole, flips)))
