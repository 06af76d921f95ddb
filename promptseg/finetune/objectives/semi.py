"""Dual-task consistency of masks and level sets (DTC; thesis, chapter 5)."""

from __future__ import annotations

from promptseg.errors import FormatError
from promptseg.finetune.objectives.base import LEVELS, MAIN, Batch, Loss, Objective
from promptseg.finetune.objectives.terms import inside_probability, mean_square, ramp


class DualTaskConsistency(Objective):
    """Equations 5-1 to 5-7; published as Luo et al., Semi-supervised Medical Image Segmentation
    through Dual-task Consistency, AAAI 2021.

    A second head predicts signed distances, one channel a label as the thesis's section 5.4
    proposes. It learns those of labelled samples; on all samples the smooth transform of its
    answer and the probabilities of the mask head must agree.
    """

    branches = (LEVELS,)
    takes_strokes = False
    needs_unlabelled = True
    needs_levels = True

    def losses(self, batch: Batch) -> Loss:
        if batch.levels is None:
            raise FormatError("semi needs the signed distances of labelled samples")
        seen = self.network.see(batch)
        total, parts = seen.annotated()
        predicted = seen.levels()
        known = mean_square(predicted, batch.levels) * batch.labelled
        apart = mean_square(seen.probabilities(MAIN)[:, 1:], inside_probability(predicted)).sum()
        total = total + known.sum() * batch.boost + ramp(batch.progress) * apart
        labelled = max(1, int(batch.labelled.sum()))
        return total, {**parts, "levels": float(known.sum().detach()) / labelled,
                       "tasks": float(apart.detach()) / len(batch)}  # fmt: skip
