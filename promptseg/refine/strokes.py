"""What a user drew comes out as drawn: strokes as local corrections, clicks and strokes obeyed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from promptseg.io.image import label_values
from promptseg.prompts.types import Point, Prompt, PromptSet, Scribble
from promptseg.refine.graphcut import graph_cut_refine

# As far as a hand slips beside a boundary that it follows: more would be another correction.
REACH_ELEMENTS = 3
_EVEN = 0.5


def stroked(
    labels: np.ndarray,
    share: np.ndarray,
    image: np.ndarray,
    stroke: Scribble,
    spacing: Sequence[float],
) -> np.ndarray:
    """Labels after a stroke that takes away from its target or adds to it, where it was drawn.

    The stroke's voxels come out as drawn, and those up to `REACH_ELEMENTS` of the finest spacing
    around it by graph cut; beyond nothing changes. A stroke outside the target only takes away,
    one inside only adds, and takes nothing from other targets but its own voxels.

    Args:
        labels: (I, J, K) integers before.
        share: (I, J, K) foreground probability of the stroke's target.
        image: (I, J, K) grey values in [0, 1].
        stroke: In voxels.
        spacing: (3,) mm.

    Returns:
        A new (I, J, K) array.

    Source: information-fusion graph cut of MIDeepSeg (METHODS A) on the voxels around a stroke.
    """
    reach = REACH_ELEMENTS * min(spacing)
    steps = np.ceil(reach / np.array(spacing)).astype(int) + 1
    low = np.maximum(stroke.voxels.min(0) - steps, 0)
    high = np.minimum(stroke.voxels.max(0) + 1 + steps, labels.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    drawn = np.zeros(labels[box].shape, bool)
    drawn[tuple((stroke.voxels - low).T)] = True
    far = ndimage.distance_transform_edt(~drawn, sampling=tuple(spacing)) > reach
    base = labels[box] == stroke.target
    likely = np.where(base, np.maximum(share[box], _EVEN), np.minimum(share[box], _EVEN))
    inside, outside = (base & far) & ~drawn, (~base & far) & ~drawn
    (inside if stroke.positive else outside)[drawn] = True
    sides: tuple[int, ...] = drawn.shape
    whole = tuple(slice(0, length) for length in sides)
    shown = likely.astype(np.float32), image[box]
    cut = graph_cut_refine(*shown, inside, outside, spacing, region=whole)
    found = labels.copy()
    part = found[box]
    if stroke.positive:
        part[(cut & (part == 0)) | drawn] = stroke.target
    else:
        part[(base & ~cut) | (base & drawn)] = 0
    return found


def obeyed(labels: np.ndarray, prompts: PromptSet) -> np.ndarray:
    """Labels with every click and stroke as it was given; a later one wins.

    A click alone makes no target of a voxel where the network found none at all.

    Args:
        labels: (I, J, K) integers.
        prompts: In voxels.

    Returns:
        The same array where nothing contradicts it, else a new one.
    """
    there = set(label_values(labels))
    found = labels
    for prompt in prompts:
        voxels = marked(prompt)
        if voxels is None or (isinstance(prompt, Point) and prompt.target not in there):
            continue
        at = tuple(voxels.T)
        wrong = (found[at] == prompt.target) != prompt.positive  # type: ignore[union-attr]
        if wrong.any():
            found = found.copy() if found is labels else found
            here = tuple(voxels[wrong].T)
            found[here] = prompt.target if prompt.positive else 0  # type: ignore[union-attr]
    return found


def marked(prompt: Prompt) -> np.ndarray | None:
    """(N, 3) whole voxels of a click or a stroke; None for other prompts."""
    if isinstance(prompt, Scribble):
        return np.asarray(prompt.voxels)
    if isinstance(prompt, Point):
        return np.floor(np.array([prompt.at]) + 0.5).astype(np.int64)
    return None
