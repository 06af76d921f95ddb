"""Prompts of a file where a network sees them: on axes in another order or turned round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np

from promptseg.prompts.types import Box, Mask, Point, Prompt, PromptSet, Scribble
from promptseg.prompts.validation import whole
from promptseg.volume.orientation import Orientation

One = TypeVar("One", bound=Prompt)


def reordered(prompts: PromptSet, orientation: Orientation, shape: Sequence[int]) -> PromptSet:
    """Resolved prompts as the network sees them.

    Args:
        prompts: In voxels of the file and checked.
        orientation: From the file to the network.
        shape: (I, J, K) of the file.
    """
    if orientation.plain:
        return prompts
    return PromptSet(reordered_prompt(prompt, orientation, shape) for prompt in prompts)


def reordered_prompt(prompt: One, orientation: Orientation, shape: Sequence[int]) -> One:
    """The same of one resolved prompt; words stay as they are."""
    if isinstance(prompt, Point):
        i, j, k = orientation.places(np.array(prompt.at), shape).tolist()
        return replace(prompt, at=(i, j, k))
    if isinstance(prompt, Box):
        ends = orientation.places(np.array([prompt.lo, prompt.hi]), shape, last=0)
        return replace(prompt, lo=whole(ends.min(0)), hi=whole(ends.max(0)))
    if isinstance(prompt, Scribble):
        return replace(prompt, voxels=orientation.places(prompt.voxels, shape))
    if isinstance(prompt, Mask):
        return cast(One, _mask(prompt, orientation, shape))
    return prompt


def _mask(mask: Mask, orientation: Orientation, shape: Sequence[int]) -> Mask:
    if mask.axis is None or mask.index is None:
        return replace(mask, data=orientation.apply(mask.data))
    data = orientation.apply(np.expand_dims(mask.data, mask.axis))
    axis = orientation.axis(mask.axis)
    index = orientation.index(mask.axis, mask.index, shape)
    return replace(mask, data=np.take(data, 0, axis), axis=axis, index=index)
