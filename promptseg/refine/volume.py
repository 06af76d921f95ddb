"""Clicks on a propagated segmentation, taken up by information-fusion graph cut in 3D."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.prompts import Point, PromptSet
from promptseg.refine.graphcut import graph_cut_refine


def refined_labels(
    labels: np.ndarray,
    probabilities: dict[int, np.ndarray],
    image: np.ndarray,
    clicks: PromptSet,
    spacing: Sequence[float],
    lam: float = 5.0,
    sigma: float = 0.1,
) -> np.ndarray:
    """Labels after the clicks; only targets that were clicked change.

    Args:
        labels: (I, J, K) integers before.
        probabilities: Foreground probability (I, J, K) of every clicked target.
        image: (I, J, K) grey values in [0, 1].
        clicks: Points in voxels; a foreground point of one target is background for no other.
        spacing: (3,) mm.
        lam: Weight of the pairwise term.
        sigma: Intensity difference that a boundary may cost.

    Returns:
        A new (I, J, K) array.

    Source: information-fusion graph cut of MIDeepSeg, equations 3-3 to 3-10 of the thesis
    (METHODS A).
    """
    refined = labels.copy()
    for target, probability in probabilities.items():
        points = [p for p in clicks.for_target(target) if isinstance(p, Point)]
        mask = graph_cut_refine(
            probability,
            image,
            click_voxels(points, True),
            click_voxels(points, False),
            spacing,
            lam,
            sigma,
        )
        refined[(refined == target) & ~mask] = 0
        refined[mask] = target
    return refined


def click_voxels(points: Sequence[Point], positive: bool) -> np.ndarray:
    """(N, 3) whole voxels of the foreground or background clicks."""
    chosen = [p.at for p in points if p.positive == positive]
    return np.floor(np.array(chosen).reshape(-1, 3) + 0.5).astype(np.int64)
