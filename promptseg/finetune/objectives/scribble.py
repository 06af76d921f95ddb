"""Dynamically mixed pseudo-labels of two branches (DMPLS; thesis, chapter 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from promptseg.finetune.objectives.terms import hard_labels, soft_dice
from promptseg.finetune.objectives.two_branches import TwoBranches


class MixedPseudoLabels(TwoBranches):
    """Equations 4-1 to 4-4; published as Luo et al., Scribble-Supervised Medical Image
    Segmentation via Dual-Branch Network and Dynamically Mixed Pseudo Labels Supervision, MICCAI
    2022.

    Both branches learn the strokes by partial cross-entropy, and by Dice the labels that a fresh
    random mixture of both gives to every element. No gradient passes from one branch to the other
    through those labels.
    """

    needs_strokes = True

    def mutual(self, main: Tensor, auxiliary: Tensor) -> Tensor:
        labels = mixed_labels(main, auxiliary, float(torch.rand(())))
        return 0.5 * (soft_dice(main, labels) + soft_dice(auxiliary, labels))


def mixed_labels(main: Tensor, auxiliary: Tensor, share: float) -> Tensor:
    """Equation 4-2: (B, C, *mask) one-hot labels of the mixture, without gradient.

    Args:
        main: (B, C, *mask) probabilities.
        auxiliary: The same of the other branch.
        share: Of the main branch, in [0, 1].
    """
    return hard_labels(share * main.detach() + (1 - share) * auxiliary.detach())
