"""Whole labels: the network's usual training."""

from __future__ import annotations

from promptseg.finetune.objectives.base import Batch, Loss, Objective


class Supervised(Objective):
    """Every element of every sample is labelled."""

    takes_strokes = False
    uses_unlabelled = False

    def losses(self, batch: Batch) -> Loss:
        return self.network.see(batch).supervised()
