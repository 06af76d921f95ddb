"""Sure answers on plain images become labels of strongly changed ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from promptseg.finetune.objectives.base import Batch, Loss, Objective
from promptseg.finetune.objectives.perturb import strongly

SURE = 0.95


class FixMatch(Objective):
    """Sohn et al., NeurIPS 2020, element by element."""

    def losses(self, batch: Batch) -> Loss:
        seen = self.network.see(batch)
        total, parts = seen.annotated()
        changed = self.network.see(batch, strongly(batch.images)).classes()
        matched = sure_cross_entropy(changed, seen.probabilities().detach()).sum()
        return total + matched, {**parts, "matched": float(matched.detach()) / len(batch)}


def sure_cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    """(B,) cross-entropy to the most probable class, 0 where that is less than `SURE`.

    Args:
        logits: (B, C, *mask) of the changed images.
        probabilities: (B, C, *mask) of the plain ones.
    """
    sure, labels = probabilities.max(1)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return torch.where(sure >= SURE, losses, torch.zeros_like(losses)).flatten(1).mean(1)
