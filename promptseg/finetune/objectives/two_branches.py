"""What methods with a main and an auxiliary branch share."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from promptseg.finetune.objectives.base import AUXILIARY, MAIN, Batch, Loss, Objective


class TwoBranches(Objective):
    """Both branches learn what is annotated, and something from each other.

    The auxiliary branch is a second decoder behind dropout of 0.5 on the encoder's coarsest map
    (thesis, section 4.2.2). It is dropped after training.
    """

    branches = (AUXILIARY,)
    weight: ClassVar[float] = 0.5

    def losses(self, batch: Batch) -> Loss:
        seen = self.network.see(batch)
        total, parts = seen.annotated(weight=0.5)
        mutual = self.mutual(seen.probabilities(MAIN), seen.probabilities(AUXILIARY)).sum()
        factor = self.weight * self.factor(batch.progress)
        total = total + 0.5 * seen.fit(AUXILIARY) + factor * mutual
        return total, {**parts, "mutual": float(mutual.detach()) / len(batch)}

    def factor(self, progress: float) -> float:
        """Of the mutual term, beside its weight."""
        return 1.0

    @abstractmethod
    def mutual(self, main: Tensor, auxiliary: Tensor) -> Tensor:
        """(B,) loss between the (B, C, *mask) probabilities of the branches."""
