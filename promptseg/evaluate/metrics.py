"""How well a mask agrees with the truth, and how well a series of clicks did.

Masks are 2D or 3D bool arrays; distances are in the unit of `spacing`, 1 by default. Two
definitions of a surface are in use, each the one of its metric's source:

* NSD and HD95: surface elements between voxels, weighted by their area (length in 2D), as in
  DeepMind's `surface-distance` (Nikolov et al., 2021). The tables come from MONAI, which keeps
  them; the package itself fails on empty masks with numpy 2.
* ASSD (thesis equation 3-12): voxels of the mask with a face neighbour outside it, unweighted,
  as in MONAI's symmetric average surface distance.

Both masks empty is a perfect answer (1, distance 0); one empty is the worst (0, infinite).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.integrate import trapezoid

from promptseg.errors import PromptsegError, VolumeError

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_NSD_COUNTS_ABOVE_DICE = 0.2


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm between two surfaces, sorted, each with its element's area.

    `pred_to_truth` and `truth_to_pred` are infinite where the other surface is missing; areas
    are mm^2 in 3D and mm in 2D.
    """

    pred_to_truth: Floats
    pred_areas: Floats
    truth_to_pred: Floats
    truth_areas: Floats


def dice(pred: ArrayLike, truth: ArrayLike) -> float:
    """Dice `2|A n B| / (|A| + |B|)`, thesis equation 3-11; 1 if both are empty."""
    a, b = _masks(pred, truth)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def jaccard(pred: ArrayLike, truth: ArrayLike) -> float:
    """Jaccard `|A n B| / |A u B|`; 1 if both are empty."""
    a, b = _masks(pred, truth)
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def revision_degree(pred: ArrayLike, corrected: ArrayLike) -> float:
    """How much of a prediction was corrected, `100 (1 - Dice)` percent (thesis chapter 6)."""
    return 100 * (1 - dice(pred, corrected))


def surface_distances(
    pred: ArrayLike, truth: ArrayLike, spacing: Sequence[float] | None = None
) -> SurfaceDistances:
    """Area-weighted surface distances by DeepMind's definition.

    Args:
        pred: (H, W) or (D, H, W) bool mask.
        truth: Same shape.
        spacing: Voxel size in mm along each axis.

    Raises:
        VolumeError: Shapes differ, are not 2D or 3D, or the spacing does not fit.
        PromptsegError: MONAI is not installed.
    """
    a, b = _cropped(*_masks(pred, truth))
    steps = _spacing(spacing, a.ndim)
    codes_a, codes_b = _neighbour_codes(a), _neighbour_codes(b)
    edge_a, edge_b = _is_edge(codes_a), _is_edge(codes_b)
    areas = _areas(steps)
    return SurfaceDistances(
        *_sorted(_distance_to(edge_b, steps)[edge_a], areas[codes_a[edge_a]]),
        *_sorted(_distance_to(edge_a, steps)[edge_b], areas[codes_b[edge_b]]),
    )


def normalised_surface_dice(
    pred: ArrayLike,
    truth: ArrayLike,
    spacing: Sequence[float] | None = None,
    tolerance_mm: float = 1.0,
) -> float:
    """Share of both surfaces' area within `tolerance_mm` of the other (DeepMind's definition).

    Raises:
        VolumeError: As `surface_distances`.
        PromptsegError: MONAI is not installed.
    """
    found = surface_distances(pred, truth, spacing)
    total = found.pred_areas.sum() + found.truth_areas.sum()
    close = found.pred_areas[found.pred_to_truth <= tolerance_mm].sum()
    close += found.truth_areas[found.truth_to_pred <= tolerance_mm].sum()
    return float(close / total) if total else 1.0


def hd95(pred: ArrayLike, truth: ArrayLike, spacing: Sequence[float] | None = None) -> float:
    """95th percentile Hausdorff distance in mm, by area (DeepMind's definition).

    The larger of the two directions; 0 if both masks are empty, infinite if one is.

    Raises:
        VolumeError: As `surface_distances`.
        PromptsegError: MONAI is not installed.
    """
    found = surface_distances(pred, truth, spacing)
    if not (found.pred_areas.size or found.truth_areas.size):
        return 0.0
    return max(
        _percentile(found.pred_to_truth, found.pred_areas, 0.95),
        _percentile(found.truth_to_pred, found.truth_areas, 0.95),
    )


def assd(pred: ArrayLike, truth: ArrayLike, spacing: Sequence[float] | None = None) -> float:
    """Average symmetric surface distance in mm over border voxels, thesis equation 3-12.

    0 if both masks are empty, infinite if one is.

    Raises:
        VolumeError: As `surface_distances`.
    """
    a, b = _cropped(*_masks(pred, truth))
    steps = _spacing(spacing, a.ndim)
    edge_a, edge_b = (m & ~ndimage.binary_erosion(m) for m in (a, b))
    if not (edge_a.any() or edge_b.any()):
        return 0.0
    distances = [_distance_to(edge_b, steps)[edge_a], _distance_to(edge_a, steps)[edge_b]]
    return float(np.concatenate(distances).mean())


def over_propagation(pred: ArrayLike, truth: ArrayLike, axis: int) -> float:
    """Predicted voxels on slices where the truth has ended, over the true volume.

    Args:
        pred: (D, H, W) bool mask.
        truth: Same shape.
        axis: Axis of propagation; slices beyond the first and last true one count.

    Returns:
        A ratio, 0 at best. Without any truth: 0 for an empty prediction, otherwise infinite.
    """
    a, b = _masks(pred, truth)
    others = tuple(k for k in range(a.ndim) if k != axis % a.ndim)
    held = np.flatnonzero(b.any(axis=others))
    if held.size == 0:
        return float("inf") if a.any() else 0.0
    per_slice = a.sum(axis=others)
    beyond = per_slice[: held[0]].sum() + per_slice[held[-1] + 1 :].sum()
    return float(beyond / np.count_nonzero(b))


def dice_auc(dice_per_click: Sequence[float]) -> float:
    """Area under the curve of Dice over clicks 1 to N, not normalised: N - 1 at best.

    `DSC_AUC` of the CVPR 2025 challenge on interactive 3D biomedical segmentation, whose
    `CVPR25_iter_eval.py` takes the trapezoid with unit steps over the last five scores, those
    after a click and not after a box: 4.0 at best. `mean_of_clicks` compares between different N.

    Args:
        dice_per_click: Dice after click 1, 2, ... N.

    Example:
        >>> dice_auc([0.0, 0.5, 0.5, 1.0, 1.0])
        2.5
    """
    return float(trapezoid(np.asarray(dice_per_click, float)))


def nsd_auc(nsd_per_click: Sequence[float], dice_per_click: Sequence[float]) -> float:
    """`NSD_AUC` of the same challenge: surface scores count 0 where Dice is at most 0.2.

    Args:
        nsd_per_click: Normalised surface Dice after click 1, 2, ... N.
        dice_per_click: Dice after the same clicks.

    Raises:
        VolumeError: If there are more of one than of the other.

    Example:
        >>> nsd_auc([1.0, 1.0, 1.0], [0.2, 0.8, 0.9])
        1.5
    """
    if len(nsd_per_click) != len(dice_per_click):
        raise VolumeError(
            f"{len(nsd_per_click)} surface scores and {len(dice_per_click)} Dice scores: "
            "give one of each per click"
        )
    counts = np.asarray(dice_per_click, float) > _NSD_COUNTS_ABOVE_DICE
    return float(trapezoid(np.where(counts, nsd_per_click, 0.0)))


def mean_of_clicks(scores_per_click: Sequence[float]) -> float:
    """Mean of the scores after each click, 1.0 at best whatever their number.

    Example:
        >>> mean_of_clicks([0.5, 0.75, 1.0])
        0.75
    """
    return float(np.mean(np.asarray(scores_per_click, float)))


def noc(dice_per_click: Sequence[float], threshold: float, cap: int) -> int:
    """Number of clicks until Dice first reaches `threshold`; `cap` if it does not by then.

    Args:
        dice_per_click: Dice after click 1, 2, ...
        threshold: Dice to reach, for example 0.85.
        cap: Largest answer.
    """
    reached = np.flatnonzero(np.asarray(dice_per_click, float) >= threshold)
    return min(cap, int(reached[0]) + 1) if reached.size else cap


def _masks(pred: ArrayLike, truth: ArrayLike) -> tuple[Mask, Mask]:
    a, b = np.asarray(pred, bool), np.asarray(truth, bool)
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise VolumeError(
            f"prediction has shape {a.shape}, truth {b.shape}: give both the same 2D or 3D shape"
        )
    return a, b


def _spacing(spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    steps = (1.0,) * ndim if spacing is None else tuple(float(s) for s in spacing)
    if len(steps) != ndim or not all(0 < s < np.inf for s in steps):
        raise VolumeError(f"spacing is {steps}: give {ndim} positive numbers in mm")
    return steps


def _cropped(a: Mask, b: Mask) -> tuple[Mask, Mask]:
    """Both masks in the bounding box of their union, with one empty element around."""
    union = a | b
    box = []
    for axis in range(union.ndim):
        hit = np.flatnonzero(union.any(axis=tuple(k for k in range(union.ndim) if k != axis)))
        box.append(slice(hit[0], hit[-1] + 1) if hit.size else slice(0, 0))
    return np.pad(a[tuple(box)], 1), np.pad(b[tuple(box)], 1)


def _neighbour_codes(mask: Mask) -> NDArray[np.int64]:
    """One bit for each element of every 2 x 2 (x 2) block, the last element the lowest bit."""
    bits = 2**mask.ndim
    codes = np.zeros([n - 1 for n in mask.shape], np.int64)
    for number, corner in enumerate(np.ndindex(*(2,) * mask.ndim)):
        block = mask[tuple(slice(c, n - 1 + c) for c, n in zip(corner, mask.shape, strict=True))]
        codes |= block.astype(np.int64) << (bits - 1 - number)
    return codes


def _is_edge(codes: NDArray[np.int64]) -> Mask:
    return (codes != 0) & (codes != 2 ** (2**codes.ndim) - 1)


def _distance_to(edge: Mask, steps: tuple[float, ...]) -> Floats:
    if not edge.any():
        return np.full(edge.shape, np.inf)
    return ndimage.distance_transform_edt(~edge, sampling=steps)


def _sorted(distances: Floats, areas: Floats) -> tuple[Floats, Floats]:
    order = np.lexsort((areas, distances))
    return distances[order], areas[order]


def _percentile(distances: Floats, areas: Floats, share: float) -> float:
    if not distances.size:
        return float("inf")
    reached = np.searchsorted(np.cumsum(areas) / areas.sum(), share)
    return float(distances[min(int(reached), distances.size - 1)])


@lru_cache(maxsize=64)
def _areas(steps: tuple[float, ...]) -> Floats:
    """Area (3D) or length (2D) of the surface element of every neighbour code."""
    try:
        from monai.metrics.utils import get_code_to_measure_table
    except ImportError as error:
        raise PromptsegError(
            "NSD and HD95 need MONAI, which is not installed: pip install 'promptseg[train]'"
        ) from error
    table, _ = get_code_to_measure_table(steps)
    return np.asarray(table, float)
