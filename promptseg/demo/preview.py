"""Masks of one slice while a correction waits to be taken up.

Once a 3D mask is there, a click shows at once what it does to its own slice: the network sees
the slice, its present mask and the new prompts. The volume is left alone until `Refine` or
`Propagate` takes the prompts up.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from promptseg.prompts.slice_axis import choose_axis
from promptseg.prompts.types import Box, Mask, Point, Prompt, PromptSet, Scribble
from promptseg.volume import Volume
from promptseg.volume.slicing import take_slice

if TYPE_CHECKING:
    from promptseg.session import Segmenter
    from promptseg.volume.intensity import Window


def slice_index(prompt: Prompt, axis: int) -> int | None:
    """Slice along `axis` that a prompt in voxels lies on; None if it is on several or none."""
    if isinstance(prompt, Point):
        return int(np.floor(prompt.at[axis] + 0.5))
    if isinstance(prompt, Box) and prompt.hi[axis] - prompt.lo[axis] == 1:
        return int(prompt.lo[axis])
    if isinstance(prompt, Scribble):
        found = np.unique(prompt.voxels[:, axis])
        return int(found[0]) if len(found) == 1 else None
    return None


def session_axis(volume: Volume, prompts: PromptSet, wanted: int | str) -> int:
    """Voxel axis along which a session with these prompts takes its slices."""
    return choose_axis(volume, prompts.to_voxel(volume), wanted)


def corrected_plane(
    segmenter: Segmenter,
    volume: Volume,
    window: Window,
    labels: np.ndarray,
    prompts: PromptSet,
    axis: int,
    index: int,
) -> np.ndarray:
    """Labels of one slice after prompts that the volume's labels do not stand for yet.

    Args:
        segmenter: The network.
        volume: The image.
        window: Grey values that the model sees as 0 and 1.
        labels: (I, J, K) labels before.
        prompts: In voxels, all on this slice; prompts of other kinds are left out.
        axis: Voxel axis of the slices.
        index: Slice along it.

    Returns:
        (rows, columns) labels.
    """
    plane = take_slice(labels, axis, index).copy()
    low, high = max(0, index - 1), min(volume.shape[axis], index + 2)
    slab = _slab(volume, axis, low, high)
    grey = f"{window.high - window.low!r},{(window.high + window.low) / 2!r}"
    for target in prompts.targets:
        given: list[Prompt] = [_shifted(p, axis, low) for p in prompts.for_target(target)]
        before = plane == target
        if before.any():
            given.insert(0, Mask(before, target, axis, index - low))
        elif not any(getattr(prompt, "positive", True) for prompt in given):
            continue
        answer = segmenter.segment(slab, given, axis=axis, propagate=False, window=grey)
        found = take_slice(answer.data, axis, index - low) == target
        plane[before] = 0
        plane[found] = target
    return plane


def _slab(volume: Volume, axis: int, low: int, high: int) -> Volume:
    """A few slices of a volume; networks that see neighbours need them too."""
    cut = [slice(None)] * 3
    cut[axis] = slice(low, high)
    return Volume(np.ascontiguousarray(volume.data[tuple(cut)]), volume.affine, volume.modality)


def _shifted(prompt: Prompt, axis: int, by: int) -> Prompt:
    offset = np.zeros(3)
    offset[axis] = by
    if isinstance(prompt, Point):
        return replace(prompt, at=tuple(np.subtract(prompt.at, offset)))
    if isinstance(prompt, Box):
        lo, hi = np.subtract(prompt.lo, offset), np.subtract(prompt.hi, offset)
        return replace(prompt, lo=tuple(lo), hi=tuple(hi))
    if isinstance(prompt, Scribble):
        return replace(prompt, voxels=prompt.voxels - offset.astype(np.int64))
    return prompt
