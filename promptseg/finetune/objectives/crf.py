"""Partial cross-entropy and a conditional random field's smoothness (equation 2-13)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from promptseg.finetune.objectives.base import Batch, Loss, Objective

WEIGHT = 0.1
# Elements around each one: farther ones weigh almost nothing at this width, and in 3D cost too
# much.
REACH = {2: 3, 3: 1}
NEAR, ALIKE = 3.0, 0.1


class CrfRegularised(Objective):
    """Neighbours of like grey values get like answers (Tang et al., ECCV 2018), in a window as
    Obukhov et al. (Gated CRF Loss, 2019) compute it."""

    def losses(self, batch: Batch) -> Loss:
        seen = self.network.see(batch)
        total, parts = seen.annotated()
        probabilities = seen.probabilities()
        grey = functional.interpolate(batch.images, probabilities.shape[2:], mode="area")
        rough = pairwise(probabilities, grey).sum()
        return total + WEIGHT * rough, {**parts, "crf": float(rough.detach()) / len(batch)}


def pairwise(probabilities: Tensor, grey: Tensor) -> Tensor:
    """(B,) mean over elements of the sum over their neighbours of w_ij |y_i - y_j|^2.

    w_ij = exp(-|i - j|^2 / 2 NEAR^2 - |I_i - I_j|^2 / 2 ALIKE^2); every pair counts once.

    Args:
        probabilities: (B, C, *mask).
        grey: (B, channels, *mask) in [0, 1].
    """
    total = probabilities.new_zeros(len(probabilities))
    for offset in offsets(REACH[probabilities.dim() - 2], probabilities.dim() - 2):
        here, there = _pair(probabilities.shape[2:], offset)
        likeness = (grey[here] - grey[there]).square().mean(1) / (2 * ALIKE**2)
        apart = sum(step**2 for step in offset) / (2 * NEAR**2)
        difference = (probabilities[here] - probabilities[there]).square().sum(1)
        total = total + (torch.exp(-likeness - apart) * difference).flatten(1).sum(1)
    return total / probabilities[0, 0].numel()


def offsets(reach: int, dimensions: int) -> Iterator[tuple[int, ...]]:
    """One of every two opposite steps to an element within `reach`."""
    steps = itertools.product(range(-reach, reach + 1), repeat=dimensions)
    yield from (step for step in steps if step > (0,) * dimensions)


def _pair(size: tuple[int, ...], offset: tuple[int, ...]) -> tuple[tuple[slice, ...], ...]:
    """Where both elements of each pair are, in (B, C, *size)."""
    whole = (slice(None), slice(None))
    here = tuple(slice(max(0, -d), n - max(0, d)) for n, d in zip(size, offset, strict=True))
    there = tuple(slice(max(0, d), n - max(0, -d)) for n, d in zip(size, offset, strict=True))
    return (*whole, *here), (*whole, *there)
