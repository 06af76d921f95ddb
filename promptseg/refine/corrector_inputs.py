"""From a volume, a mask's probability and clicks to the input of the 3D corrector, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from promptseg.refine.geodesic import euclidean_encoding, geodesic_distance
from promptseg.refine.graphcut import Region
from promptseg.volume import bounding_slices

LONG_SIDE = 64
MARGIN = 0.2
REACHES = (3.0, 12.0)
SURFACE = 6.0
LOGIT_LIMIT = 6.0
STEP_COST = 0.03
_FAR = np.float32(1e3)
_LEAST = 1 / (1 + np.exp(LOGIT_LIMIT))


@dataclass(frozen=True)
class Patch:
    """An isotropic view of a part of a volume.

    Args:
        region: Part of the volume.
        shape: Of the part.
        inner: (3,) elements that the part takes in the view.
        outer: (3,) elements of the view, each a multiple of what the network needs.
    """

    region: Region
    shape: tuple[int, ...]
    inner: tuple[int, ...]
    outer: tuple[int, ...]

    def view(self, volume: NDArray[np.floating]) -> Tensor:
        """(I, J, K) -> (D, H, W) float32, the part resampled; its last values repeated beyond."""
        part = torch.from_numpy(np.ascontiguousarray(volume[self.region], np.float32))
        view = functional.interpolate(part[None, None], self.inner, mode="trilinear")
        pad = [
            x for o, i in zip(self.outer[::-1], self.inner[::-1], strict=True) for x in (0, o - i)
        ]
        return functional.pad(view, pad, mode="replicate")[0, 0]

    def restore(self, view: Tensor) -> NDArray[np.float32]:
        """(D, H, W) -> float32 on the part of the volume."""
        kept = view[tuple(slice(0, n) for n in self.inner)]
        return functional.interpolate(kept[None, None], self.shape, mode="trilinear")[0, 0].numpy()

    def seeds(self, voxels: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(N, 3) voxels of the volume -> (D, H, W) bool; those outside the view are left out."""
        low = np.array([side.start for side in self.region])
        scale = np.array(self.inner) / np.array(self.shape)
        at = np.floor((np.reshape(voxels, (-1, 3)) - low + 0.5) * scale).astype(np.int64)
        seeds = np.zeros(self.outer, bool)
        seeds[tuple(at[((at >= 0) & (at < self.inner)).all(1)].T)] = True
        return seeds


def choose_patch(
    found: NDArray[np.bool_],
    voxels: NDArray[np.integer],
    spacing: Sequence[float],
    multiple: int,
    long_side: int = LONG_SIDE,
    margin: float = MARGIN,
) -> Patch:
    """The view of a mask and all clicks, with a margin, not finer than the finest spacing.

    Args:
        found: (I, J, K) mask so far.
        voxels: (N, 3) clicks.
        spacing: (3,) mm.
        multiple: Of every side of the view.
        long_side: Elements of the view's longest side, at most.
        margin: Around mask and clicks, as a share of their longest side.

    Raises:
        ValueError: If there is neither a mask nor a click.
    """
    cells = np.concatenate([_corners(found), voxels])
    if not len(cells):
        raise ValueError("there is neither a mask nor a click")
    step = np.array(spacing, float)
    lo, hi = cells.min(0), cells.max(0) + 1
    grow = np.ceil(margin * ((hi - lo) * step).max() / step).astype(int)
    lo, hi = np.maximum(lo - grow, 0), np.minimum(hi + grow, found.shape)
    extent = (hi - lo) * step
    element = max(float(step.min()), float(extent.max()) / long_side)
    inner = np.maximum(np.round(extent / element), 1).astype(int)
    outer = np.ceil(inner / multiple).astype(int) * multiple
    region = tuple(slice(int(a), int(b)) for a, b in zip(lo, hi, strict=True))
    as_tuple = lambda sides: tuple(int(n) for n in sides)  # noqa: E731
    return Patch(region, as_tuple(hi - lo), as_tuple(inner), as_tuple(outer))


def _corners(found: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(2, 3) first and last voxel of the box around a mask; (0, 3) of an empty one."""
    box = bounding_slices(found)
    if box is None:
        return np.zeros((0, 3), np.int64)
    return np.array([[side.start for side in box], [side.stop - 1 for side in box]], np.int64)


def logits_of(probability: Tensor) -> Tensor:
    """Logit of a probability, within +-`LOGIT_LIMIT`."""
    return torch.logit(probability.clamp(_LEAST, 1 - _LEAST))


@dataclass
class ClickDistances:
    """How far every element lies from the clicks of one class.

    Args:
        image: (D, H, W) grey values, standardised.
        straight: (D, H, W) distance in elements.
        along: (D, H, W) geodesic distance, in which a path also pays for its length.
    """

    image: NDArray[np.float32]
    straight: NDArray[np.float32]
    along: NDArray[np.float32]

    @classmethod
    def of(cls, image: NDArray[np.float32], seeds: NDArray[np.bool_]) -> ClickDistances:
        """From clicks, (D, H, W) bool; without one everything is far away."""
        if not seeds.any():
            return cls(image, np.full(image.shape, _FAR), np.full(image.shape, _FAR))
        along = geodesic_distance(image, seeds, None, 1.0, STEP_COST)
        return cls(image, distance_to(seeds), along)

    def and_at(self, seeds: NDArray[np.bool_]) -> ClickDistances:
        """The same with more clicks, (D, H, W) bool."""
        one = ClickDistances.of(self.image, seeds)
        return ClickDistances(
            self.image,
            np.minimum(self.straight, one.straight),
            np.minimum(self.along, one.along),
        )


def standardised(image: Tensor) -> NDArray[np.float32]:
    """(D, H, W) grey values with mean 0 and deviation 1."""
    return ((image - image.mean()) / image.std().clamp(min=1e-6)).numpy()


def corrector_inputs(logits: Tensor, inside: ClickDistances, outside: ClickDistances) -> Tensor:
    """Channels of the network, (INPUTS, D, H, W).

    Args:
        logits: (D, H, W) of the mask so far.
        inside: Clicks on the target.
        outside: Clicks beside it.

    Returns:
        Grey value, logit, distance to the mask's surface; how near the clicks of either class
        are, seen narrowly and widely; their exponentialised geodesic distance (thesis equation
        3-1), and which class is nearer on a geodesic path.
    """
    depth = np.tanh(signed_distance((logits > 0).numpy()) / SURFACE)
    near = [np.exp(-told.straight / reach) for told in (inside, outside) for reach in REACHES]
    nearer = np.tanh(np.clip(outside.along - inside.along, -8, 8))
    maps = [depth, *near, np.exp(-inside.along), np.exp(-outside.along), nearer]
    own = [inside.image.clip(-4, 4), logits.numpy() / LOGIT_LIMIT]
    return torch.from_numpy(np.stack([*own, *maps]).astype(np.float32))


def signed_distance(found: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance to the surface of a mask in elements, positive inside."""
    return distance_to(~found) - distance_to(found)


def distance_to(seeds: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance to the nearest true element; large where there is none."""
    return np.minimum(euclidean_encoding(seeds), _FAR)
