"""Terms that losses are made of; all give one value a sample, (B,)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from promptseg.errors import FormatError

# METHODS C and the thesis's section 5.3.1: as steep as possible, so that distances of a
# thousandth of the target's size already tell inside from outside.
STEEPNESS = 1500.0


def partial_cross_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """Mean cross-entropy over annotated elements (equation 4-1, over their number).

    Elements that nobody annotated have no share in any class and no gradient. Samples with less
    than one annotated element count less.

    Args:
        logits: (B, C, *mask).
        shares: (B, C, *mask) share of each element annotated as each class.
    """
    losses = -(shares * logits.log_softmax(1)).flatten(1).sum(1)
    return losses / shares.flatten(1).sum(1).clamp(min=1)


def soft_dice(probabilities: Tensor, shares: Tensor) -> Tensor:
    """MONAI's soft Dice loss, mean over all classes (equations 4-3 and 5-5).

    Args:
        probabilities: (B, C, *mask).
        shares: (B, C, *mask), 0 or 1, or shares of each element.
    """
    return _dice()(probabilities, shares).flatten(1).mean(1)


def hard_labels(probabilities: Tensor) -> Tensor:
    """(B, C, *mask) 1 for the most probable class of each element; without gradient."""
    best = probabilities.detach().argmax(1)
    return functional.one_hot(best, probabilities.shape[1]).movedim(-1, 1).to(probabilities.dtype)


def mean_square(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference over everything but the first axis."""
    return (one - other).square().flatten(1).mean(1)


def entropy(probabilities: Tensor) -> Tensor:
    """(B, *mask) entropy over the classes (equation 2-16), 1 where all are equally probable."""
    safe = probabilities.clamp(min=1e-8)
    return -(probabilities * safe.log()).sum(1) / math.log(probabilities.shape[1])


def ramp(progress: float) -> float:
    """Weight exp(-5 (1 - t)^2) of terms without labels: 0.0067 at the start, 1 at the end."""
    return math.exp(-5 * (1 - min(1.0, max(0.0, progress))) ** 2)


def inside_probability(levels: Tensor) -> Tensor:
    """Smooth inverse of the level-set transform (equation 5-2): 1 inside, 0 outside.

    The thesis prints sigma(k z) for level sets that are positive inside; with equation 5-1, which
    is negative inside, the sign turns.
    """
    return torch.sigmoid(-STEEPNESS * levels)


@functools.cache
def _dice() -> Callable[[Tensor, Tensor], Tensor]:
    try:
        from monai.losses import DiceLoss
    except ImportError as error:
        raise FormatError("this objective needs MONAI: pip install 'promptseg[train]'") from error
    loss: Callable[[Tensor, Tensor], Tensor] = DiceLoss(
        reduction="none", smooth_nr=1.0, smooth_dr=1.0
    )
    return loss
