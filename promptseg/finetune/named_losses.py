"""Losses by name, and sums of them such as `dice+3*cross_entropy` (METHODS E).

Every loss takes logits and targets in [0, 1], both (B, H, W), and gives one value a row (B,).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional

from promptseg.errors import FormatError
from promptseg.finetune.losses import cross_entropy

RowLoss = Callable[[Tensor, Tensor], Tensor]


def weighted(logits: Tensor, target: Tensor, most: float = 20.0) -> Tensor:
    """Cross-entropy in which foreground weighs as much as background, at most `most` each."""
    share = target.mean((-1, -2), keepdim=True).clamp(1e-6, 1 - 1e-6)
    weights = target * (0.5 / share).clamp(max=most)
    weights = weights + (1 - target) * (0.5 / (1 - share)).clamp(max=most)
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (weights * losses).mean((-1, -2))


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """MONAI's focal loss, gamma 2 (Lin et al., Focal Loss for Dense Object Detection, 2017)."""
    return _rows(_monai("FocalLoss", gamma=2.0), logits, target)


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """MONAI's soft Dice loss (Milletari et al., V-Net, 2016)."""
    return _rows(_monai("DiceLoss", sigmoid=True, smooth_nr=1.0, smooth_dr=1.0), logits, target)


def tversky(logits: Tensor, target: Tensor) -> Tensor:
    """MONAI's Tversky loss; a missed pixel costs more than a false one (Salehi et al., 2017)."""
    loss = _monai("TverskyLoss", sigmoid=True, alpha=0.3, beta=0.7, smooth_nr=1.0, smooth_dr=1.0)
    return _rows(loss, logits, target)


def boundary(logits: Tensor, target: Tensor) -> Tensor:
    """Probability times the signed distance to the target's edge, in sides of the image.

    Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019. 0 where the
    target fills nothing or all; meant for sums such as `dice+boundary`.
    """
    distances = torch.from_numpy(np.stack([_signed(t) for t in target.detach().cpu().numpy()]))
    return (torch.sigmoid(logits) * distances.to(logits)).mean((-1, -2))


LOSSES: dict[str, RowLoss] = {
    "cross_entropy": cross_entropy,
    "weighted": weighted,
    "focal": focal,
    "dice": dice,
    "tversky": tversky,
    "boundary": boundary,
}


def loss_by_name(name: str) -> RowLoss:
    """A loss, or a sum: `dice+focal`, `dice+3*cross_entropy`.

    Raises:
        FormatError: A name is unknown, or a factor is no positive number.
    """
    terms = [_term(part, name) for part in name.split("+")]
    return lambda logits, target: sum(  # type: ignore[return-value]
        factor * loss(logits, target) for factor, loss in terms
    )


def _term(part: str, name: str) -> tuple[float, RowLoss]:
    factor, star, called = part.rpartition("*")
    try:
        number = float(factor) if star else 1.0
    except ValueError:
        number = math.nan
    if called.strip() not in LOSSES or not (math.isfinite(number) and number > 0):
        raise FormatError(
            f"loss is {name!r}: join names by +, each with a factor if wanted (2*dice); known: "
            f"{', '.join(LOSSES)}"
        )
    return number, LOSSES[called.strip()]


def _signed(target: np.ndarray) -> np.ndarray:
    inside = target > 0.5
    if not inside.any() or inside.all():
        return np.zeros(target.shape, np.float32)
    distance = distance_transform_edt(~inside) - distance_transform_edt(inside)
    return (distance / target.shape[-1]).astype(np.float32)


@functools.cache
def _monai(name: str, **options: object) -> Callable[[Tensor, Tensor], Tensor]:
    try:
        from monai import losses
    except ImportError as error:
        raise FormatError(
            "focal, dice and tversky need MONAI: pip install 'promptseg[train]'"
        ) from error
    return getattr(losses, name)(reduction="none", **options)


def _rows(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> Tensor:
    return loss(logits[:, None], target[:, None]).flatten(1).mean(1)
