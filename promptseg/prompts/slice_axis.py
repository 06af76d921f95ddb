"""Which axis a volume is sliced along, from its prompts and its spacing."""

from __future__ import annotations

import numpy as np

from promptseg.prompts.types import Box, Mask, Prompt, PromptSet, Scribble
from promptseg.volume import Volume
from promptseg.volume.slicing import resolve_axis

_TIE = 0.01


def choose_axis(volume: Volume, prompts: PromptSet, axis: int | str = "auto") -> int:
    """Choose the axis to slice along.

    Args:
        volume: The image.
        prompts: In the voxel frame.
        axis: A given axis wins. `auto` takes the axis of the first flat prompt (one slice thick
            in exactly one axis), then the axis of a one-slice volume, then the axis of the
            largest spacing; axial where spacings tie within 1%.
    """
    if str(axis).strip().lower() != "auto":
        return resolve_axis(axis, volume.affine)
    for prompt in prompts:
        flat = _flat_axis(prompt)
        if flat is not None:
            return flat
    if volume.shape.count(1) == 1:
        return volume.shape.index(1)
    largest = np.flatnonzero(volume.spacing >= volume.spacing.max() * (1 - _TIE))
    axial = resolve_axis("axial", volume.affine)
    return axial if axial in largest else int(largest[0])


def _flat_axis(prompt: Prompt) -> int | None:
    if isinstance(prompt, Box):
        extents = np.subtract(prompt.hi, prompt.lo)
    elif isinstance(prompt, Scribble):
        extents = np.ptp(prompt.voxels, axis=0) + 1
    elif isinstance(prompt, Mask) and prompt.axis is not None:
        return prompt.axis
    elif isinstance(prompt, Mask):
        extents = np.array([_span(prompt.data, axis) for axis in range(3)])
    else:
        return None
    flat = np.flatnonzero(extents == 1)
    return int(flat[0]) if len(flat) == 1 else None


def _span(mask: np.ndarray, axis: int) -> int:
    others = tuple(other for other in range(3) if other != axis)
    return int(np.ptp(np.flatnonzero(mask.any(axis=others)))) + 1
