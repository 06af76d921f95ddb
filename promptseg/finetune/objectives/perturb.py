"""Changes of grey values under which an answer should stay what it is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NOISE, MOST = 0.1, 0.2


def noisy(images: Tensor) -> Tensor:
    """White noise of at most `MOST` (Yu et al., UA-MT, MICCAI 2019)."""
    return images + (torch.randn_like(images) * NOISE).clamp(-MOST, MOST)


def strongly(images: Tensor) -> Tensor:
    """Gain, offset, gamma, blur, noise and a blank square, drawn for every sample.

    Args:
        images: (B, channels, *size) in [0, 1].
    """
    ones = (len(images), *[1] * (images.dim() - 1))

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(ones, device=images.device)

    changed = images.clamp(1e-4, 1) ** draw(0.6, 1.7)
    changed = (changed - 0.5) * draw(0.6, 1.5) + 0.5 + draw(-0.15, 0.15)
    changed = torch.where(draw(0, 1) < 0.5, blurred(changed), changed)
    return blanked(noisy(changed.clamp(0, 1)))


def blurred(images: Tensor) -> Tensor:
    """Mean over three elements along every axis."""
    pool = functional.avg_pool2d if images.dim() == 4 else functional.avg_pool3d
    mean: Tensor = pool(images, 3, 1, 1, count_include_pad=False)
    return mean


def blanked(images: Tensor, share: float = 0.3) -> Tensor:
    """A block of `share` of every side set to one half, anywhere in each sample (DeVries and
    Taylor, Cutout, 2017)."""
    kept = images.clone()
    for row in kept:
        block = []
        for side in row.shape[1:]:
            long = max(1, int(side * share))
            start = int(torch.randint(0, side - long + 1, ()))
            block.append(slice(start, start + long))
        row[(slice(None), *block)] = 0.5
    return kept
