"""How near an encoder comes to what the machine's matrix product reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from promptseg.backbones.base import Backbone
from promptseg.inference.device import DTYPES, autocast
from promptseg.session import Segmenter


@dataclass(frozen=True)
class Limit:
    """How near the encoder comes to the machine's matrix-multiply peak.

    Args:
        flops: Floating-point operations of one slice.
        peak: Measured operations a second of a large matrix product.
        reached: Operations a second of the encoder.
    """

    flops: float
    peak: float
    reached: float

    @property
    def share(self) -> float:
        """Reached over peak."""
        return self.reached / self.peak


def encoder_limit(segmenter: Segmenter, batch: int = 1, rounds: int = 2) -> Limit:
    """Measure the encoder against a matrix product of the same precision on the same device."""
    spec, device = segmenter.backbone.spec, segmenter.device
    images = torch.rand(batch, 3, spec.input_size, spec.input_size, device=device)
    flops = encoder_flops(segmenter.backbone, images[:1])
    with torch.inference_mode(), autocast(device, segmenter.precision):
        seconds = best_of(lambda: segmenter.backbone.encode(images), rounds, device)
    reached = flops * batch / seconds
    return Limit(flops, matmul_peak(device, DTYPES[segmenter.precision]), reached)


def encoder_flops(backbone: Backbone, images: torch.Tensor) -> float:
    """Floating-point operations of `encode`, counted by torch."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.encode(images)
    return float(counter.get_total_flops())


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, the best of several.

    A CPU that has no instructions for `dtype` takes minutes for what a GPU needs to be busy.
    """
    side = 2048 if device.type == "cuda" else 1024
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / best_of(lambda: one @ other, 8, device)


def best_of(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Least seconds of `rounds` calls after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        began = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - began)
    return min(times[1:])
