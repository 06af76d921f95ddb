"""What learns: where it started, its moving average, and a way to look at either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Weights:
    """Parameters by name and their moving average.

    Args:
        parameters: What is trained, in place.
        decay: Of the average; 0 keeps none.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.first = self.copies()
        self.average = self.copies() if decay else {}

    def copies(self) -> dict[str, Tensor]:
        """The parameters as they are now."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Set parameters."""
        with torch.no_grad():
            for name, value in values.items():
                self.parameters[name].copy_(value)

    def restore(self, parameters: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> None:
        """Set parameters and average to those of a checkpoint."""
        self.put(parameters)
        with torch.no_grad():
            for name, value in average.items():
                self.average[name].copy_(value)

    def follow(self, step: int) -> None:
        """Move the average on after a step; the first ones count for more."""
        decay = min(self.decay, step / (step + 10))
        with torch.no_grad():
            for name, slow in self.average.items():
                slow.lerp_(self.parameters[name], 1 - decay)

    @contextmanager
    def averaged(self, share: float = 1.0) -> Iterator[None]:
        """The moving average in place of the weights, meanwhile.

        Args:
            share: How far to go there from the start; 0 is the base with the first tokens.
        """
        if not self.average and share == 1:
            yield
            return
        kept = self.copies()
        learned = self.average or kept
        self.put({n: torch.lerp(self.first[n], learned[n], share) for n in learned})
        try:
            yield
        finally:
            self.put(kept)
