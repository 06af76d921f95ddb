"""The network of the coarse 3D view: (image, prompts, masks on slices, clicks) -> a 3D mask."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from promptseg.refine.corrector_network import Convolution, Level, conv_norm, from_cells, to_cells

CELL = 2


class CoarseNetwork(nn.Module):
    """U-Net on 2 x 2 x 2 cells of a cubic view, with the Dice it expects of its answer.

    Args:
        inputs: Channels of the input.
        channels: Of every level, at strides 2, 4, 8 and 16.
        groups: Of every group normalisation.
    """

    def __init__(
        self, inputs: int, channels: tuple[int, ...] = (24, 64, 96, 96), groups: int = 8
    ) -> None:
        super().__init__()
        self.inputs, self.channels, self.groups = inputs, tuple(channels), groups
        first, *deeper = self.channels
        # A cell's 120 values are mixed within the cell: 3 x 3 x 3 here is a third of all the work.
        self.stem = nn.Sequential(
            nn.Conv3d(inputs * CELL**3, first, 1, bias=False),
            nn.GroupNorm(groups, first, 1e-3),
            nn.ReLU(),
        )
        self.down = nn.ModuleList([Level(first, groups)])
        for shallow, deep in zip(self.channels, deeper, strict=False):
            self.down.append(
                nn.Sequential(
                    conv_norm(shallow, deep, groups, 2), Level(deep, groups), Level(deep, groups)
                )
            )
        pairs = list(zip(self.channels, deeper, strict=False))
        self.raised = nn.ModuleList(Convolution(deep, shallow, 1) for shallow, deep in pairs)
        self.up = nn.ModuleList(Level(shallow, groups) for shallow, _ in pairs)
        self.head = nn.Conv3d(first, CELL**3, 1)
        width = self.channels[-1]
        self.quality = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    @property
    def multiple(self) -> int:
        """Every side of the input must be a multiple of this."""
        return int(CELL * 2 ** (len(self.channels) - 1))

    def config(self) -> dict[str, Any]:
        """What the constructor needs to make the same network."""
        return {"inputs": self.inputs, "channels": list(self.channels), "groups": self.groups}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Answer views.

        Args:
            x: (B, inputs, D, H, W).

        Returns:
            Logits of the mask (B, D, H, W) and logits of its expected Dice (B,).
        """
        x = self.stem(to_cells(x))
        kept = []
        for level in self.down:
            x = level(x)
            kept.append(x)
        quality = self.quality(x.float().mean((2, 3, 4)))[:, 0]
        for n in range(len(self.up) - 1, -1, -1):
            raised = functional.interpolate(self.raised[n](x), scale_factor=2.0, mode="trilinear")
            x = self.up[n](kept[n] + raised)
        return from_cells(self.head(x)), quality


def count(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())
