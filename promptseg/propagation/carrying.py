"""What travels from slice to slice: a neighbour's mask, the box around it, or a memory."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from promptseg.backbones.base import Backbone, BackboneSpec, Propagates
from promptseg.volume.slicing import Frame

Shown = Literal["mask", "box"]
# Set by hand before there was a development set.
CARRIED_MM = 3.0
CARRIED_MOST = 5


def carried_by(backbone: Backbone) -> Propagates:
    """What the engine carries from slice to slice: a memory where the network has one."""
    return backbone.spec.propagates


def shown_as(spec: BackboneSpec) -> Shown:
    """What a network understands of its neighbour's mask: ours the mask, others its box."""
    return "mask" if spec.propagates == "mask" else "box"


def lag_of(frame: Frame) -> int:
    """How many slices back the handed-on mask is taken from.

    On thin slices a mask barely differs from its neighbour's, and handing it on at every slice
    adds up small errors and hides where the target ends.
    """
    return max(1, min(CARRIED_MOST, round(CARRIED_MM / frame.spacing[frame.axis])))


def box_of(logits: Tensor, size: int, grow: float = 0.03) -> Tensor:
    """(4,) box around a mask in pixels of the input, grown by a share of its sides."""
    inside = torch.nonzero(logits > 0).float()
    scale = size / logits.shape[-1]
    low, high = inside.min(0).values * scale, (inside.max(0).values + 1) * scale
    extra = (high - low) * grow
    corners = torch.cat([(low - extra).flip(0), (high + extra).flip(0)])
    return corners.clamp(0, size)
