"""Cubic views of volumes for training: around a labelled target, a supervoxel, a made lesion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import slic

from pretraining.episodes import Case, choose_target, random_window
from pretraining.faults import smooth_field

Rng = np.random.Generator
Mask = NDArray[np.bool_]
Field = NDArray[np.float32]
View = tuple[Field, Mask, Mask]
"""Grey values in [0, 1], inside the volume, target."""

LEAST = 40
ZOOM = (1.5, 3.6)
# Views that hold all of a long target, as a view that has followed it.
ALL, AROUND_ALL = 0.35, (1.1, 1.7)
APART, SOMETIMES_APART = 0.9, 0.25
# A view is at most so much finer than the finest voxels: below that it shows interpolation.
FINEST = 0.35


def labelled_view(case: Case, axis: int, side: int, rng: Rng) -> View | None:
    """A view around a slice of a random target of a case; None if it has none along `axis`."""
    chosen = choose_target(case, axis, rng)
    if chosen is None:
        return None
    corner, extent = case.bounds(chosen[1])
    part = tuple(slice(a, a + n) for a, n in zip(corner, extent, strict=True))
    mask = np.isin(case.labels[part], chosen[1])
    if rng.random() < (APART if case.instances else SOMETIMES_APART):
        mask = one_part(mask, rng)
    centre, longest = _around_slice(mask, axis, np.array(case.spacing), rng)
    zoom = float(np.exp(rng.uniform(np.log(ZOOM[0]), np.log(ZOOM[1]))))
    length = max(longest * zoom, side * FINEST * min(case.spacing))
    if rng.random() < ALL:
        cells = np.argwhere(mask)
        low, high = cells.min(0), cells.max(0) + 1
        whole = float(((high - low) * case.spacing).max())
        length, centre = max(length, whole * rng.uniform(*AROUND_ALL)), (low + high) / 2
    slack = min((length - longest) / 2 * 0.7, 0.15 * length)
    shift = rng.uniform(-1, 1, 3) * slack / np.array(case.spacing)
    # Mostly the prompted slice is in the middle; now and then the view has followed the target.
    shift[axis] *= 1.0 if rng.random() < 0.3 else 0.0
    target = np.zeros(case.labels.shape, bool)
    target[part] = mask
    return _sample(case, target, np.array(corner) + centre + shift, length, side, axis, rng)


def one_part(mask: Mask, rng: Rng) -> Mask:
    """One connected part of a mask that is not tiny."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())[1:]
    return np.asarray(parts == 1 + rng.choice(np.flatnonzero(sizes >= min(LEAST, sizes.max()))))


def likely_slice(target: Mask, axis: int, rng: Rng) -> int:
    """A slice that a user would prompt: the largest, or one the likelier the larger it is."""
    areas = target.sum(tuple(a for a in range(3) if a != axis)).astype(float) ** 2
    if rng.random() < 0.5:
        return int(areas.argmax())
    return int(rng.choice(len(areas), p=areas / areas.sum()))


def _around_slice(
    mask: Mask, axis: int, spacing: NDArray[np.floating], rng: Rng
) -> tuple[NDArray[np.float64], float]:
    """(3,) middle of a likely slice of a mask in voxels, and its longer side in millimetres."""
    index = likely_slice(mask, axis, rng)
    cells = np.argwhere(np.take(mask, index, axis))
    low, high = cells.min(0), cells.max(0) + 1
    sides = [a for a in range(3) if a != axis]
    centre = np.insert((low + high) / 2, axis, index + 0.5)
    return centre, float(((high - low) * spacing[sides]).max())


def unlabelled_view(case: Case, axis: int, side: int, rng: Rng) -> View:
    """A view of a random place of a case; its target is empty."""
    spacing, shape = np.array(case.spacing), np.array(case.image.shape)
    length = float((shape * spacing).max()) * float(np.exp(rng.uniform(np.log(0.15), np.log(0.7))))
    centre = rng.uniform(0.15, 0.85, 3) * shape
    return _sample(case, None, centre, length, side, axis, rng)


def _sample(
    case: Case,
    target: Mask | None,
    centre: NDArray[np.floating],
    length: float,
    side: int,
    axis: int,
    rng: Rng,
) -> View:
    """A cubic view of `length` mm around a place: grey values, inside the volume, target."""
    spacing = np.array(case.spacing)
    turn = np.deg2rad(rng.uniform(-20, 20)) if rng.random() < 0.4 else 0.0
    a, b = (n for n in range(3) if n != axis)
    rotation = np.eye(3)
    rotation[a, a] = rotation[b, b] = np.cos(turn)
    rotation[a, b], rotation[b, a] = -np.sin(turn), np.sin(turn)
    stretch = np.exp(rng.uniform(-0.15, 0.15, 3))
    # Voxel centres lie at whole numbers plus one half of `centre`'s units.
    matrix = (rotation * stretch) * (length / side) / spacing[:, None]
    offset = centre - 0.5 - matrix @ np.full(3, (side - 1) / 2)
    reach = np.abs(matrix).sum(1) * side / 2 + 2
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, case.image.shape).astype(int)
    low = np.minimum(low, np.array(case.image.shape) - 1)
    high = np.maximum(high, low + 1)
    part = tuple(slice(x, y) for x, y in zip(low, high, strict=True))
    grey = case.image[part].astype(np.float32)
    shrink = np.abs(np.diag(matrix))
    if shrink.max() > 1.5:
        grey = ndimage.gaussian_filter(grey, np.maximum(shrink - 1, 0) * 0.4)
    shape = (side, side, side)

    def resampled(data: NDArray[np.generic], outside: float) -> Field:
        start = offset - low
        return ndimage.affine_transform(
            data, matrix, start, shape, np.float32, order=1, cval=outside, mode="grid-constant"
        )

    inside = resampled(np.ones(grey.shape, np.float32), 0.0) > 0.5
    view = resampled(grey, case.ground)
    found = np.zeros(shape, bool)
    if target is not None:
        found = resampled(target[part].astype(np.float32), 0.0) > 0.5
    return _windowed(view, found, case, rng), inside, found


def _windowed(view: Field, target: Mask, case: Case, rng: Rng) -> Field:
    if case.modality == "CT":
        low, high = random_window(view[target], rng)
    else:
        span = case.limits[1] - case.limits[0]
        low = case.limits[0] + rng.uniform(-0.05, 0.05) * span
        high = case.limits[1] + rng.uniform(-0.15, 0.1) * span
    return np.clip((view - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)


def supervoxel(image: Field, rng: Rng) -> tuple[Field, Mask] | None:
    """One or a few touching supervoxels near the middle (SLIC, Achanta et al., PAMI 2012)."""
    smooth = ndimage.gaussian_filter(image, rng.uniform(0.5, 1.5))
    regions = slic(smooth, int(rng.integers(10, 60)), compactness=0.05, channel_axis=None,
                   max_num_iter=5, enforce_connectivity=True)  # fmt: skip
    side = image.shape[0]
    middle = tuple(int(x) for x in rng.integers(side // 3, side - side // 3, 3))
    chosen = regions == regions[middle]
    for _ in range(int(rng.integers(0, 3))):
        ring = ndimage.binary_dilation(chosen) & ~chosen
        if not ring.any():
            break
        chosen = chosen | (regions == rng.choice(np.unique(regions[ring])))
    if not LEAST <= chosen.sum() <= 0.2 * image.size or image[chosen].max() < 0.03:
        return None
    return image, chosen


def lesion(image: Field, rng: Rng) -> tuple[Field, Mask] | None:
    """A generated lesion: a ragged ball of its own grey value, sharp or faint, rim and core."""
    side = image.shape[0]
    shown = np.argwhere(
        image[side // 3 : -side // 3, side // 3 : -side // 3, side // 3 : -side // 3] > 0.06
    )
    if not len(shown):
        return None
    at = shown[rng.integers(len(shown))] + side // 3
    radii = side * rng.uniform(0.08, 0.3) * np.exp(rng.uniform(-0.35, 0.35, 3))
    grid = np.indices(image.shape, np.float32)
    dome = 1 - sum(((grid[n] - at[n]) / radii[n]) ** 2 for n in range(3))
    cell = side / float(rng.integers(4, 10))
    height = dome + smooth_field(image.shape, cell, rng) * np.float32(rng.uniform(0.1, 0.7))
    parts, _ = ndimage.label(height > 0)
    if not parts[tuple(at)]:
        return None
    inside = parts == parts[tuple(at)]
    contrast = rng.uniform(0.08, 0.45) * (1 if rng.random() < 0.5 else -1)
    grey = np.full(image.shape, float(image[inside].mean()) + contrast, np.float32)
    if rng.random() < 0.4:
        grey[height > rng.uniform(0.3, 0.9)] += np.float32(rng.uniform(-0.4, 0.4))
    grey += smooth_field(image.shape, 5, rng) * np.float32(rng.uniform(0, 0.1))
    soft = ndimage.gaussian_filter(inside.astype(np.float32), rng.uniform(0.3, 1.2))
    alpha = soft * np.float32(rng.uniform(0.6, 1.0))
    return np.clip(image + alpha * (grey - image), 0, 1).astype(np.float32), inside
