"""Making the slices of a volume agree: a clean-up of what was found."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from promptseg.errors import PromptsegError
from promptseg.inference.decoder import ABSENT_LOGIT, SliceMask

SWITCHES = ("auto", "none", "clean")


@dataclass(frozen=True)
class Consistency:
    """What is done so that the slices of a propagation agree.

    Args:
        clean: Drop parts that hang together with no prompted slice.
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


def cleaned(answers: dict[int, SliceMask], key_slices: Collection[int]) -> dict[int, SliceMask]:
    """Answers of one target without bodies that no key slice touches, if it touches any.

    Args:
        answers: By slice, all in one frame.
        key_slices: Slices that the user prompted; they stay as they are.
    """
    kept = set(key_slices) & answers.keys()
    if len(answers) < 2 or not kept:
        return answers
    first, last = min(answers), max(answers)
    inside = np.zeros((last + 1 - first, *next(iter(answers.values())).logits.shape), bool)
    for index, mask in answers.items():
        inside[index - first] = (mask.logits > 0).numpy()
    bodies, count = ndimage.label(inside, np.ones((3, 3, 3)))
    touched = np.unique(bodies[[index - first for index in kept]])
    touched = touched[touched > 0]
    if not len(touched) or len(touched) == count:
        return answers
    stray = torch.from_numpy(inside & ~np.isin(bodies, touched))
    return {
        index: mask if index in kept else replace(
            mask, logits=mask.logits.masked_fill(stray[index - first], ABSENT_LOGIT)
        )
        for index, mask in answers.items()
    }  # fmt: skip
