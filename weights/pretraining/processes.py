"""Several processes that train one network."""

from __future__ import annotations

import torch
import torch.distributed as dist


def place() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def average_gradients(network: torch.nn.Module) -> None:
    """Give every process the mean of all gradients."""
    world = place()[1]
    if world == 1:
        return
    held = [p.grad for p in network.parameters() if p.grad is not None]
    packed = torch.cat([gradient.flatten() for gradient in held])
    dist.all_reduce(packed)
    parts = packed.div_(world).split([gradient.numel() for gradient in held])
    for gradient, part in zip(held, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def agreed_seconds(seconds: float) -> float:
    """The mean over all processes, so that they end and change their rate together."""
    held = torch.tensor([seconds], dtype=torch.float64)
    if place()[1] > 1:
        dist.all_reduce(held)
    return float(held) / place()[1]
