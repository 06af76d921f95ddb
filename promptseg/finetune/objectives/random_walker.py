"""Strokes grown to labels by a random walker, then learned as if they were labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptseg.finetune.objectives.base import Batch, Loss, Objective
from promptseg.finetune.objectives.terms import soft_dice

BETA = 130
# A walker that is less sure than this leaves the element unannotated.
SURE = 0.8


class RandomWalker(Objective):
    """Grady, TPAMI 2006, as scikit-image has it; for training as in Can et al., DLMIA 2018.

    The walker runs once before training, slice by slice; the network then learns by
    cross-entropy and Dice what it was sure of.
    """

    needs_strokes = True
    uses_unlabelled = False

    def losses(self, batch: Batch) -> Loss:
        seen = self.network.see(batch)
        total, parts = seen.annotated()
        shares = batch.shares
        known = shares.sum(1, keepdim=True)
        overlap = (soft_dice(seen.probabilities() * known, shares) * batch.labelled).sum()
        return total + overlap * batch.boost, parts

    @classmethod
    def completed(
        cls, image: NDArray[np.floating], strokes: NDArray[np.integer]
    ) -> NDArray[np.integer]:
        return np.stack([walked(grey, drawn) for grey, drawn in zip(image, strokes, strict=True)])


def walked(grey: NDArray[np.floating], strokes: NDArray[np.integer]) -> NDArray[np.integer]:
    """Labels of a slice grown from its strokes; -1 where the walker is not sure.

    Args:
        grey: (H, W) in [0, 1].
        strokes: (H, W) classes from 0, -1 where nobody drew; one class alone, or a blank
            slice, stays as it is.
    """
    from skimage.segmentation import random_walker

    classes = np.unique(strokes[strokes >= 0])
    if len(classes) < 2 or not (strokes < 0).any() or not np.ptp(grey):
        return strokes
    seeds = np.zeros(strokes.shape, np.int32)
    for number, value in enumerate(classes, start=1):
        seeds[strokes == value] = number
    data = grey.astype(np.float64)
    chances = random_walker(
        data, seeds, beta=BETA, mode="cg_j", return_full_prob=True, prob_tol=1.0
    )
    grown = np.where(chances.max(0) >= SURE, classes[chances.argmax(0)], -1)
    return np.where(strokes >= 0, strokes, grown).astype(strokes.dtype)
