"""Synthetic segmentation tasks, which carry generalisation to unseen organs.

Random smooth label maps and shapes are filled with random grey levels, textures and bias
fields, as in SynthSeg (Billot et al. 2023) and ScribblePrompt (Wong et al. 2024).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from promptseg.finetune.augment import smooth_noise

INNER = 40
Image = NDArray[np.float32]
Labels = NDArray[np.uint8]


def octaves(size: int, rng: np.random.Generator) -> Image:
    """Noise summed over scales with a random roughness."""
    fall = rng.uniform(0.4, 0.9)
    return sum(  # type: ignore[return-value]
        fall**n * smooth_noise(size, min(3 * 2**n, size), rng) for n in range(4)
    )


def displaced(labels: Labels, rng: np.random.Generator, strength: float) -> Labels:
    """Nearest-neighbour warp by a smooth displacement of about `strength` pixels."""
    size = labels.shape[0]
    flow = smooth_noise(size, int(rng.integers(4, 10)), rng, 2) * strength
    grid = np.indices((size, size), np.float32)
    moved = cv2.remap(labels, grid[1] + flow[..., 0], grid[0] + flow[..., 1], cv2.INTER_NEAREST)
    return np.asarray(moved, np.uint8)


def voronoi_labels(size: int, rng: np.random.Generator) -> Labels:
    """Label map where the largest of several noise fields names the label."""
    count = int(rng.integers(3, 9))
    fields = smooth_noise(size, int(rng.integers(3, 8)), rng, count)
    return fields.argmax(-1).astype(np.uint8)


def shape_labels(size: int, rng: np.random.Generator) -> Labels:
    """Ellipses, polygons and tubes, some inside others, on an empty or busy ground."""
    labels = voronoi_labels(size, rng) if rng.random() < 0.5 else np.zeros((size, size), np.uint8)
    for label in range(10, 10 + int(rng.integers(1, 7))):
        centre = rng.uniform(0.2, 0.8, 2) * size
        radii = rng.uniform(0.05, 0.32, 2) * size
        draw_shape(labels, label, centre, radii, rng)
        if rng.random() < 0.35:
            draw_shape(labels, label + INNER, centre, radii * rng.uniform(0.4, 0.8), rng)
    return displaced(labels, rng, size * rng.uniform(0.005, 0.035))


def draw_shape(
    labels: Labels,
    label: int,
    centre: NDArray[np.float64],
    radii: NDArray[np.float64],
    rng: np.random.Generator,
) -> None:
    """Draw one random shape into `labels` in place."""
    middle = (round(centre[0]), round(centre[1]))
    kind = rng.random()
    if kind < 0.55:
        axes = (max(2, int(radii[0])), max(2, int(radii[1])))
        cv2.ellipse(labels, middle, axes, float(rng.uniform(0, 180)), 0, 360, label, -1)
    elif kind < 0.85:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 12))))
        reach = radii * rng.uniform(0.6, 1.2, (len(angles), 1))
        corners = centre + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(labels, [corners.astype(np.int32)], label)
    else:
        path = centre + np.cumsum(rng.normal(0, labels.shape[0] / 14, (8, 2)), 0)
        thickness = max(2, int(radii.min() / 2))
        cv2.polylines(labels, [path.astype(np.int32)], False, label, thickness)


def paint(labels: Labels, levels: Image, textures: Image, rng: np.random.Generator) -> Image:
    """Grey image of a label map: a level a label, texture, blur at edges."""
    image = levels[labels] + textures
    sigma = rng.uniform(0.3, 2.0) * labels.shape[0] / 128
    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma), np.float32)


def synthetic_slices(size: int, rng: np.random.Generator) -> tuple[Image, NDArray[np.uint8]]:
    """One synthetic task: three neighbouring slices and their label maps.

    Returns:
        Image (size, size, 3) in [0, 1], labels (size, size, 3).
    """
    labels = shape_labels(size, rng) if rng.random() < 0.75 else voronoi_labels(size, rng)
    drift = size * rng.uniform(0.0, 0.02)
    stack = [displaced(labels, rng, drift), labels, displaced(labels, rng, drift)]
    levels = rng.uniform(0, 1, 256).astype(np.float32)
    if rng.random() < 0.3:
        levels[:10] = levels[0] + rng.normal(0, 0.05, 10)
    strength = rng.uniform(0, 0.12)
    texture = octaves(size, rng) * strength
    grain = rng.uniform(0, 0.06)
    painted = [
        paint(s, levels, texture, rng) + rng.normal(0, grain, s.shape).astype(np.float32)
        for s in stack
    ]
    image = np.stack(painted, -1)
    low, high = np.percentile(image[::4, ::4], (0.5, 99.5))
    return np.clip((image - low) / max(high - low, 1e-3), 0, 1), np.stack(stack, -1)
