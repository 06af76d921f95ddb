"""Shapes on slices, and an image-text model that knows discs from bars by their elongation."""

from __future__ import annotations

import numpy as np
from support import discs

SHAPE = (40, 44, 9)
DISC = discs(SHAPE, 2, {n: (10, 11, 3 + n / 2) for n in range(2, 8)})
BAR = np.zeros(SHAPE, bool)
BAR[28:33, 8:34, 3:7] = True


class ShapeModel:
    """Pictures and texts as axes: disc, bar, anything else."""

    image_size, scale = 48, 20.0

    def __init__(self) -> None:
        self.pictures: list[np.ndarray] = []
        self.texts: list[str] = []

    def encode_images(self, images):
        self.pictures += list(images)
        return np.stack([self.vector(self.shape_of(image)) for image in images])

    def encode_texts(self, texts):
        self.texts += list(texts)
        return np.stack([
            self.vector(0 if "disc" in text else 1 if "bar" in text else 2) for text in texts
        ])  # fmt: skip

    @staticmethod
    def shape_of(image):
        inside = np.argwhere(image > 0.5)
        if len(inside) < 4:
            return 2
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(inside.T)))
        return 1 if spread[1] > 2.5 * spread[0] else 0

    @staticmethod
    def vector(axis):
        return np.eye(3, dtype=np.float32)[axis]
