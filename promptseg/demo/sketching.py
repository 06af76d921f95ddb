"""A first look at the whole extent of the targets, before anything is carried through the volume.

The answer to a prompt is a mask on its own slice. What the coarse 3D view takes the target for on
all others is outlined there, so that whoever scrolls sees at once whether it was understood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from promptseg.demo.corrections import slice_axis
from promptseg.demo.visit import Visit
from promptseg.errors import PromptError
from promptseg.prompts.types import Text
from promptseg.volume.slicing import take_slice


@dataclass(frozen=True)
class Sketch:
    """Labels of a part of the volume; none lie outside.

    Args:
        start: Voxel at which the part begins.
        labels: (i, j, k) of the part.
        shape: (I, J, K) of the volume.
    """

    start: tuple[int, ...]
    labels: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray) -> Sketch:
        """What (I, J, K) labels hold."""
        found = np.nonzero(labels)
        if not len(found[0]):
            return cls((0, 0, 0), np.zeros((0, 0, 0), labels.dtype), labels.shape)
        ends = [(int(places.min()), int(places.max()) + 1) for places in found]
        part = labels[tuple(slice(low, high) for low, high in ends)].copy()
        return cls(tuple(low for low, _ in ends), part, labels.shape)

    def plane(self, axis: int, index: int) -> np.ndarray | None:
        """(rows, columns) labels of one slice of the volume; None where there are none."""
        if not self.start[axis] <= index < self.start[axis] + self.labels.shape[axis]:
            return None
        part = take_slice(self.labels, axis, index - self.start[axis])
        others = [n for n in range(3) if n != axis]
        plane = np.zeros([self.shape[n] for n in others], self.labels.dtype)
        low = [self.start[n] for n in others]
        plane[low[0] : low[0] + part.shape[0], low[1] : low[1] + part.shape[1]] = part
        return plane


def sketchable(visit: Visit) -> bool:
    """True if there are masks on prompted slices alone, and a coarse view that sees further."""
    segmenter, placed = visit.segmenter, [p for p in visit.prompts if not isinstance(p, Text)]
    return (
        visit.sketch is None
        and not visit.propagated
        and visit.labels is not None
        and segmenter is not None
        and segmenter.runtime.coarse is not None
        and bool(placed)
        and len(placed) == len(visit.prompts)
    )


def sketch(visit: Visit) -> None:
    """Outline what the coarse view takes the targets for, and say how far they reach."""
    if visit.session is None or not sketchable(visit):
        return
    try:
        labels = visit.session.preview().data
    except PromptError:
        # Prompts that say nothing of where a target is, such as a lone negative click.
        return
    visit.sketch = Sketch.of(labels)
    axis = slice_axis(visit)
    depth = visit.sketch.labels.shape[axis]
    if depth and visit.told is not None and visit.told[0] == "answered":
        first = visit.sketch.start[axis] + 1
        visit.tell("sketched", **visit.told[1], first=first, last=first + depth - 1)


def sketched_plane(visit: Visit, axis: int, index: int) -> np.ndarray | None:
    """(rows, columns) labels to outline on one slice, of the targets without a mask there."""
    if visit.sketch is None or visit.propagated or visit.labels is None:
        return None
    plane = visit.sketch.plane(axis, index)
    if plane is None:
        return None
    for label in np.unique(take_slice(visit.labels, axis, index)):
        plane[plane == label] = 0
    return plane
