"""Tasks from images alone: regions of an over-segmentation, real edges without a label."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb, slic

from pretraining.episodes import Case, Episode, crop_matrix, finish, normalise_crop
from promptseg.datasets.simulation import users
from promptseg.finetune.warping import warp

SMALLEST, LARGEST = 0.004, 0.45
# A region whose box is that of a labelled structure would teach another answer to the same box.
SAME_BOX = 0.5
MERGED_MOST = 4


def oversegment(grey: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """(S, S) region numbers of a crop (S, S) in [0, 1].

    Felzenszwalb and Huttenlocher (IJCV 2004) with a random scale, or SLIC (Achanta et al., PAMI
    2012) with a random number of regions.
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.5, 2.0) * grey.shape[0] / 128)
    if rng.random() < 0.7:
        scale = float(np.exp(rng.uniform(np.log(20), np.log(400))))
        return felzenszwalb(smooth, scale=scale, sigma=0, min_size=grey.size // 250)
    count = int(rng.integers(8, 80))
    return slic(smooth, count, compactness=0.05, channel_axis=None, enforce_connectivity=True)


def merged_region(regions: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """One region, or a few that touch; None where it is too small or too large to be a target."""
    chosen = regions == regions[tuple(rng.integers(0, regions.shape[0], 2))]
    for _ in range(int(rng.integers(0, MERGED_MOST))):
        ring = (cv2.dilate(chosen.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~chosen
        beside = np.unique(regions[ring])
        if not len(beside):
            break
        grown = chosen | (regions == rng.choice(beside))
        if grown.mean() > LARGEST:
            break
        chosen = grown
    return chosen if SMALLEST <= chosen.mean() <= LARGEST else None


def contradicts(
    region: NDArray[np.bool_], labels: NDArray[np.uint8], matrix: NDArray[np.float32]
) -> bool:
    """True where a part of a label has nearly the box of the region, but another shape.

    Args:
        region: (S, S), not empty.
        labels: (H, W) of the slice.
        matrix: (2, 3) from pixels of the crop to those of the slice.
    """
    size = region.shape[0]
    box = users.tight_box(region)
    for label in np.unique(labels[labels > 0]):
        drawn = warp((labels == label).astype(np.uint8), matrix, size) > 0.5
        count, _, stats, _ = cv2.connectedComponentsWithStats(drawn.astype(np.uint8))
        for x, y, wide, high, _ in stats[1:count]:
            if box_overlap(box, np.array([x, y, x + wide, y + high], np.float32)) > SAME_BOX:
                return True
    return False


def box_overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    shared = float(sides.prod())
    areas = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod())
    return shared / max(areas - shared, 1e-6)


def region_episode(case: Case, size: int, count: int, rng: np.random.Generator) -> Episode | None:
    """An episode on a region of a random crop of a case, labelled or not."""
    axis = int(rng.choice(case.axes))
    index = int(rng.integers(case.image.shape[axis]))
    image, labels = case.slice_stack(axis, index)
    rows, cols = image.shape[:2]
    row_mm, col_mm = (s for a, s in enumerate(case.spacing) if a != axis)
    side = rng.uniform(0.15, 0.7)
    corner = rng.uniform(0, 1 - side, 2) * (cols, rows)
    box = np.concatenate([corner, corner + side * np.array([cols, rows])]).astype(np.float32)
    matrix = crop_matrix(box, (rows, cols), (row_mm, col_mm), size, rng)
    crop = warp(image, matrix, size, case.ground)
    inside = np.zeros((size, size), bool)
    inside[size // 4 : -size // 4, size // 4 : -size // 4] = True
    grey = normalise_crop(crop, case, inside, rng)
    target = merged_region(oversegment(grey[..., 1], rng), rng)
    # Air, black borders and what lies beyond the image are no targets.
    if target is None or grey[..., 1][target].mean() < 0.04:
        return None
    if contradicts(target, labels[..., 1], matrix):
        return None
    return finish(grey, target.astype(np.float32), None, count, case.modality != "CT", rng)
