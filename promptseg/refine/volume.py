"""Clicks on a propagated segmentation, taken up by information-fusion graph cut in 3D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from promptseg.prompts import Point, PromptSet
from promptseg.refine.graphcut import Region, graph_cut_refine


def refined_labels(
    labels: np.ndarray,
    probabilities: Mapping[int, np.ndarray],
    image: np.ndarray,
    clicks: PromptSet,
    spacing: Sequence[float],
    lam: float = 5.0,
    sigma: float = 0.1,
    bounds: Mapping[int, Region] | None = None,
) -> np.ndarray:
    """Labels after the clicks; only targets that have a probability change.

    Args:
        labels: (I, J, K) integers before.
        probabilities: Foreground probability (I, J, K) of every target to be cut anew.
        image: (I, J, K) grey values in [0, 1].
        clicks: Points in voxels; a foreground point of one target is background for no other.
        spacing: (3,) mm.
        lam: Weight of the pairwise term.
        sigma: Intensity difference that a boundary may cost, in standard deviations.
        bounds: Part of the volume that holds all of a target, by target.

    Returns:
        A new (I, J, K) array.

    Source: information-fusion graph cut of MIDeepSeg, equations 3-3 to 3-10 of the thesis
    (METHODS A).
    """
    refined = labels.copy()
    for target, probability in probabilities.items():
        inside, outside = click_voxels(clicks.for_target(target))
        bound = (bounds or {}).get(target)
        if bound is not None:
            probability = within(probability, bound)
        mask = graph_cut_refine(
            probability, image, inside, outside, spacing, lam, sigma, region=bound
        )
        refined[(refined == target) & ~mask] = 0
        refined[mask] = target
    return refined


def within(probability: np.ndarray, bound: Region) -> np.ndarray:
    """The same inside `bound`, 0 outside."""
    kept = np.zeros_like(probability)
    kept[bound] = probability[bound]
    return kept


def click_voxels(clicks: PromptSet) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) whole voxels of foreground and of background; a later click on a voxel wins."""
    last: dict[tuple[int, ...], bool] = {}
    for point in clicks:
        if isinstance(point, Point):
            last[tuple(int(np.floor(x + 0.5)) for x in point.at)] = point.positive
    inside = [voxel for voxel, positive in last.items() if positive]
    outside = [voxel for voxel, positive in last.items() if not positive]
    return (np.array(inside, np.int64).reshape(-1, 3), np.array(outside, np.int64).reshape(-1, 3))
