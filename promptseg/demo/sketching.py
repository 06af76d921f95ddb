"""A first look at the whole extent of the targets, before anything is carried through the volume.

The answer to a prompt is a mask on its own slice. What the coarse 3D view takes the target for on
all others is outlined there, so that whoever scrolls sees at once whether it was understood.
"""

from __future__ import annotations

import numpy as np

from promptseg.demo.corrections import slice_axis
from promptseg.demo.visit import Visit
from promptseg.demo.visit_parts import Sketch
from promptseg.errors import PromptError
from promptseg.prompts.types import Text
from promptseg.volume import bounding_slices
from promptseg.volume.slicing import take_slice


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
    where = bounding_slices(labels == visit.active)
    if where is not None and visit.told is not None and visit.told[0] == "answered":
        reach = where[slice_axis(visit)]
        visit.tell("sketched", **visit.told[1], first=reach.start + 1, last=reach.stop)


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
