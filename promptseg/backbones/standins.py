"""Checkpoints of random weights in the original layouts, where the real files cannot be had.

They have every name and shape that a loader looks at, so they show and test how a file is read
and what a network costs. What they segment means nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from promptseg.backbones.layout import SamShape
from promptseg.backbones.segment_anything import build_sam
from promptseg.io.atomic import atomic_path

SMALL_SAM = SamShape(
    image_size=256,
    patch_size=16,
    width=192,
    depth=4,
    heads=4,
    hidden=768,
    qkv_bias=True,
    window=7,
    global_blocks=(1, 3),
    channels=64,
    mask_channels=16,
    decoder_depth=2,
    decoder_hidden=256,
    decoder_downsample=2,
    masks=3,
    quality_depth=3,
    quality_hidden=64,
)
"""A SAM of two million weights; ViT-B has ninety."""

_HEAD = re.compile(r"(_mlps\.\d+|_head)\.(proj_in|layers\.\d+|proj_out)\.")
_HEAD_LAYERS = {"proj_in": "layers.0", "layers.0": "layers.1", "proj_out": "layers.2"}
_SAM2_NAMES = (
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.mlp\.proj_in\.", ".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", ".mlp.layers.1."),
    (r"_attn(\w*)\.o_proj\.", r"_attn\1.out_proj."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
)


def random_sam(
    path: str | os.PathLike[str], shape: SamShape = SMALL_SAM, seed: int = 0, scale: float = 0.1
) -> Path:
    """Write a SAM (or MedSAM, which has the same layout) of random weights as a `.pth` file.

    Args:
        path: File to write.
        shape: Architecture.
        seed: Decides the weights.
        scale: Standard deviation of the weights.

    Returns:
        The path.
    """
    module = build_sam(shape, shape.image_size)
    return _save(_random(module, seed, scale), path)


def random_sam2(path: str | os.PathLike[str], seed: int = 0, scale: float = 0.05) -> Path:
    """Write the still-image part of a SAM 2.1 tiny of random weights as the original `.pt` file.

    The published sizes are the only ones that can be told from a file; this is the smallest,
    in half precision about 70 MB.

    Args:
        path: File to write.
        seed: Decides the weights.
        scale: Standard deviation of the weights.

    Returns:
        The path.
    """
    module = transformers.Sam2Model(transformers.Sam2Config())
    state = original_sam2(_random(module, seed, scale))
    half = {name: tensor.half() for name, tensor in state.items()}
    return _save({"model": half}, path)


def original_sam2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of transformers' `Sam2Model` in the original names; undoes `sam2_state`."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == "prompt_encoder.point_embed.weight":
            for kind, row in enumerate(tensor):
                renamed[f"sam_prompt_encoder.point_embeddings.{kind}.weight"] = row[None]
        elif name == "shared_image_embedding.positional_embedding":
            key = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
            renamed[key] = tensor
        elif name != "prompt_encoder.shared_embedding.positional_embedding":
            renamed[_original_name(name)] = tensor
    return renamed


def _original_name(name: str) -> str:
    name = _HEAD.sub(lambda found: f"{found[1]}.{_HEAD_LAYERS[found[2]]}.", name)
    for pattern, replacement in _SAM2_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _random(module: nn.Module, seed: int, scale: float) -> dict[str, Tensor]:
    """State dict with normal weights, and ones added where a layer normalises."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: scale * torch.randn(tensor.shape, generator=generator) + _offset(name)
        for name, tensor in module.state_dict().items()
    }


def _offset(name: str) -> float:
    return 1.0 if "norm" in name and name.endswith("weight") else 0.0


def _save(state: object, path: str | os.PathLike[str]) -> Path:
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
    return Path(path)
