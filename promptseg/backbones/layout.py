"""Recognising a checkpoint by the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from promptseg.errors import WeightsError

Layout = Literal["promptseg", "sam", "sam2", "mobile_sam", "sam_hq", "transformers", "unknown"]

# Shapes do not tell the heads of the mask decoder; every published SAM has eight.
DECODER_HEADS = 8


def layout_of(state: Mapping[str, Tensor]) -> Layout:
    """Whose names a state dict uses."""
    if "mask_decoder.concept.weight" in state:
        return "promptseg"
    if any(name.startswith("vision_encoder.") for name in state):
        return "transformers"
    if any(name.startswith("image_encoder.trunk.") for name in state):
        return "sam2"
    if any(
        name.startswith(("image_encoder.patch_embed.seq.", "image_encoder.layers."))
        for name in state
    ):
        return "mobile_sam"
    if "mask_decoder.hf_token.weight" in state:
        return "sam_hq"
    return "sam" if "image_encoder.patch_embed.proj.weight" in state else "unknown"


@dataclass(frozen=True)
class SamShape:
    """Architecture of a SAM with a plain ViT encoder.

    Args:
        image_size: Side of the input it was trained on, in pixels.
        patch_size: Side of a patch, in pixels.
        width: Channels of the encoder's blocks.
        depth: Number of the encoder's blocks.
        heads: Attention heads of a block.
        hidden: Hidden channels of a block's perceptron.
        qkv_bias: True if queries, keys and values have a bias.
        window: Side of the attention window in patches, of blocks that are not global.
        global_blocks: Blocks that attend over the whole image.
        channels: Channels of the embedding, of the prompts and of the mask decoder.
        mask_channels: Hidden channels of the mask prompt's convolutions.
        decoder_depth: Layers of the two-way transformer.
        decoder_hidden: Hidden channels of its perceptron.
        decoder_downsample: Factor by which its cross attention reduces the channels.
        masks: Candidate masks beside the single one.
        quality_depth: Layers of the quality head.
        quality_hidden: Its hidden channels.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    hidden: int
    qkv_bias: bool
    window: int
    global_blocks: tuple[int, ...]
    channels: int
    mask_channels: int
    decoder_depth: int
    decoder_hidden: int
    decoder_downsample: int
    masks: int
    quality_depth: int
    quality_hidden: int


def sam_shape(state: Mapping[str, Tensor], name: str) -> SamShape:
    """Read the architecture from a state dict in segment-anything's names.

    Args:
        state: State dict.
        name: Model named in the message.

    Raises:
        WeightsError: If a weight that tells it is missing, or the shapes contradict.
    """
    try:
        return _sam_shape(state)
    except KeyError as error:
        raise WeightsError(f"{name} is not a whole SAM checkpoint: {error} is missing") from error
    except ValueError as error:
        raise WeightsError(f"{name} is not a SAM that can be built: {error}") from error


def _sam_shape(state: Mapping[str, Tensor]) -> SamShape:
    width, _, patch, _ = state["image_encoder.patch_embed.proj.weight"].shape
    grid = state["image_encoder.pos_embed"].shape[1]
    depth = _count(state, r"image_encoder\.blocks\.(\d+)\.")
    window, global_blocks = _windows(state, depth, grid)
    block, layer = "image_encoder.blocks.0", "mask_decoder.transformer.layers.0"
    channels = state["image_encoder.neck.0.weight"].shape[0]
    narrow = state[f"{layer}.cross_attn_token_to_image.q_proj.weight"].shape[0]
    if narrow % DECODER_HEADS:
        raise ValueError(f"{narrow} attention channels do not divide by {DECODER_HEADS} heads")
    return SamShape(
        image_size=grid * patch,
        patch_size=patch,
        width=width,
        depth=depth,
        heads=width // state[f"{block}.attn.rel_pos_h"].shape[1],
        hidden=state[f"{block}.mlp.lin1.weight"].shape[0],
        qkv_bias=f"{block}.attn.qkv.bias" in state,
        window=window,
        global_blocks=global_blocks,
        channels=channels,
        mask_channels=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        decoder_depth=_count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        decoder_hidden=state[f"{layer}.mlp.lin1.weight"].shape[0],
        decoder_downsample=channels // narrow,
        masks=state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
        quality_depth=_count(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\."),
        quality_hidden=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    matches = (re.match(pattern, name) for name in state)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _windows(state: Mapping[str, Tensor], depth: int, grid: int) -> tuple[int, tuple[int, ...]]:
    """Window side and the global blocks, by the length 2 * side - 1 of the relative tables."""
    sides = [
        (len(state[f"image_encoder.blocks.{block}.attn.rel_pos_h"]) + 1) // 2
        for block in range(depth)
    ]
    windows = set(sides) - {grid}
    if len(windows) > 1:
        raise ValueError(f"its blocks have windows of {sorted(windows)} patches, not of one size")
    everywhere = tuple(block for block, side in enumerate(sides) if side == grid)
    return (windows.pop() if windows else 0), everywhere
