"""Two branches that label each other's elements (CPS of the thesis's table 4-3)."""

from __future__ import annotations

from torch import Tensor

from promptseg.finetune.objectives.terms import hard_labels, soft_dice
from promptseg.finetune.objectives.two_branches import TwoBranches


class CrossPseudoSupervision(TwoBranches):
    """Each branch learns the other's hard labels (Chen et al., CVPR 2021, with two networks)."""

    def mutual(self, main: Tensor, auxiliary: Tensor) -> Tensor:
        losses = soft_dice(main, hard_labels(auxiliary)) + soft_dice(auxiliary, hard_labels(main))
        return 0.5 * losses
