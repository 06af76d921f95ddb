"""A small 3D network that corrects masks: (image, mask, clicks) -> what to add to the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUTS = 10
CELL = 2
SMALL = 4


class Convolution(nn.Conv3d):
    """nn.Conv3d whose gradients hold for small maps too.

    oneDNN's bfloat16 gradient of the weights is wrong where a side has two elements or fewer
    (torch 2.15, CPU): small maps are convolved in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) > SMALL:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def conv_norm(inputs: int, outputs: int, groups: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 x 3 convolution, group normalisation, rectifier."""
    return nn.Sequential(
        Convolution(inputs, outputs, 3, stride, 1, bias=False),
        nn.GroupNorm(groups, outputs, 1e-3),
        nn.ReLU(),
    )


class Level(nn.Module):
    """Two normalised convolutions with a shortcut; (B, C, D, H, W) -> the same."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, groups)
        self.second = nn.Sequential(
            Convolution(channels, channels, 3, 1, 1, bias=False),
            nn.GroupNorm(groups, channels, 1e-3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


def to_cells(x: Tensor) -> Tensor:
    """(B, C, D, H, W) -> (B, 8 C, D/2, H/2, W/2): every 2 x 2 x 2 cell becomes channels."""
    b, c, d, h, w = x.shape
    split = x.reshape(b, c, d // CELL, CELL, h // CELL, CELL, w // CELL, CELL)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * CELL**3, *split.shape[2:7:2])


def from_cells(x: Tensor) -> Tensor:
    """(B, 8, d, h, w) -> (B, 2 d, 2 h, 2 w), the inverse of `to_cells` for one channel."""
    b, _, d, h, w = x.shape
    split = x.reshape(b, CELL, CELL, CELL, d, h, w).permute(0, 4, 1, 5, 2, 6, 3)
    return split.reshape(b, d * CELL, h * CELL, w * CELL)


class ClickCorrector(nn.Module):
    """U-Net on 2 x 2 x 2 cells of an isotropic crop.

    Args:
        channels: Of every level, at strides 2, 4, 8 and 16.
        groups: Of every group normalisation.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 48, 64, 64), groups: int = 8) -> None:
        super().__init__()
        self.channels, self.groups = tuple(channels), groups
        first, *deeper = self.channels
        self.stem = conv_norm(INPUTS * CELL**3, first, groups)
        self.down = nn.ModuleList([Level(first, groups)])
        for shallow, deep in zip(self.channels, deeper, strict=False):
            level = nn.Sequential(conv_norm(shallow, deep, groups, 2), Level(deep, groups))
            self.down.append(level)
        pairs = list(zip(self.channels, deeper, strict=False))
        self.raised = nn.ModuleList(nn.Conv3d(deep, shallow, 1) for shallow, deep in pairs)
        self.up = nn.ModuleList(Level(shallow, groups) for shallow, _ in pairs)
        self.head = nn.Conv3d(first, CELL**3, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    @property
    def multiple(self) -> int:
        """Every side of the input must be a multiple of this."""
        return int(CELL * 2 ** (len(self.channels) - 1))

    def config(self) -> dict[str, Any]:
        """What the constructor needs to make the same network."""
        return {"channels": list(self.channels), "groups": self.groups}

    def forward(self, x: Tensor) -> Tensor:
        """(B, INPUTS, D, H, W) of `corrector_inputs` -> what to add to the logits, (B, D, H, W)."""
        x = self.stem(to_cells(x))
        kept = []
        for level in self.down:
            x = level(x)
            kept.append(x)
        for n in range(len(self.up) - 1, -1, -1):
            raised = functional.interpolate(self.raised[n](x), scale_factor=2.0, mode="trilinear")
            x = self.up[n](kept[n] + raised)
        return from_cells(self.head(x))
