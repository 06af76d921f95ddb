"""Tasks from images alone: regions of an over-segmentation, real edges without a label."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb, slic

from pretraining.episodes import Case, Episode, crop_matrix, finish, normalise_crop
from promptseg.finetune.warping import warp

SMALLEST, LARGEST = 0.004, 0.45
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


def region_episode(case: Case, size: int, count: int, rng: np.random.Generator) -> Episode | None:
    """An episode on a region of a random crop of a case, labelled or not."""
    axis = int(rng.choice(case.axes))
    index = int(rng.integers(case.image.shape[axis]))
    image, _ = case.slice_stack(axis, index)
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
    return finish(grey, target.astype(np.float32), None, count, case.modality != "CT", rng)
