"""Masks kept in the box around them, so that sixty organs of a large scan fit into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.io.image import Image


@dataclass(frozen=True, eq=False)
class Boxed:
    """A mask in a part of a volume.

    Args:
        low: (3,) first voxel of the box.
        mask: (I, J, K) bool of the box.
    """

    low: np.ndarray
    mask: np.ndarray

    @classmethod
    def around(cls, low: np.ndarray, high: np.ndarray, shape: Sequence[int]) -> Boxed:
        """An empty mask of the voxels from `low` up to `high`, those inside a volume."""
        first = np.clip(low, 0, shape).astype(int)
        last = np.maximum(np.clip(high, 0, shape).astype(int), first)
        return cls(first, np.zeros(tuple(last - first), bool))

    @property
    def box(self) -> tuple[slice, ...]:
        """Slices of the volume."""
        ends = self.low + self.mask.shape
        return tuple(slice(int(a), int(b)) for a, b in zip(self.low, ends, strict=True))

    def set(self, voxels: np.ndarray) -> bool:
        """Add (N, 3) voxels of the volume; those outside the box are left out.

        Returns:
            True if any was inside.
        """
        places = voxels - self.low
        inside = np.all((places >= 0) & (places < self.mask.shape), axis=1)
        self.mask[tuple(places[inside].T)] = True
        return bool(inside.any())


def labelled(
    masks: Mapping[int, Boxed],
    names: Mapping[int, str],
    shape: Sequence[int],
    affine: np.ndarray,
    notes: Sequence[str] = (),
) -> Image:
    """Labels of masks by number; those that share voxels are layers as well.

    Of targets that share a voxel, `data` shows the one with the highest number there.
    """
    data = np.zeros(tuple(shape), np.uint8 if max(masks, default=0) < 256 else np.uint16)
    shared: set[int] = set()
    for number in sorted(masks):
        boxed = masks[number]
        part = data[boxed.box]
        covered = {int(one) for one in np.unique(part[boxed.mask])} - {0}
        shared |= covered | ({number} if covered else set())
        part[boxed.mask] = number
    said = list(notes)
    if shared:
        listed = ", ".join(f"{n} {names.get(n, '')}".strip() for n in sorted(shared))
        said.append(f"targets {listed} share voxels")
    layers = {number: _whole(masks[number], shape) for number in sorted(shared)}
    return Image(data, affine, notes=tuple(said), names=dict(names), layers=layers, provenance={})


def _whole(boxed: Boxed, shape: Sequence[int]) -> np.ndarray:
    found = np.zeros(tuple(shape), bool)
    found[boxed.box] = boxed.mask
    return found
