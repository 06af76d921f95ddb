"""What training minimises on candidate masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def soft_dice_loss(logits: Tensor, target: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice over the last two axes: (..., H, W) -> (...)."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum((-1, -2))
    total = probability.sum((-1, -2)) + target.sum((-1, -2))
    return 1 - (2 * overlap + smooth) / (total + smooth)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy over the last two axes: (..., H, W) -> (...)."""
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return losses.mean((-1, -2))


def intersection_over_union(logits: Tensor, target: Tensor) -> Tensor:
    """Jaccard index of thresholded masks; 1 where both are empty: (..., H, W) -> (...)."""
    predicted, truth = logits > 0, target > 0.5
    overlap = (predicted & truth).sum((-1, -2))
    union = (predicted | truth).sum((-1, -2))
    return torch.where(
        union > 0, overlap / union.clamp(min=1), torch.ones_like(union, dtype=torch.float32)
    )


def candidate_loss(
    logits: Tensor, quality: Tensor, presence: Tensor, target: Tensor, ambiguous: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of B prompts with M candidate masks.

    The first mask always learns; of the others the best one learns where the prompt is a single
    click, as in SAM (Kirillov et al. 2023). Quality learns the measured overlap of every mask.

    Args:
        logits: (B, M, H, W).
        quality: (B, M) logits of the predicted overlap.
        presence: (B,) logits.
        target: (B, H, W) in [0, 1].
        ambiguous: (B,) bool.

    Returns:
        Scalar loss, and the mean of its parts.
    """
    wide = target[:, None].expand_as(logits)
    present = (target > 0.5).flatten(1).any(1)
    parts = soft_dice_loss(logits, wide) + 3 * cross_entropy(logits, wide)
    best = torch.where(ambiguous, parts[:, 1:].min(1).values, parts[:, 1:].mean(1) * 0.1)
    overlap = intersection_over_union(logits.detach(), wide)
    scoring = functional.mse_loss(torch.sigmoid(quality), overlap)
    presence_loss = functional.binary_cross_entropy_with_logits(presence, present.float())
    loss = parts[:, 0].mean() + 0.5 * best.mean() + scoring + 0.4 * presence_loss
    return loss, {"mask": parts[:, 0].mean(), "iou": overlap[:, 0].mean(),
                  "scoring": scoring, "presence": presence_loss}  # fmt: skip
