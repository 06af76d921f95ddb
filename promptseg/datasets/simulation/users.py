"""Simulated users on one slice: the boxes, clicks, strokes and masks that people give.

Every function takes a (H, W) bool target and a numpy generator and works in pixels of that
array; a pixel's centre is at its index plus one half, points are (x, y).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from promptseg.datasets.simulation.clicks import extremes

Mask2D = NDArray[np.bool_]
Points = NDArray[np.float32]
# Times the area of the largest disc inside; a disc has 1, the wall of a ventricle about 20.
SLENDER = 6.0


def tight_box(target: Mask2D) -> NDArray[np.float32]:
    """Edges (x0, y0, x1, y1) of the smallest half-open box around a non-empty target."""
    rows, columns = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def jittered_box(
    target: Mask2D, rng: np.random.Generator, jitter: float = 0.05, loose: float = 0.0
) -> NDArray[np.float32]:
    """Tight box whose every edge moves by up to `jitter` of the side, then grows by `loose`."""
    box = tight_box(target)
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2, np.float32)
    moved = box + rng.uniform(-jitter, jitter, 4).astype(np.float32) * sides
    moved += np.array([-loose, -loose, loose, loose], np.float32) * sides
    height, width = target.shape
    return np.clip(moved, 0, [width, height, width, height]).astype(np.float32)


def depth(region: Mask2D) -> NDArray[np.float32]:
    """Distance of every pixel of a region to its outside, the image border counting as outside."""
    padded = np.pad(region, 1).astype(np.uint8)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return inside.astype(np.float32, copy=False)


def centre_click(region: Mask2D) -> Points:
    """(1, 2) deepest point of a non-empty region."""
    row, column = np.unravel_index(int(np.argmax(depth(region))), region.shape)
    return np.array([[column + 0.5, row + 0.5]], np.float32)


def inner_click(region: Mask2D, rng: np.random.Generator) -> Points:
    """(1, 2) random point, likelier the deeper it lies in a non-empty region."""
    cells = np.flatnonzero(region)
    reached = np.cumsum(depth(region).ravel()[cells].astype(np.float64) ** 2)
    chosen = int(np.searchsorted(reached, rng.random() * reached[-1]))
    row, column = divmod(int(cells[chosen]), region.shape[1])
    return np.array([[column + 0.5, row + 0.5]], np.float32)


def margin_points(target: Mask2D, rng: np.random.Generator, inset: float = 2.0) -> Points:
    """(N, 2) interior margin points: near the extremes, plus up to five more, moved inwards.

    Source: Luo et al., MIDeepSeg, section 3.2.1 of the thesis (METHODS A).
    """
    inside = depth(target)
    reach = max(inset, float(inside[target].min()))
    rim = np.argwhere(target & (inside <= reach))
    corners = extremes(rim, rng)
    extra = rim[rng.integers(0, len(rim), int(rng.integers(0, 6)))]
    cells = np.concatenate([corners, extra])
    return (cells[:, ::-1] + 0.5).astype(np.float32)


def stroke(shape: tuple[int, int], path: NDArray[np.float32], thickness: int) -> Mask2D:
    """Bool canvas with a polyline (N, 2) drawn on it."""
    canvas = np.zeros(shape, np.uint8)
    cv2.polylines(canvas, [np.round(path).astype(np.int32)], False, 1, thickness)
    return canvas > 0


def line_scribble(region: Mask2D, rng: np.random.Generator, thickness: int = 2) -> Mask2D:
    """Wavy line through two or three inner points, kept inside the region."""
    stops = np.concatenate([inner_click(region, rng) for _ in range(int(rng.integers(2, 4)))])
    steps = np.linspace(0, len(stops) - 1, 16)
    path = np.stack([np.interp(steps, np.arange(len(stops)), stops[:, a]) for a in (0, 1)], 1)
    path += np.cumsum(rng.normal(0, region.shape[0] / 120, path.shape), 0)
    return stroke(region.shape, path.astype(np.float32), thickness) & region


def contour_scribble(region: Mask2D, rng: np.random.Generator, thickness: int = 2) -> Mask2D:
    """Part of the contour at a random depth."""
    inside = depth(region)
    level = rng.uniform(0.15, 0.6) * inside.max()
    contours, _ = cv2.findContours(
        (inside >= level).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    path = max(contours, key=len)[:, 0].astype(np.float32)
    start, length = int(rng.integers(len(path))), int(rng.uniform(0.2, 0.9) * len(path))
    return stroke(region.shape, np.roll(path, -start, 0)[: max(length, 2)], thickness) & region


def centre_line_scribble(region: Mask2D, rng: np.random.Generator, thickness: int = 2) -> Mask2D:
    """The ridge of the distance map, roughly the skeleton, partly kept."""
    inside = depth(region)
    ridge = (inside >= cv2.dilate(inside, np.ones((5, 5)))) & (inside > 0.4 * inside.max())
    keep = cv2.resize(rng.random((6, 6)), region.shape[::-1], interpolation=cv2.INTER_LINEAR)
    kept = ridge & (keep > 0.35)
    kept = kept if kept.any() else ridge
    return (cv2.dilate(kept.astype(np.uint8), np.ones((thickness, thickness))) > 0) & region


SCRIBBLES = (line_scribble, contour_scribble, centre_line_scribble)


def scribble(region: Mask2D, rng: np.random.Generator) -> Mask2D:
    """One of the three kinds of stroke, thin or thick, never empty in a non-empty region."""
    kind = SCRIBBLES[int(rng.integers(len(SCRIBBLES)))]
    drawn = kind(region, rng, int(rng.integers(1, max(3, region.shape[0] // 40))))
    if not drawn.any():
        x, y = inner_click(region, rng)[0]
        drawn[int(y), int(x)] = True
    return drawn


def is_slender(region: Mask2D) -> bool:
    """True for vessels and walls: many times as long as wide."""
    return bool(region.sum() > SLENDER * np.pi * float(depth(region).max()) ** 2)


def traced(region: Mask2D, rng: np.random.Generator) -> Mask2D:
    """Strokes along a slender region, on a part of it, half of the time wider than it is.

    People trace the vessels that they see well with a pen that is often wider than the vessel.
    """
    inside = depth(region)
    ridge = (inside >= cv2.dilate(inside, np.ones((3, 3)))) & region
    keep = cv2.resize(rng.random((8, 8)), region.shape[::-1], interpolation=cv2.INTER_LINEAR)
    wide = inside > np.quantile(inside[ridge], rng.uniform(0, 0.5))
    kept = ridge & (keep > rng.uniform(0.3, 0.6)) & wide
    kept = kept if kept.any() else ridge
    pen = int(rng.integers(2, max(4, region.shape[0] // 40)))
    drawn = cv2.dilate(kept.astype(np.uint8), np.ones((pen, pen))) > 0
    return drawn if rng.random() < 0.5 else drawn & region


def rough_mask(target: Mask2D, rng: np.random.Generator) -> Mask2D:
    """Target moved, grown or shrunk, with smooth bites and bumps along its edge."""
    size = target.shape[0]
    radius = max(1.5, float(depth(target).max()))
    shift = rng.normal(0, 0.15 * radius, 2)
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    moved = cv2.warpAffine(target.astype(np.uint8), matrix, target.shape[::-1])
    inside = cv2.distanceTransform(moved, cv2.DIST_L2, 3)
    signed = inside - cv2.distanceTransform(1 - moved, cv2.DIST_L2, 3)
    cells = int(np.clip(2 * size / radius, 3, 24))
    noise = cv2.resize(rng.standard_normal((cells, cells)), target.shape[::-1])
    return signed + radius * rng.uniform(0, 0.5) * noise + rng.normal(0, 0.12 * radius) > 0
