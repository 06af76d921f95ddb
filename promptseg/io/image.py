"""What a file holds, before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

DEFAULT_MAX_BYTES = 16 * 2**30


@dataclass(frozen=True, eq=False)
class Image:
    """Plain content of an image or label file: an array that knows where it is.

    Args:
        data: (I, J, K) values after the file's own slope and intercept; for labels integers.
        affine: (4, 4) voxel index to RAS+ millimetres.
        modality: DICOM's word for it, such as `CT` or `MR`, or None where the file does not say.
        header: The reader's own header, which a writer of the same family takes up again.
        notes: What was repaired, left out or unusual, each a sentence for a person.
        names: Names by label.
        layers: (I, J, K) bool mask, by label, of those that share voxels with others.
        provenance: What made the labels, see `promptseg.io.provenance`; None for no labels.
        verbatim: Labels whose name is written as it is, whatever the format's own spelling.
    """

    data: np.ndarray
    affine: np.ndarray
    modality: str | None = None
    header: Any = None
    notes: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    layers: Mapping[int, np.ndarray] = field(default_factory=dict)
    provenance: Mapping[str, Any] | None = None
    verbatim: frozenset[int] = frozenset()

    @property
    def targets(self) -> tuple[int, ...]:
        """Labels that are there or have a name, in order."""
        found = {*label_values(self.data), *self.layers, *self.names}
        return tuple(sorted(found))

    def mask(self, target: int) -> np.ndarray:
        """(I, J, K) bool mask of one label."""
        layer = self.layers.get(target)
        return self.data == target if layer is None else layer

    def box(self, target: int) -> tuple[slice, ...] | None:
        """Slices around one label, None where it has no voxel."""
        if target not in self.layers:
            found = self._boxes
            return found[target - 1] if 0 < target <= len(found) else None
        from scipy import ndimage

        boxes: list[Any] = ndimage.find_objects(self.layers[target].astype(np.uint8))
        return boxes[0] if boxes else None

    @cached_property
    def _boxes(self) -> list[Any]:
        data = self.data.astype(np.uint8) if self.data.dtype.kind == "b" else self.data
        from scipy import ndimage

        return list(ndimage.find_objects(data))


def label_values(labels: np.ndarray) -> list[int]:
    """Values other than 0 in an integer array, ascending.

    Most of a volume is background: what is left of it is sorted in a fraction of the time.
    """
    return [int(value) for value in np.unique(labels[labels != 0])]
