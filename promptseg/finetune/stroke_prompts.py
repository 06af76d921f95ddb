"""Prompts of a simulated user where only strokes are known: on strokes alone.

Anything else could be wrong: beside a stroke may still be the target, and its box is not the
target's.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from promptseg.backbones.base import PixelPrompts
from promptseg.datasets.simulation import users

Mask2D = NDArray[np.bool_]
CLICK, CLICKS = 0.5, 0.7


def stroke_prompts(
    inside: Mask2D, outside: Mask2D, count: int, rng: np.random.Generator
) -> tuple[list[PixelPrompts], list[bool]]:
    """`count` interactions; of each, True if it is a single click.

    Args:
        inside: (S, S) bool, strokes on the target.
        outside: (S, S) bool, strokes on anything else.
        count: Number of interactions.
        rng: Draws them.
    """
    if not inside.any():
        return [], []
    prompts, single = [], []
    for _ in range(count):
        draw = rng.random()
        if draw < CLICK:
            point = torch.from_numpy(users.inner_click(inside, rng))
            prompts.append(PixelPrompts(point, torch.ones(1, dtype=torch.long)))
        elif draw < CLICKS:
            prompts.append(_clicks(inside, outside, rng))
        else:
            prompts.append(_stroke(inside, outside, rng))
        single.append(draw < CLICK)
    return prompts, single


def _clicks(inside: Mask2D, outside: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """Two to four clicks on the target's strokes, up to two on others."""
    positive = [users.inner_click(inside, rng) for _ in range(int(rng.integers(2, 5)))]
    wanted = int(rng.integers(0, 3)) if outside.any() else 0
    negative = [users.inner_click(outside, rng) for _ in range(wanted)]
    labels = torch.tensor([1] * len(positive) + [0] * len(negative))
    return PixelPrompts(torch.from_numpy(np.concatenate(positive + negative)), labels)


def _stroke(inside: Mask2D, outside: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """A part of the target's strokes, half of the time with a part of the others."""
    drawn = [_part(inside, rng), np.zeros_like(outside)]
    if outside.any() and rng.random() < 0.5:
        drawn[1] = _part(outside, rng)
    return PixelPrompts(scribbles=torch.from_numpy(np.stack(drawn)).float())


def _part(strokes: Mask2D, rng: np.random.Generator) -> Mask2D:
    """What of some strokes lies within a square around one of their places."""
    x, y = users.inner_click(strokes, rng)[0]
    reach = strokes.shape[0] * rng.uniform(0.1, 0.4)
    rows, columns = np.ogrid[: strokes.shape[0], : strokes.shape[1]]
    near = (np.abs(rows + 0.5 - y) <= reach) & (np.abs(columns + 0.5 - x) <= reach)
    return strokes & near
