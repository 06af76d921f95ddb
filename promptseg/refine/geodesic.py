"""Geodesic distance of an image to clicks, and the encodings of clicks built on distances."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, TypeVar

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from promptseg.errors import PromptError, VolumeError

Array = TypeVar("Array", NDArray[Any], torch.Tensor)

# In mean grid steps. Fastest of 0.5 to 16 on MRI and on noise; the result does not depend on it.
_STEPS_PER_BATCH = 1.0


def geodesic_distance(
    image: Array,
    seeds: Array,
    spacing: Sequence[float] | None = None,
    weight: float = 1.0,
    euclid: float = 0.0,
) -> Array:
    """Shortest image-weighted path from every element to the nearest seed.

    Thesis equations 2-12 and 3-2: `D(i) = min over paths of integral |grad I . v| dn`. On the
    8-neighbour (2D) or 26-neighbour (3D) grid the integral over one step is `|I_i - I_j|`,
    whatever the spacing. With `euclid` a step costs `sqrt((weight dI)^2 + (euclid length)^2)`,
    the form of Criminisi et al., GeoS, ECCV 2008; only then does the spacing matter. The result
    is the exact shortest path on that graph (label correcting in batches of increasing
    distance: Meyer and Sanders, delta-stepping, 2003), not an approximation by sweeps.

    Args:
        image: (H, W) or (D, H, W) intensities, usually in [0, 1]; numpy array or torch tensor.
        seeds: Same shape, true where the distance is 0.
        spacing: Element size in mm along each axis, 1 by default.
        weight: Factor on intensity differences; `1 / std` gives the standardised image.
        euclid: Cost of one millimetre of path.

    Returns:
        float32 distance of the image's shape; a tensor on the image's device when the image is
        a tensor (computed on the CPU). Infinite everywhere without a seed.

    Raises:
        VolumeError: The image is not 2D or 3D, holds a value that is not finite, or the spacing
            does not fit it.
        PromptError: The seeds have another shape.
    """
    if isinstance(image, torch.Tensor):
        found = _distance(_to_numpy(image), _to_numpy(seeds), spacing, weight, euclid)
        return torch.from_numpy(found).to(image.device)
    return _distance(np.asarray(image), np.asarray(seeds), spacing, weight, euclid)


def egd(
    image: Array,
    seeds: Array,
    spacing: Sequence[float] | None = None,
    weight: float = 1.0,
) -> Array:
    """Exponentialised geodesic distance `max over seeds of exp(-D_geo)`, thesis equation 3-1.

    Args:
        image: (H, W) or (D, H, W) intensities; numpy array or torch tensor.
        seeds: Same shape, true at the clicks.
        spacing: Element size in mm, as in `geodesic_distance`.
        weight: Factor on intensity differences.

    Returns:
        float32 in [0, 1], 1 at the clicks, 0 everywhere without a click.
    """
    distance = geodesic_distance(image, seeds, spacing, weight)
    if isinstance(distance, torch.Tensor):
        return torch.exp(-distance)
    return np.exp(-distance)


def euclidean_encoding(
    seeds: NDArray[np.bool_], spacing: Sequence[float] | None = None
) -> NDArray[np.float32]:
    """Distance in mm to the nearest click, thesis equation 2-10; infinite without a click."""
    seeds = np.asarray(seeds, bool)
    steps = check_spacing(spacing, seeds.ndim)
    if not seeds.any():
        return np.full(seeds.shape, np.inf, np.float32)
    return ndimage.distance_transform_edt(~seeds, sampling=steps).astype(np.float32)


def gaussian_encoding(
    seeds: NDArray[np.bool_], sigma: float, spacing: Sequence[float] | None = None
) -> NDArray[np.float32]:
    """Gaussian `exp(-d^2 / 2 sigma^2)` of the distance to the nearest click, equation 2-11.

    Args:
        seeds: Bool array, true at the clicks.
        sigma: Standard deviation in mm (in elements without a spacing), above 0.
        spacing: Element size in mm along each axis.

    Returns:
        float32 in [0, 1]; 0 everywhere without a click.
    """
    if not sigma > 0:
        raise PromptError(f"sigma of a Gaussian encoding is {sigma}: give a value above 0")
    return np.exp(-0.5 * (euclidean_encoding(seeds, spacing) / np.float32(sigma)) ** 2)


class ImageDistances:
    """Geodesic distances of one image to sets of seeds that grow.

    One more seed costs as much as it changes: the distances of the seeds before it are a bound
    from which the search goes on. The result is that of `geodesic_distance`, to the last bit: the
    length of a path is summed from its seed in either case.

    Args:
        image: See `geodesic_distance`.
        spacing: mm.
        weight: Factor on intensity differences.
        euclid: Cost of one millimetre of path.
    """

    def __init__(
        self,
        image: NDArray[Any],
        spacing: Sequence[float] | None = None,
        weight: float = 1.0,
        euclid: float = 0.0,
    ) -> None:
        self.image = np.array(image)
        self.settings = _settings(spacing, weight, euclid)
        self._held: dict[str, tuple[NDArray[np.bool_], NDArray[np.float32]]] = {}

    def distance(self, name: str, seeds: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Distances to all of a set of seeds, not only to new ones; not to be written to.

        Args:
            name: Of the set; the latest distances of each are kept.
            seeds: True at the seeds.
        """
        known, start = self._held.get(name), None
        if known is not None:
            if np.array_equal(known[0], seeds):
                return known[1]
            start = None if (known[0] & ~seeds).any() else known[1]
        found = _distance(self.image, seeds, *self.settings, start)
        self._held[name] = np.array(seeds, bool), found
        return found

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        kept = (array.nbytes for pair in self._held.values() for array in pair)
        return self.image.nbytes + sum(kept)


class KeptDistances:
    """The distances of the latest image."""

    def __init__(self) -> None:
        self._latest: ImageDistances | None = None

    def on(
        self,
        image: NDArray[Any],
        spacing: Sequence[float] | None = None,
        weight: float = 1.0,
        euclid: float = 0.0,
    ) -> ImageDistances:
        """Those of an image, as far as they are known; what was kept of another is dropped.

        Arguments as of `ImageDistances`.
        """
        latest = self._latest
        same = latest is not None and latest.settings == _settings(spacing, weight, euclid)
        if latest is None or not same or not np.array_equal(image, latest.image):
            latest = self._latest = ImageDistances(image, spacing, weight, euclid)
        return latest

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        return 0 if self._latest is None else self._latest.nbytes


def _settings(
    spacing: Sequence[float] | None, weight: float, euclid: float
) -> tuple[tuple[float, ...] | None, float, float]:
    return None if spacing is None else tuple(map(float, spacing)), weight, euclid


def check_spacing(spacing: Sequence[float] | None, ndim: int) -> NDArray[np.float64]:
    """The spacing as an array of `ndim` positive numbers; ones when it is None.

    Raises:
        VolumeError: Another length, or a value that is not finite and positive.
    """
    if spacing is None:
        return np.ones(ndim)
    steps = np.asarray(spacing, float)
    if steps.shape != (ndim,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise VolumeError(f"spacing is {tuple(spacing)}: give {ndim} positive numbers in mm")
    return steps


def _to_numpy(values: Any) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def _distance(
    image: NDArray[Any],
    seeds: NDArray[Any],
    spacing: Sequence[float] | None,
    weight: float,
    euclid: float,
    start: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """The distance; from `start`, of some of the same seeds, only what is nearer to the others."""
    if image.ndim not in (2, 3):
        raise VolumeError(f"image has {image.ndim} dimensions: give a 2D or 3D scalar image")
    if seeds.shape != image.shape:
        raise PromptError(
            f"seeds have shape {seeds.shape}, the image {image.shape}: make them equal"
        )
    steps = check_spacing(spacing, image.ndim)
    scaled = np.ascontiguousarray(image, np.float32) * np.float32(weight)
    if not np.isfinite(scaled).all():
        raise VolumeError("image holds values that are not finite: replace them first")
    if scaled.size == 0:
        return np.zeros(image.shape, np.float32)
    padded = np.pad(scaled, 1, constant_values=np.nan)
    moves = np.array([m for m in product((-1, 0, 1), repeat=image.ndim) if any(m)])
    offsets = moves @ np.array([s // padded.itemsize for s in padded.strides])
    lengths = (((euclid * steps * moves) ** 2).sum(1)).astype(np.float32)
    distance = np.full(padded.shape, np.inf, np.float32)
    within = distance[(slice(1, -1),) * image.ndim]
    if start is not None:
        within[:] = start
    within[np.asarray(seeds, bool)] = 0
    batch = _STEPS_PER_BATCH * _mean_step(scaled, euclid * float(steps.min()))
    _shortest_paths(padded.ravel(), distance.ravel(), offsets, lengths, np.float32(batch))
    return np.ascontiguousarray(within)


def _mean_step(scaled: NDArray[np.float32], shortest: float) -> float:
    along = [
        np.abs(np.diff(scaled, axis=a)).mean() for a in range(scaled.ndim) if scaled.shape[a] > 1
    ]
    return float(np.mean(along) if along else 0.0) + shortest


@njit(cache=True, nogil=True)
def _shortest_paths(image, distance, offsets, lengths, batch):  # type: ignore[no-untyped-def]
    """Relax `distance` in place; NaN in `image` marks the border, no path crosses it."""
    n = distance.size
    near = np.empty(n, np.int32)
    far = np.empty(n, np.int32)
    in_near = np.zeros(n, np.bool_)
    in_far = np.zeros(n, np.bool_)
    head = count = n_far = 0
    for i in range(n):
        if distance[i] == 0:
            near[count] = i
            in_near[i] = True
            count += 1
    limit = batch
    spatial = lengths.max() > 0
    while count > 0:
        while count > 0:
            i = near[head]
            head = head + 1 if head + 1 < n else 0
            count -= 1
            in_near[i] = False
            for k in range(offsets.size):
                j = i + offsets[k]
                step = abs(image[i] - image[j])
                if spatial:
                    step = np.sqrt(step * step + lengths[k])
                reached = distance[i] + step
                if reached < distance[j]:
                    distance[j] = reached
                    if reached <= limit:
                        if not in_near[j]:
                            tail = head + count
                            near[tail if tail < n else tail - n] = j
                            in_near[j] = True
                            count += 1
                    elif not in_far[j]:
                        far[n_far] = j
                        in_far[j] = True
                        n_far += 1
        done = limit
        lowest = np.float32(np.inf)
        for m in range(n_far):
            if distance[far[m]] > done:
                lowest = min(lowest, distance[far[m]])
        limit = lowest + batch
        kept = 0
        head = 0
        for m in range(n_far):
            j = far[m]
            if distance[j] <= done:
                in_far[j] = False
            elif distance[j] <= limit:
                in_far[j] = False
                near[count] = j
                in_near[j] = True
                count += 1
            else:
                far[kept] = j
                kept += 1
        n_far = kept
