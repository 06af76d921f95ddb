"""A teacher that is the moving average of its student."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from promptseg.finetune.objectives.base import Batch, Loss, Network, Objective, Seen, swapped
from promptseg.finetune.objectives.perturb import noisy
from promptseg.finetune.objectives.terms import mean_square, ramp

DECAY = 0.99


class MeanTeacher(Objective):
    """Tarvainen and Valpola, NIPS 2017: the student answers as the average of its past does.

    The squared difference of their probabilities counts on all samples; the teacher sees noise
    on the image, as Yu et al. (UA-MT, MICCAI 2019) set it up.
    """

    weight = 0.1

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.slow = {name: p.detach().clone() for name, p in network.parameters.items()}

    def losses(self, batch: Batch) -> Loss:
        agreed = self.lesson(batch)
        seen = self.network.see(batch)
        total, parts = seen.annotated()
        apart = self.distance(seen, agreed, batch.progress).sum()
        total = total + self.weight * ramp(batch.progress) * apart
        return total, {**parts, "teacher": float(apart.detach()) / len(batch)}

    def lesson(self, batch: Batch) -> Tensor:
        """What the teacher says of a batch."""
        return self.taught(batch, noisy(batch.images))

    def distance(self, seen: Seen, lesson: Tensor, progress: float) -> Tensor:
        """(B,) between student and lesson."""
        return mean_square(seen.probabilities(), lesson)

    def taught(self, batch: Batch, images: Tensor) -> Tensor:
        """(B, C, *mask) the teacher's probabilities."""
        with torch.no_grad(), swapped(self.network.parameters, self.slow):
            return self.network.see(batch, images).probabilities()

    @property
    def state(self) -> Mapping[str, Tensor]:
        return self.slow

    def restore(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in state.items():
                self.slow[name].copy_(value)

    def stepped(self, step: int) -> None:
        # The true average until the decay takes over, so that the start is forgotten.
        decay = min(1 - 1 / (step + 1), DECAY)
        with torch.no_grad():
            for name, slow in self.slow.items():
                slow.lerp_(self.network.parameters[name], 1 - decay)
