"""Prompts drawn as maps, the form in which the default network takes them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from promptseg.backbones.base import PromptBatch

CLICK_SIGMA = 1.5
POSITIVE, NEGATIVE, BOX, HAS_BOX, MASK, HAS_MASK, HAS_CLICK = range(7)


def prompt_maps(prompts: PromptBatch, input_size: int) -> Tensor:
    """Draw B prompts at half the input's resolution.

    Channels: foreground clicks and strokes, background clicks and strokes, the inside of the
    box, 1 where a box is given, the mask as tanh(logits / 4), 1 where a mask is given, 1 where a
    click or stroke is given.

    Args:
        prompts: Prompts in pixels of the input.
        input_size: Side of the input, even.

    Returns:
        (B, 7, input_size / 2, input_size / 2) float32.
    """
    side = input_size // 2
    maps = torch.zeros(len(prompts), 7, side, side, device=prompts.points.device)
    maps[:, POSITIVE] = click_map(prompts.points / 2, prompts.labels == 1, side)
    maps[:, NEGATIVE] = click_map(prompts.points / 2, prompts.labels == 0, side)
    if prompts.scribbles is not None:
        strokes = functional.max_pool2d(prompts.scribbles.float(), 2)
        maps[:, : NEGATIVE + 1] = torch.maximum(maps[:, : NEGATIVE + 1], strokes)
    maps[:, BOX] = box_map(prompts.boxes / 2, side)
    maps[:, HAS_BOX] = prompts.has_box.float()[:, None, None]
    masks = functional.interpolate(
        prompts.masks.float(), (side, side), mode="bilinear", align_corners=False
    )
    maps[:, MASK] = torch.tanh(masks[:, 0] / 4) * prompts.has_mask.float()[:, None, None]
    maps[:, HAS_MASK] = prompts.has_mask.float()[:, None, None]
    drawn = maps[:, : NEGATIVE + 1].amax(dim=(1, 2, 3)) > 0
    maps[:, HAS_CLICK] = drawn.float()[:, None, None]
    return maps


def named_maps(maps: Tensor, coarse: Tensor, concept: Tensor) -> Tensor:
    """The same maps with a mask from what a name looks like, in rows that have none.

    Args:
        maps: (B, 7, m, m) from `prompt_maps`.
        coarse: (B, C, h, w) coarsest map of the image.
        concept: (B, C) token of each row's target.

    Returns:
        (B, 7, m, m) float32.
    """
    likeness = concept_scores(coarse, concept[:, None])
    mask = functional.interpolate(likeness, maps.shape[-2:], mode="bilinear", align_corners=False)
    given = maps[:, HAS_MASK : HAS_MASK + 1]
    named = torch.tanh(mask / 4) * (1 - given) + maps[:, MASK : MASK + 1]
    return torch.cat([maps[:, :MASK], named, torch.ones_like(given), maps[:, HAS_CLICK:]], 1)


def concept_scores(coarse: Tensor, concepts: Tensor) -> Tensor:
    """Logits of every place for every token: (B, C, h, w), (B, L, C) -> (B, L, h, w) float32."""
    scale = concepts.shape[-1] ** -0.5
    with torch.autocast(coarse.device.type, enabled=False):
        return torch.einsum("bchw,blc->blhw", coarse.float(), concepts.float()) * scale


def click_map(points: Tensor, chosen: Tensor, side: int) -> Tensor:
    """Greatest Gaussian over the chosen points: (B, N, 2), (B, N) -> (B, side, side)."""
    if points.shape[1] == 0:
        return torch.zeros(len(points), side, side, device=points.device)
    centres = torch.arange(side, device=points.device) + 0.5
    falls = torch.exp(-((centres - points[..., None]) ** 2) / (2 * CLICK_SIGMA**2))
    bumps = falls[:, :, 1, :, None] * falls[:, :, 0, None, :]
    return (bumps * chosen[:, :, None, None]).amax(dim=1)


def box_map(boxes: Tensor, side: int) -> Tensor:
    """Share of each pixel inside the box, 0 where there is none: (B, 4) -> (B, side, side)."""
    low = torch.arange(side, device=boxes.device)
    filled = torch.nan_to_num(boxes, nan=-1.0)

    def cover(start: Tensor, stop: Tensor) -> Tensor:
        overlap = torch.minimum(stop[:, None], low + 1) - torch.maximum(start[:, None], low)
        return overlap.clamp(0, 1)

    across = cover(filled[:, 0], filled[:, 2])
    down = cover(filled[:, 1], filled[:, 3])
    return down[:, :, None] * across[:, None, :]
