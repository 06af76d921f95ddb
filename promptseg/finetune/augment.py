"""Grey-level augmentation of crops (S, S, 3) in [0, 1]."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def smooth_noise(
    size: int, cells: int, rng: np.random.Generator, channels: int = 1
) -> NDArray[np.float32]:
    """(size, size[, channels]) unit noise that varies over size / cells pixels."""
    coarse = rng.standard_normal((cells, cells, channels)).astype(np.float32)
    wide = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(wide, np.float32)


def change_contrast(image: Image, rng: np.random.Generator) -> Image:
    """Gamma, gain and offset."""
    image = image ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    return (image - 0.5) * rng.uniform(0.7, 1.4) + 0.5 + rng.uniform(-0.15, 0.15)


def bias_field(image: Image, rng: np.random.Generator) -> Image:
    """Smooth multiplicative field, as of a receive coil."""
    field = np.exp(smooth_noise(image.shape[0], int(rng.integers(2, 5)), rng) * 0.25)
    return np.asarray(image * field[..., None], np.float32)


def lower_resolution(image: Image, rng: np.random.Generator) -> Image:
    """Down and up again by up to three."""
    size = image.shape[0]
    small = max(8, int(size / rng.uniform(1.2, 3.0)))
    coarse = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    wide = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(wide, np.float32)


def blur(image: Image, rng: np.random.Generator) -> Image:
    """Gaussian blur of up to two pixels in 128."""
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 2.0) * image.shape[0] / 128)
    return np.asarray(soft, np.float32)


def add_noise(image: Image, rng: np.random.Generator) -> Image:
    """White or coarse Gaussian noise."""
    size = image.shape[0]
    cells = size if rng.random() < 0.5 else size // 2
    noise = rng.standard_normal((cells, cells, 3)).astype(np.float32) * rng.uniform(0, 0.1)
    return image + cv2.resize(noise, (size, size))


def augment(image: Image, rng: np.random.Generator, invert: bool) -> Image:
    """Random chain of the above; `invert` allows black and white to be swapped."""
    if invert and rng.random() < 0.1:
        image = 1 - image
    for chance, change in (
        (0.4, change_contrast),
        (0.15, bias_field),
        (0.1, lower_resolution),
        (0.08, blur),
        (0.2, add_noise),
    ):
        if rng.random() < chance:
            image = np.clip(change(image, rng), 0, 1)
    return image.astype(np.float32)
