"""How a target that is known on several slices ends beyond the outermost of them.

A mask that is carried from slice to slice keeps its size, so a track leaves the last prompted slice
with too large a mask. Between two prompted slices the size is known. The areas of an ellipsoid's
cross-sections are a quadratic function of the place, as is its first approximation to any body
with a smooth end; so a parabola through the areas between the two outermost prompted slices says
how large the target should be beyond. A tube's areas give a level line, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from promptseg.inference.decoder import SliceMask

LEAST_BETWEEN = 5
TRUST = 0.75
LEAST_AREA = 6


def tapered(
    answers: dict[int, SliceMask], key_masks: Mapping[int, SliceMask]
) -> dict[int, SliceMask]:
    """Answers of one target, those beyond its outermost prompted slices cut to their likely area.

    Args:
        answers: By slice, all in one frame.
        key_masks: Prompted slices; with fewer than two that see the target nothing is changed.
    """
    filled = sorted(i for i, mask in key_masks.items() if mask.area)
    if len(filled) < 2:
        return answers
    found = dict(answers)
    for end, inner in ((filled[0], filled[1]), (filled[-1], filled[-2])):
        likely = likely_area(answers, end, inner)
        if likely is None:
            continue
        for index in [i for i in answers if (i - end) * (end - inner) > 0]:
            if index in key_masks:
                continue
            mask = cut(answers[index], likely(min(abs(index - end), abs(end - inner))))
            if mask is None:
                del found[index]
            else:
                found[index] = mask
    return found


def likely_area(
    answers: Mapping[int, SliceMask], end: int, inner: int
) -> Callable[[int], float] | None:
    """Area by the number of slices beyond `end`, never above that on `end`.

    Args:
        answers: By slice.
        end: An outermost prompted slice.
        inner: The next prompted slice.

    Returns:
        None if too few slices between the two have an answer.
    """
    step = 1 if inner > end else -1
    between = [i for i in range(end + step, inner + step, step) if i in answers]
    if len(between) <= LEAST_BETWEEN:
        return None
    area = answers[end].area
    inwards = np.abs(np.array(between) - end).astype(float)
    rise = np.array([answers[i].area for i in between]) - float(area)
    slope, bend = np.linalg.lstsq(np.stack([inwards, inwards**2], 1), rise, rcond=None)[0]
    if bend > 0:
        slope, bend = float(inwards @ rise / (inwards @ inwards)), 0.0
    return lambda away: min(float(area), area - slope * away + bend * away**2)


def cut(mask: SliceMask, likely: float) -> SliceMask | None:
    """A mask without its least certain pixels; None if hardly any should be left.

    The area aimed at lies between the mask's own and the likely one, nearer to that.
    """
    own = mask.area
    wanted = round(own ** (1 - TRUST) * max(likely, 0.0) ** TRUST)
    if wanted >= own:
        return mask
    if wanted < LEAST_AREA:
        return None
    level = float(mask.logits.flatten().kthvalue(mask.logits.numel() - wanted).values)
    return replace(mask, logits=mask.logits - max(level, 0.0))
