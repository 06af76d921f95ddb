"""Grey values to what an encoder was trained on."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pixels = Literal["imagenet", "unit"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalised(images: Tensor, size: int, pixels: Pixels = "imagenet") -> Tensor:
    """Colours as the encoder expects them.

    SAM's mean and deviation in grey levels (123.675, 58.395, ...) are ImageNet's times 255.

    Args:
        images: (B, 3, size, size) in [0, 1].
        size: Input size of the network.
        pixels: `imagenet` subtracts ImageNet's mean and divides by its deviation; `unit`
            leaves the values as they are.

    Raises:
        ValueError: If the images have another shape.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise ValueError(
            f"images have shape {tuple(images.shape)}; this backbone takes (B, 3, {size}, {size})"
        )
    if pixels == "unit":
        return images
    mean = torch.tensor(MEAN, dtype=images.dtype, device=images.device).view(3, 1, 1)
    deviation = torch.tensor(STD, dtype=images.dtype, device=images.device).view(3, 1, 1)
    return (images - mean) / deviation
