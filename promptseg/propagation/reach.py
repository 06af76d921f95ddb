"""Which pixels of which slices a correction changes, see `promptseg.inference.reach`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, pi, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptseg.inference.decoder import ABSENT_LOGIT, SliceMask
from promptseg.inference.reach import LEAST, REACH
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.volume.slicing import Frame, in_plane

# Of a stroke, so many show how far it is from the outline.
PLACES = 16
Masks = Mapping[int, SliceMask]


@dataclass(frozen=True)
class Mark:
    """Where a correction was made, and how far it reaches.

    Args:
        index: Slice.
        places: (N, 2) rows and columns of mask pixels.
        radius: mm; infinite where there was no outline.
    """

    index: int
    places: Tensor
    radius: float


class CorrectionReach:
    """Keeps the changes of a correction near it.

    Args:
        frame: Of the masks.
        side: Of the masks, in pixels.
    """

    def __init__(self, frame: Frame, side: int) -> None:
        self.frame, self.side = frame, side
        rows, cols = in_plane(frame.axis)
        x, y = frame.scale
        pixel = frame.size / side
        self.steps = torch.tensor([frame.spacing[rows] / y, frame.spacing[cols] / x]) * pixel
        self.apart = frame.spacing[frame.axis]
        lines = torch.arange(side, dtype=torch.float32)
        self._grid = torch.stack(torch.meshgrid(lines, lines, indexing="ij"), -1)

    def marks(self, index: int, prompts: SlicePrompts, before: Masks) -> list[Mark]:
        """The corrections on a slice.

        Args:
            index: Slice.
            prompts: What the user said there.
            before: Answers that are corrected, by slice.
        """
        made = [
            np.array([at])
            for at, late in zip(prompts.points, prompts.correction, strict=True)
            if late or not prompts.starts
        ]
        sides = (*prompts.late, *(() if prompts.starts else prompts.strokes))
        made += [np.asarray(stroke, float) for side in sides for stroke in side]
        return [self._mark(index, voxels, before) for voxels in made]

    def _mark(self, index: int, voxels: NDArray[np.float64], before: Masks) -> Mark:
        pixels = torch.from_numpy(self.frame.to_pixels(voxels)).float()
        cells = (pixels.flip(1) * (self.side / self.frame.size)).floor()
        places = cells.clamp(0, self.side - 1).unique(dim=0)
        some = places[:: max(1, len(places) // PLACES)]
        away = max(self._from_outline(index, place, before) for place in some)
        away = max(away, self._least(index, before))
        return Mark(index, places, REACH * away + self._finest)

    def _least(self, index: int, before: Masks) -> float:
        """mm that a click is taken to be from the outline at least: nobody hits the middle.

        On a slice where nothing was found what is missing is as large as on the nearest one.
        """
        filled = {i: mask.area for i, mask in before.items() if mask.area}
        if not filled:
            return inf
        near = min(filled, key=lambda i: abs(i - index))
        radius = sqrt(filled[near] * float(self.steps.prod()) / pi)
        return radius * (LEAST if near == index else 1.0)

    @property
    def _finest(self) -> float:
        return min(float(self.steps.min()), self.apart)

    def _from_outline(self, index: int, place: Tensor, before: Masks) -> float:
        """Distance in mm from a pixel to the nearest that is not as it is, infinite for none."""
        own = before.get(index)
        row, col = (int(n) for n in place)
        inside = own is not None and bool(own.logits[row, col] > 0)
        nearest = inf
        ends = (min(before) - 1, max(before) + 1) if inside else ()
        for other in sorted((*before, *ends), key=lambda i: abs(i - index)):
            height = abs(other - index) * self.apart
            if height >= nearest:
                break
            mask = before.get(other)
            if mask is None:
                nearest = height
                continue
            unlike = torch.nonzero((mask.logits > 0) != inside).float()
            if len(unlike):
                flat = float((((unlike - place) * self.steps) ** 2).sum(1).min())
                nearest = min(nearest, sqrt(flat + height**2))
        return nearest

    def kept(self, marks: Sequence[Mark], before: Masks, after: Masks) -> dict[int, SliceMask]:
        """Answers after a correction where it reaches, else those before it.

        Args:
            marks: Where it was made.
            before: Answers by slice.
            after: Likewise.
        """
        if not marks or any(mark.radius == inf for mark in marks):
            return dict(after)
        found = {}
        for index in sorted({*before, *after}):
            old, new = before.get(index), after.get(index)
            near = self._reached(marks, index)
            if old is new or not near.any():
                if old is not None:
                    found[index] = old
                continue
            mask = self._where(near, new, old)
            if mask.area or (index in after and not after[index].area):
                found[index] = mask
        return found

    def _reached(self, marks: Sequence[Mark], index: int) -> Tensor:
        """(m, m) bool of the pixels of a slice that the marks reach."""
        reached = torch.zeros(self.side, self.side, dtype=torch.bool)
        for mark in marks:
            left = mark.radius**2 - ((index - mark.index) * self.apart) ** 2
            if left < 0:
                continue
            for place in mark.places:
                reached |= (((self._grid - place) * self.steps) ** 2).sum(-1) <= left
        return reached

    @staticmethod
    def _where(reached: Tensor, new: SliceMask | None, old: SliceMask | None) -> SliceMask:
        held = next(mask for mask in (new, old) if mask is not None)
        lost = torch.full_like(held.logits, ABSENT_LOGIT)
        after, before = (lost if mask is None else mask.logits for mask in (new, old))
        return replace(held, logits=torch.where(reached, after, before), given=None)
