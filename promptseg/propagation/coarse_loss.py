"""What the coarse 3D view learns by."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def coarse_loss(logits: Tensor, quality: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Dice loss, cross-entropy near the target and everywhere, error of the expected Dice.

    Args:
        logits: (B, D, H, W).
        quality: (B,) logits of the expected Dice.
        target: (B, D, H, W) 0 or 1.

    Returns:
        Scalar loss and (B,) Dice of the answers.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    share = logits.sigmoid()
    sums = (1, 2, 3)
    overlap = (2 * (share * target).sum(sums) + 1) / (share.sum(sums) + target.sum(sums) + 1)
    near = functional.max_pool3d(target[:, None], 7, 1, 3)[:, 0]
    close = (entropy * near).sum(sums) / near.sum(sums).clamp(min=1)
    with torch.no_grad():
        found = (logits > 0).float()
        dice = 2 * (found * target).sum(sums) / (found.sum(sums) + target.sum(sums)).clamp(min=1)
    scoring = functional.mse_loss(quality.sigmoid(), dice)
    loss = (1 - overlap + close + entropy.mean(sums) / 2).mean() + 0.5 * scoring
    return loss, dice
