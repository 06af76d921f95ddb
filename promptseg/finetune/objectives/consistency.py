"""Two branches that are pulled together (CR of the thesis's table 4-3)."""

from __future__ import annotations

from torch import Tensor

from promptseg.finetune.objectives.terms import mean_square, ramp
from promptseg.finetune.objectives.two_branches import TwoBranches


class BranchConsistency(TwoBranches):
    """Mean squared difference of both branches' probabilities, ramped up.

    With unlabelled cases this is cross-consistency training with one auxiliary decoder (Ouali et
    al., CVPR 2020).
    """

    weight = 1.0

    def factor(self, progress: float) -> float:
        return ramp(progress)

    def mutual(self, main: Tensor, auxiliary: Tensor) -> Tensor:
        return mean_square(main, auxiliary)
