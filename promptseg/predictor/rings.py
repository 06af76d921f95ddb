"""Answers to a box that leave out its middle: a wall, where what it surrounds may be meant.

A box a tenth too wide around a ventricle is nearly the box of its wall. Nothing tells which of the
two a user boxed, so both are offered, and a click inside decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from promptseg.inference.box_reading import MOST_ROOM
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.prompts.types import Box, Point, PromptSet, Scribble
from promptseg.volume import Segmentation
from promptseg.volume.slicing import in_plane, take_slice

Corner = tuple[float, ...]
Voxel = tuple[int, int, int]


def middle_of(lo: Corner, hi: Corner) -> Voxel:
    """Voxel in the middle of half-open corners; its slice is that on which a box is answered."""
    i, j, k = (int(low + high - 1) // 2 for low, high in zip(lo, hi, strict=True))
    return i, j, k


def surrounds(mask: NDArray[np.bool_], axis: int, lo: Corner, hi: Corner) -> bool:
    """True if the (I, J, K) mask goes around the middle of a box and leaves out most of it.

    What it goes around must be so large that the box could be one of that with some room: the
    sinus of a kidney is no reason to ask.
    """
    at, sides = middle_of(lo, hi), in_plane(axis)
    plane = take_slice(mask, axis, at[axis])
    cell = tuple(at[side] for side in sides)
    if not all(0 <= n < size for n, size in zip(cell, plane.shape, strict=True)) or plane[cell]:
        return False
    holes, _ = ndimage.label(ndimage.binary_fill_holes(plane) & ~plane)
    if not holes[cell]:
        return False
    extent = np.ptp(np.argwhere(holes == holes[cell]), axis=0) + 1
    return all(
        n >= (1 - 2 * MOST_ROOM) * (hi[side] - lo[side])
        for n, side in zip(extent, sides, strict=True)
    )


def clicked_at(place: SlicePrompts, middle: Voxel) -> SlicePrompts:
    """A box with a click besides."""
    click = tuple(float(n) for n in middle)
    return replace(place, points=[click], labels=[1], correction=[False], read=None)


def notes_on_rings(resolved: PromptSet, result: Segmentation) -> Iterator[str]:
    """A sentence for each target with a box alone that was answered by a ring around nothing.

    Args:
        resolved: Prompts in voxels of the file.
        result: The answer, with its slice axis in the report.
    """
    if "axis" not in result.report:
        return
    axis = int(result.report["axis"])
    shown = {p.target for p in resolved if isinstance(p, Point | Scribble)}
    told: set[int] = set()
    for box in resolved:
        if not isinstance(box, Box) or box.target in shown | told:
            continue
        middle = middle_of(box.lo, box.hi)
        around = surrounds(result.data == box.target, axis, box.lo, box.hi)
        if around and not result.data[middle]:
            told.add(box.target)
            yield (
                f"target {box.target} is a ring around the middle of its box: if what lies inside "
                "is meant, click there, or draw the box closer to it"
            )
