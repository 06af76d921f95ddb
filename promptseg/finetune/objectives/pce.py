"""Partial cross-entropy alone: the lower bound of learning from strokes."""

from __future__ import annotations

from promptseg.finetune.objectives.base import Batch, Loss, Objective


class PartialCrossEntropy(Objective):
    """Annotated elements only (equation 4-1; Lin et al., ScribbleSup, CVPR 2016)."""

    needs_strokes = True
    uses_unlabelled = False

    def losses(self, batch: Batch) -> Loss:
        return self.network.see(batch).annotated()
