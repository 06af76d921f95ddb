"""One process, or several that `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from promptseg.errors import PromptsegError
from promptseg.inference.device import choose_device


@dataclass(frozen=True)
class Processes:
    """The group this process belongs to.

    Args:
        rank: Number of this process.
        world: How many there are.
        device: Where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """True for the one that writes files."""
        return self.rank == 0

    def share(self, world_items: Sequence[Any]) -> list[Any]:
        """This process's part of a list that all hold."""
        return list(world_items[self.rank :: self.world])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over the processes, in place."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, number: float) -> float:
        """The first process's number."""
        if self.world == 1:
            return number
        held = torch.tensor([number], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(held, 0)
        return float(held)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.world > 1:
            torch.distributed.barrier()


def start_processes(device: str = "auto") -> Processes:
    """Join the group that `accelerate launch` or `torchrun` prepared; alone without one.

    Raises:
        PromptsegError: Several processes were started and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1, choose_device(device))
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise PromptsegError(
            "several processes need accelerate: pip install 'promptseg[train]'"
        ) from error
    state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
    return Processes(state.process_index, state.num_processes, state.device)
