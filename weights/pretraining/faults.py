"""Simulated faults of 3D masks: what networks and propagation do wrong, to learn correction from.

All functions take and give heights (D, H, W): distance to the surface in elements, positive
inside. `size` is the cube root of the target's volume in elements (the square root of its area,
where D is 1).
"""

from __future__ import annotations

from collections.abc import Callable

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from promptseg.refine.corrector_inputs import LOGIT_LIMIT, signed_distance

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator

_ABSENT = -LOGIT_LIMIT


def smooth_field(shape: tuple[int, ...], cell: float, rng: Rng) -> Field:
    """Gaussian noise on a grid of cells, interpolated."""
    knots = [max(2, round(side / cell) + 1) for side in shape]
    noise = torch.from_numpy(rng.standard_normal(knots).astype(np.float32))[None, None]
    wide = functional.interpolate(noise, shape, mode="trilinear", align_corners=True)
    return np.asarray(wide[0, 0].numpy())


def rounded(target: Mask, size: float, rng: Rng) -> Field:
    """Corners and thin parts lost, as a walk from slice to slice loses them."""
    soft = ndimage.gaussian_filter(target.astype(np.float32), rng.uniform(0.02, 0.1) * size)
    kept = soft > rng.uniform(0.35, 0.65)
    return signed_distance(kept if kept.any() else target)


def bent(height: Field, size: float, rng: Rng) -> Field:
    """The whole wider or tighter, and waves of three lengths."""
    if rng.random() < 0.6:
        height = height + np.float32(rng.normal(0, 0.05) * size)
    for cell, amount in ((6, 0.04), (14, 0.09), (28, 0.12)):
        if rng.random() < 0.6:
            height = height + smooth_field(height.shape, cell, rng) * np.float32(
                amount * size * rng.uniform(0.2, 1)
            )
    return height


def drifted(height: Field, target: Mask, size: float, rng: Rng) -> Field:
    """Wider or tighter the farther from one slice, as a propagation drifts."""
    axis = int(rng.integers(3))
    at = np.arange(target.shape[axis])
    start = rng.choice(_filled(target, axis))
    before, after = rng.normal(0, 0.25, 2)
    drift = np.where(at < start, before * (start - at), after * (at - start))
    drift = np.clip(drift, -0.5 * size, 0.5 * size) + rng.normal(0, 0.03 * size, len(at))
    along = [1, 1, 1]
    along[axis] = -1
    near = signed_distance(target) > -0.35 * size
    return height + drift.reshape(along).astype(np.float32) * near


def leaked(height: Field, target: Mask, image: Field, size: float, rng: Rng) -> Field:
    """Neighbours of the target's grey value taken in, around a place on its surface."""
    low, high = np.quantile(image[target], [0.15, 0.85])
    like = (image > low) & (image < high)
    if rng.random() < 0.5:
        like = ndimage.binary_opening(like)
    ball = _distance_from(_surface(target, rng), target.shape) < rng.uniform(0.3, 1.0) * size
    parts = cc3d.connected_components((target | (like & ball)).astype(np.uint8), connectivity=6)
    leak = np.isin(parts, np.unique(parts[target])) & ball & ~target
    taken = np.where(leak, np.float32(rng.uniform(0.5, 3)), -np.float32(99))
    return ndimage.gaussian_filter(np.maximum(height, taken), 0.7) if leak.any() else height


def lobed(height: Field, target: Mask, size: float, rng: Rng) -> Field:
    """One or two lobes lost or added."""
    for _ in range(int(rng.integers(1, 3))):
        stretch = rng.uniform(0.6, 1.6, 3)
        ball = rng.uniform(0.12, 0.45) * size - _distance_from(
            _surface(target, rng), target.shape, stretch
        )
        lost = rng.random() < 0.5
        height = np.minimum(height, -ball) if lost else np.maximum(height, ball)
    return height


def shortened(height: Field, target: Mask, rng: Rng) -> Field:
    """Slices at one end lost."""
    axis = int(rng.integers(3))
    filled = _filled(target, axis)
    count = int(len(filled) * rng.uniform(0.05, 0.4))
    if not count:
        return height
    lost = filled[:count] if rng.random() < 0.5 else filled[-count:]
    height = height.copy()
    np.moveaxis(height, axis, 0)[lost] = _ABSENT
    return height


def faulty_logits(target: Mask, image: Field, rng: Rng) -> Field:
    """Logits of a mask with simulated faults.

    Args:
        target: (D, H, W) bool, not empty.
        image: (D, H, W) grey values.
        rng: Draws which faults and how bad.

    Returns:
        (D, H, W) float32 within +-`LOGIT_LIMIT`.
    """
    size = float(target.sum()) ** (1 / sum(side > 1 for side in target.shape))
    height = rounded(target, size, rng) if rng.random() < 0.25 else signed_distance(target)
    height = bent(height, size, rng)
    faults: list[tuple[float, Callable[[Field], Field]]] = [
        (0.4, lambda h: drifted(h, target, size, rng)),
        (0.4, lambda h: leaked(h, target, image, size, rng)),
        (0.35, lambda h: lobed(h, target, size, rng)),
        (0.3, lambda h: shortened(h, target, rng)),
    ]
    for chance, fault in faults:
        if rng.random() < chance:
            height = fault(height)
    unsure = smooth_field(target.shape, 5, rng) * rng.uniform(0, 0.5)
    logits = height / rng.uniform(0.3, 2.5) + unsure
    return np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT).astype(np.float32)


def _filled(target: Mask, axis: int) -> NDArray[np.intp]:
    """Slices that hold some of the target."""
    others = tuple(a for a in range(3) if a != axis)
    return np.flatnonzero(target.any(axis=others))


def _surface(target: Mask, rng: Rng) -> NDArray[np.intp]:
    """(3,) a place on the target's surface."""
    rim = np.argwhere(target & ~ndimage.binary_erosion(target))
    return np.asarray(rim[rng.integers(len(rim))])


def _distance_from(
    place: NDArray[np.intp],
    shape: tuple[int, ...],
    stretch: NDArray[np.floating] | tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Field:
    squares = [
        ((np.arange(side, dtype=np.float32) - at) / by) ** 2
        for side, at, by in zip(shape, place, stretch, strict=True)
    ]
    total = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    return np.asarray(np.sqrt(total), np.float32)
