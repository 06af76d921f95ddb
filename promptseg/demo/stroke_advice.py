"""What strokes lack to be learned from, said when prompts are taken home as scribbles."""

from __future__ import annotations

import numpy as np

from promptseg.demo.corrections import slice_axis
from promptseg.demo.visit import Visit
from promptseg.finetune.strokes import BACKGROUND, drawn
from promptseg.prompts.types import PromptSet, Scribble
from promptseg.volume.slicing import in_plane

EDGE = 0.08
"""Of a side of the picture: what lies nearer to it is mostly air, and says nothing of a border."""


def stroke_advice(visit: Visit, prompts: PromptSet) -> list[str]:
    """Sentences on targets without a stroke, and on background that is not drawn or at the edge.

    Args:
        visit: Whose.
        prompts: That are taken home; without a stroke among them nobody means scribbles.
    """
    if not any(isinstance(prompt, Scribble) for prompt in prompts):
        return []
    labels = drawn(prompts, visit.opened())
    advice = []
    wanted = {prompt.target for prompt in prompts}
    bare = sorted(target for target in wanted if not (labels == target).any())
    if bare:
        names = ", ".join(visit.targets[t].name if t in visit.targets else str(t) for t in bare)
        advice.append(visit.say("no_stroke", names=names))
    background = np.argwhere(labels == BACKGROUND)
    if not len(background):
        advice.append(visit.say("no_background"))
    elif _at_the_edge(background, labels.shape, slice_axis(visit)):
        advice.append(visit.say("edge_background"))
    return advice


def _at_the_edge(places: np.ndarray, shape: tuple[int, ...], axis: int) -> bool:
    """True if every voxel is near a side of its slice."""
    sides = list(in_plane(axis))
    lengths = np.array(shape)[sides]
    near = np.minimum(places[:, sides], lengths - 1 - places[:, sides])
    return bool((near < EDGE * lengths).any(axis=1).all())
