"""Generated trees of vessels: thin, branching, dark or bright on any ground."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pretraining.synthetic import displaced, octaves

Image = NDArray[np.float32]
Path = NDArray[np.float64]

# Drawn so many times as large and shrunk, so that a vessel may be thinner than a pixel.
FINER = 4
# A smallest branch of 1 pixel at 256 is a third of a pixel at the network's output.
LEAST_WIDTH = 1.0


def vessel_tree(size: int, rng: np.random.Generator) -> Image:
    """(S, S) share of each pixel inside one to four branching vessels."""
    canvas = np.zeros((size * FINER,) * 2, np.uint8)
    width = size * rng.uniform(0.012, 0.05)
    for _ in range(int(rng.integers(1, 5))):
        start = rng.uniform(0, 1, 2) * size
        start[int(rng.integers(2))] = (-2.0, size + 2.0)[int(rng.integers(2))]
        towards = size / 2 + rng.normal(0, size / 6, 2) - start
        heading = float(np.arctan2(towards[1], towards[0]))
        grow(canvas, start, heading, width * rng.uniform(0.6, 1), int(rng.integers(2, 5)), rng)
    share = cv2.resize(canvas * 255, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(share, np.float32) / np.float32(255)


def grow(
    canvas: NDArray[np.uint8],
    start: Path,
    heading: float,
    width: float,
    generations: int,
    rng: np.random.Generator,
) -> None:
    """Draw a vessel and its branches in place.

    Args:
        canvas: `FINER` times as large as the picture.
        start: (x, y) in pixels of the picture.
        heading: Direction in radians.
        width: In pixels of the picture, at the start.
        generations: How often it may branch.
        rng: Draws the course.
    """
    size = canvas.shape[0] / FINER
    count = int(rng.integers(8, 24))
    turns = heading + np.cumsum(rng.normal(0, 0.16, count)) + rng.normal(0, 0.05) * np.arange(count)
    steps = np.stack([np.cos(turns), np.sin(turns)], 1) * size * rng.uniform(0.02, 0.045)
    path = start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    widths = np.maximum(width * np.linspace(1, rng.uniform(0.5, 0.9), count), LEAST_WIDTH * 0.7)
    for a, b, wide in zip(path[:-1], path[1:], widths, strict=True):
        ends = [tuple(int(v) for v in np.round(p * FINER)) for p in (a, b)]
        cv2.line(canvas, ends[0], ends[1], 1, max(1, round(wide * FINER)))
    thinner = width * rng.uniform(0.55, 0.85)
    if generations < 2 or thinner < LEAST_WIDTH:
        return
    for place in rng.integers(2, count, int(rng.integers(1, 4))):
        side = rng.uniform(0.4, 1.2) * (1 if rng.random() < 0.5 else -1)
        grow(canvas, path[place], float(turns[place - 1]) + side, thinner, generations - 1, rng)


def with_vessels(image: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """Put a tree of vessels into a crop.

    Args:
        image: (S, S, 3) in [0, 1], three neighbouring slices.
        rng: Draws the tree, its contrast and sharpness.

    Returns:
        The changed image and (S, S, 3) share of each pixel inside vessels.
    """
    size = image.shape[0]
    middle = vessel_tree(size, rng)
    drift = 0.0 if rng.random() < 0.5 else size * rng.uniform(0, 0.015)
    sides = [displaced((middle * 255).astype(np.uint8), rng, drift) / np.float32(255)
             for _ in range(2)]  # fmt: skip
    shares = np.stack([sides[0], middle, sides[1]], -1).astype(np.float32)
    contrast = rng.uniform(0.06, 0.5) * (1 if rng.random() < 0.5 else -1)
    around = float(image[..., 1].mean())
    contrast = contrast if 0.03 < around + contrast < 0.97 else -contrast
    strength = 1 + octaves(size, rng)[..., None] * np.float32(rng.uniform(0, 0.3))
    soft = cv2.GaussianBlur(shares, (0, 0), rng.uniform(0.3, 1.2) * size / 256)
    return np.clip(image + contrast * strength * soft, 0, 1).astype(np.float32), shares
