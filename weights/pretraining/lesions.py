"""Generated lesions in real images: irregular, of several parts, with edges sharp or faint."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pretraining.synthetic import octaves
from promptseg.finetune.augment import smooth_noise

Image = NDArray[np.float32]


def lesion_fields(image: Image, rng: np.random.Generator) -> Image:
    """(S, S, 3) height of a lesion on three slices, positive inside, 1 at most in the middle.

    Its centre lies where the (S, S, 3) image is not black.
    """
    size = image.shape[0]
    inner = slice(size // 5, size - size // 5)
    shown = np.argwhere(image[inner, inner, 1] > 0.06)
    middle = shown[rng.integers(len(shown))] if len(shown) else np.full(2, size // 4)
    row, column = middle + inner.start
    radii = size * rng.uniform(0.06, 0.24) * np.exp(rng.uniform(-0.35, 0.35, 2))
    rows, columns = np.indices((size, size), np.float32)
    dome = 1 - ((rows - row) / radii[0]) ** 2 - ((columns - column) / radii[1]) ** 2
    rough = rng.uniform(0.1, 0.7)
    cells = int(rng.integers(5, 14))
    ragged = smooth_noise(size, cells, rng) * rough
    change = [smooth_noise(size, cells, rng) * rough * 0.4 - rng.uniform(0, 0.35) for _ in range(2)]
    beside = [dome + ragged + part for part in change]
    return np.stack([beside[0], dome + ragged, beside[1]], -1).astype(np.float32)


def with_lesion(image: Image, rng: np.random.Generator) -> tuple[Image, NDArray[np.bool_]]:
    """Put a lesion into a crop.

    Args:
        image: (S, S, 3) in [0, 1], three neighbouring slices.
        rng: Draws place, shape, grey values of rim and core, texture and sharpness.

    Returns:
        The changed image and (S, S, 3) bool, where the lesion is.
    """
    size = image.shape[0]
    fields = lesion_fields(image, rng)
    inside = fields > 0
    around = float(image[..., 1][inside[..., 1]].mean()) if inside[..., 1].any() else 0.5
    contrast = rng.uniform(0.1, 0.5) * (1 if rng.random() < 0.5 else -1)
    contrast = contrast if 0.03 < around + contrast < 0.97 else -contrast
    grey = np.full(image.shape, around + contrast, np.float32)
    if rng.random() < 0.5:
        grey[fields > rng.uniform(0.3, 0.9)] += rng.uniform(-0.4, 0.4)
    grey += octaves(size, rng)[..., None] * np.float32(rng.uniform(0, 0.12))
    sigma = rng.uniform(0.3, 2.5) * size / 128
    alpha = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), sigma) * rng.uniform(0.6, 1.0)
    soft = cv2.GaussianBlur(grey, (0, 0), sigma)
    return np.clip(image + alpha * (soft - image), 0, 1).astype(np.float32), inside
