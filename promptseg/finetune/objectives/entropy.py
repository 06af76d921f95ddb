"""Entropy minimisation: be sure of every element."""

from __future__ import annotations

from promptseg.finetune.objectives.base import Batch, Loss, Objective
from promptseg.finetune.objectives.terms import entropy, ramp

# A term that any confident answer satisfies must stay small beside what is annotated.
WEIGHT = 0.1


class EntropyMinimisation(Objective):
    """Grandvalet and Bengio, NIPS 2004; as in Vu et al., ADVENT, CVPR 2019, ramped up."""

    def losses(self, batch: Batch) -> Loss:
        seen = self.network.see(batch)
        total, parts = seen.annotated()
        unsure = entropy(seen.probabilities()).flatten(1).mean(1).sum()
        total = total + WEIGHT * ramp(batch.progress) * unsure
        return total, {**parts, "entropy": float(unsure.detach()) / len(batch)}
