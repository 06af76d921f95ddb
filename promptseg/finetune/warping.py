"""Crops of slices: sampling through an affine map."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def warp(
    data: NDArray[np.generic], matrix: NDArray[np.float32], size: int, border: float = 0.0
) -> NDArray[np.float32]:
    """Sample (H, W[, C]) through a crop-to-slice matrix, smoothing where it shrinks."""
    shrink = float(np.abs(np.linalg.det(matrix[:, :2]))) ** 0.5
    fine = 2 if shrink > 1.5 else 1
    denser = matrix.copy()
    denser[:, :2] /= fine
    denser[:, 2] -= denser[:, :2].sum(1) * (fine - 1) / 2 if fine > 1 else 0
    sampled = cv2.warpAffine(
        data.astype(np.float32),
        denser,
        (size * fine, size * fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=(border,) * 4,
    )
    if fine > 1:
        sampled = cv2.resize(sampled, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(sampled, np.float32)
