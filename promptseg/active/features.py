"""Features of a slice as its prediction masks them: equation 6-2 of the thesis (METHODS D).

`F(I) = flatten(MaxPool(AvgPool_channel(Yhat * f_E(I)))) / N_s`, where `f_E` is what the last layer
before the mask sees. With several targets the sum over them stands in place of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from promptseg.active.samples import Floats

SIDE = 16
LENGTH = SIDE * SIDE
# What the last layer before the masks sees, by family: the default network's finest fusion, the
# upscaling of segment-anything, the second upscaling of transformers' SAMs.
PENULTIMATE = (
    "mask_decoder.to_half",
    "mask_decoder.output_upscaling",
    "mask_decoder.upscale_conv2",
)


@contextmanager
def watching(module: nn.Module) -> Iterator[list[Tensor]]:
    """The latest penultimate map (B, C, h, w) of a network while the block runs.

    The list stays empty for a network whose layer is not known: the encoder's map serves then.
    """
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        seen[:] = [output.detach().float().cpu()]

    layers = dict(module.named_modules())
    found = next((layers[name] for name in PENULTIMATE if name in layers), None)
    handle = None if found is None else found.register_forward_hook(keep)
    try:
        yield seen
    finally:
        if handle is not None:
            handle.remove()


def masked_feature(maps: Sequence[Tensor], masks: Sequence[Tensor]) -> Floats | None:
    """(256,) feature of one slice; None where nothing was predicted.

    Args:
        maps: (C, h, w) penultimate features, one for each target.
        masks: (m, m) bool predictions of the same targets.
    """
    total = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    pixels = 0
    grid: Tensor | None = None
    for features, mask in zip(maps, masks, strict=True):
        mean = features.double().mean(0)
        inside = mask.double()
        if inside.shape != mean.shape:
            size = (mean.shape[-2], mean.shape[-1])
            inside = (functional.interpolate(inside[None, None], size)[0, 0] > 0.5).double()
        pixels += int(inside.sum())
        grid = inside * mean if grid is None else grid + inside * mean
    if grid is None or pixels == 0:
        return None
    total = functional.adaptive_max_pool2d(grid[None, None], SIDE)[0, 0]
    return np.asarray(total.flatten() / pixels)


def class_probabilities(logits: Tensor) -> Tensor:
    """Probabilities of the background and of every target that add up to one.

    Args:
        logits: (L, m, m), one map for each target, each a network's own yes or no.

    Returns:
        (L + 1, m, m), background first.
    """
    shares = logits.double().sigmoid()
    background = (1 - shares).prod(0, keepdim=True)
    together = torch.cat([background, shares])
    return together / together.sum(0, keepdim=True)


def doubts(probabilities: Tensor) -> tuple[float, float, float]:
    """Least confidence (2-14), margin (2-15) and entropy (2-16), each a sum over the pixels.

    Args:
        probabilities: (C, m, m) that add up to one over C.
    """
    ordered = probabilities.sort(0, descending=True).values
    entropy = -(probabilities * probabilities.clamp(min=1e-12).log()).sum()
    return float(ordered[-1].sum()), float((ordered[0] - ordered[1]).sum()), float(entropy)
