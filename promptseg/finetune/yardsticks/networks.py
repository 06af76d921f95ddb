"""MONAI's U-Net and V-Net as an encoder, a decoder and a head each, so that branches can be added.

BasicUNet: Falk et al., Nature Methods 2019; V-Net: Milletari et al., 3DV 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from promptseg.errors import FormatError

# The thesis's U-Net: 16 channels at full size, doubled with every halving.
UNET_WIDTHS = (16, 32, 64, 128, 256, 16)


class Body(nn.Module):
    """An encoder that gives maps from fine to coarse, a decoder back to the finest, a head.

    Args:
        encoder: Image -> maps.
        decoder: Maps -> one map.
        head: That map -> class logits.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, *size) -> (B, C, *size) logits."""
        logits: Tensor = self.head(self.decoder(self.encoder(images)))
        return logits


class Descent(nn.Module):
    """Stages one after the other; all their maps."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Ascent(nn.Module):
    """Stages from the coarsest map up, each joined by the next finer one."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fine = maps[-1]
        for stage, beside in zip(self.stages, reversed(maps[:-1]), strict=True):
            fine = stage(fine, beside)
        return fine


def unet(outputs: int) -> Body:
    """2D U-Net on one grey channel."""
    net = _nets().BasicUNet(2, 1, outputs, features=UNET_WIDTHS)
    down = [net.conv_0, net.down_1, net.down_2, net.down_3, net.down_4]
    up = [net.upcat_4, net.upcat_3, net.upcat_2, net.upcat_1]
    return Body(Descent(down), Ascent(up), net.final_conv)


def vnet(outputs: int) -> Body:
    """3D V-Net on one grey channel."""
    net = _nets().VNet(3, 1, outputs)
    down = [net.in_tr, net.down_tr32, net.down_tr64, net.down_tr128, net.down_tr256]
    up = [net.up_tr256, net.up_tr128, net.up_tr64, net.up_tr32]
    return Body(Descent(down), Ascent(up), net.out_tr)


BODIES = {"unet": unet, "vnet": vnet}


def _nets() -> Any:
    try:
        from monai.networks import nets
    except ImportError as error:
        raise FormatError("the yardsticks need MONAI: pip install 'promptseg[train]'") from error
    return nets
