"""A network of one convolution and batches small enough to check by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from promptseg.finetune.objectives.base import Batch
from promptseg.finetune.yardsticks.networks import Body
from promptseg.finetune.yardsticks.plain import PlainNetwork


class Maps(nn.Module):
    """A fine and a coarse map."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 2, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.fine(images)
        return [fine, self.coarse(fine)]


class Up(nn.Module):
    """Back to the fine map."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 2, 2, 2)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[0] + self.up(maps[1])


def tiny_body(outputs: int) -> Body:
    return Body(Maps(), Up(), nn.Conv2d(2, outputs, 1))


def tiny_plain(labels: int = 2) -> PlainNetwork:
    return PlainNetwork(tiny_body, labels)


def stroke_batch(count: int = 2, side: int = 4, **changed: object) -> Batch:
    """Of two labels: one pixel each and one of background are annotated, 13 are not."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, 2, side, side)
    masks[:, 0, 0, 0], masks[:, 1, 1, 1] = 1, 1
    known = masks.sum(1)
    known[:, -1, -1] = 1
    given = {
        "images": torch.rand(count, 1, side, side, generator=generator),
        "masks": masks,
        "known": known,
        "labelled": torch.ones(count, dtype=torch.bool),
        "strokes": True,
    }
    return Batch(**{**given, **changed})  # type: ignore[arg-type]


def label_batch(unlabelled: int = 1, side: int = 4, progress: float = 1.0) -> Batch:
    """One whole sample and some without labels; with level sets that are -1 and 1."""
    count = 1 + unlabelled
    labelled = torch.arange(count) == 0
    masks = torch.zeros(count, 2, side, side)
    masks[0, 0, :2], masks[0, 1, 2:, :2] = 1, 1
    return Batch(
        images=torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(1)),
        masks=masks,
        known=None,
        labelled=labelled,
        levels=1 - 2 * masks,
        progress=progress,
        boost=float(count),
    )
