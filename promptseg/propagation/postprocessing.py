"""Making the slices of a volume agree: a clean-up of what was found."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from promptseg.errors import PromptsegError
from promptseg.inference.decoder import ABSENT_LOGIT, SliceMask
from promptseg.propagation.slice_step import SURE

SWITCHES = ("auto", "none", "clean")
# Set by hand before there was a development set.
SMOOTH_MM, STRAY_SHARE, HOLE_SHARE = 0.5, 0.1, 0.02


@dataclass(frozen=True)
class Consistency:
    """What is done so that the slices of a propagation agree.

    Args:
        clean: Drop stray parts, fill small cavities, smooth across slices.
        coarse: Go from slice to slice with what was trained for it, and look at the whole target
            with the coarse 3D view, where the segmenter has them.
    """

    clean: bool = False
    coarse: bool = False

    @classmethod
    def named(cls, name: str) -> Consistency:
        """The switch of a name.

        Args:
            name: `none`, `clean`, or `auto`, which is what measured best.

        Raises:
            PromptsegError: If the name is unknown.
        """
        known = {
            "auto": cls(clean=True, coarse=True),
            "none": cls(),
            "clean": cls(clean=True),
        }
        if name not in known:
            raise PromptsegError(f"consistency {name!r} is unknown: use {', '.join(SWITCHES)}")
        return known[name]


def cleaned(
    answers: dict[int, SliceMask], key_slices: Collection[int], spacing: float
) -> dict[int, SliceMask]:
    """Answers of one target without what single slices got wrong; key slices stay as they are.

    Args:
        answers: By slice, all in one frame.
        key_slices: Slices that the user prompted.
        spacing: Distance of two slices in mm.
    """
    kept = set(key_slices) & answers.keys()
    if len(answers) < 2:
        return answers
    indices = list(range(min(answers), max(answers) + 1))
    blank = torch.full_like(next(iter(answers.values())).logits, ABSENT_LOGIT)
    stack = torch.stack([answers[i].logits if i in answers else blank for i in indices])
    stack = smoothed(stack, spacing)
    for place, index in enumerate(indices):
        if index in kept:
            stack[place] = answers[index].logits
    stack = filled(without_strays(stack, [i - indices[0] for i in kept]))
    changed = {}
    for place, index in enumerate(indices):
        if index in kept:
            changed[index] = answers[index]
        elif index in answers:
            changed[index] = replace(answers[index], logits=stack[place])
    return changed


def smoothed(stack: Tensor, spacing: float) -> Tensor:
    """(N, m, m) logits averaged over slices with a Gaussian of `SMOOTH_MM`; thick ones stay."""
    sigma = SMOOTH_MM / spacing
    if sigma < 0.3:
        return stack.clone()
    clipped = stack.clamp(ABSENT_LOGIT, -ABSENT_LOGIT).numpy()
    return torch.from_numpy(ndimage.gaussian_filter1d(clipped, sigma, axis=0, mode="nearest"))


def without_strays(stack: Tensor, key_slices: Collection[int]) -> Tensor:
    """(N, m, m) logits with bodies emptied that no key slice touches and that are small."""
    bodies, count = ndimage.label((stack > 0).numpy(), np.ones((3, 3, 3)))
    if count < 2:
        return stack
    sizes = np.bincount(bodies.ravel())[1:]
    touched = np.unique(bodies[sorted(key_slices)]) if key_slices else np.zeros(0, int)
    kept = sizes >= (STRAY_SHARE * sizes.max() if len(touched[touched > 0]) == 0 else np.inf)
    kept[touched[touched > 0] - 1] = True
    stray = torch.from_numpy((bodies > 0) & ~np.isin(bodies, 1 + np.flatnonzero(kept)))
    return stack.masked_fill(stray, ABSENT_LOGIT)


def filled(stack: Tensor) -> Tensor:
    """(N, m, m) logits with cavities filled that are small beside the target."""
    inside = (stack > 0).numpy()
    holes, count = ndimage.label(ndimage.binary_fill_holes(inside) & ~inside)
    if not count:
        return stack
    sizes = np.bincount(holes.ravel())[1:]
    small = 1 + np.flatnonzero(sizes <= HOLE_SHARE * inside.sum())
    return stack.masked_fill(torch.from_numpy(np.isin(holes, small)), SURE)
