"""A mean teacher that is listened to where it is sure."""

from __future__ import annotations

import torch
from torch import Tensor

from promptseg.finetune.objectives.base import Batch, Seen
from promptseg.finetune.objectives.mean_teacher import MeanTeacher
from promptseg.finetune.objectives.perturb import noisy
from promptseg.finetune.objectives.terms import entropy, ramp

PASSES = 8


class UncertainTeacher(MeanTeacher):
    """Yu et al., Uncertainty-aware Self-ensembling Model (UA-MT), MICCAI 2019.

    The teacher answers `PASSES` times with dropout and noise. Elements count where the entropy
    of the mean is below a bound that rises from 3/4 of the greatest to the greatest.
    """

    def lesson(self, batch: Batch) -> Tensor:
        with self.network.stochastic():
            answers = [self.taught(batch, noisy(batch.images)) for _ in range(PASSES)]
        return torch.stack(answers).mean(0)

    def distance(self, seen: Seen, lesson: Tensor, progress: float) -> Tensor:
        sure = entropy(lesson) < 0.75 + 0.25 * ramp(progress)
        apart = (seen.probabilities() - lesson).square().mean(1) * sure
        return apart.flatten(1).sum(1) / sure.flatten(1).sum(1).clamp(min=1)
