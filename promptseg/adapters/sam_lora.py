"""LoRA weights of the older SAM scripts: `w_a_NNN` and `w_b_NNN`, per block q, then v.

There the output of a block's fused `qkv` layer is changed as

    q += w_b_q(w_a_q(x));  v += w_b_v(w_a_v(x))

with w_a (r, width) and w_b (width, r) and no further scale. One LoRA of rank 2r on `qkv` says
the same: A stacks the two w_a, B is block-diagonal with zero rows for k.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from promptseg.adapters.files import LORA, MAX_BYTES, PREFIX, Adapter
from promptseg.adapters.info import AdapterInfo
from promptseg.adapters.stack import base_digest
from promptseg.backbones.base import Backbone
from promptseg.errors import AdapterError

BLOCKS = {"segment-anything": "image_encoder.blocks", "sam": "vision_encoder.layers"}


def read_sam_lora(
    path: str | os.PathLike[str], backbone: Backbone, organ: str = "anything"
) -> Adapter:
    """Import such a file as an adapter of a SAM with a plain ViT encoder.

    Args:
        path: `.safetensors` with two pairs of matrices for every block of the encoder.
        backbone: SAM or MedSAM, through segment-anything or transformers, without adapters.
        organ: What the adapter is for.

    Raises:
        AdapterError: The file or the backbone is of another kind, or their sizes differ.
    """
    path, spec = Path(path), backbone.spec
    if spec.family not in BLOCKS:
        raise AdapterError(f"{path}: LoRA of this layout is for SAM, {spec.name} is {spec.family}")
    layers = dict(backbone.module.named_modules())
    root = BLOCKS[spec.family]
    names = [f"{root}.{n}.attn.qkv" for n in range(len(list(layers[root].children())))]
    pairs = _pairs(path, len(names))
    rank = pairs[0][0].shape[0]
    lora: dict[str, Tensor] = {}
    for n, name in enumerate(names):
        a, b = fused(pairs[2 * n], pairs[2 * n + 1])
        lora |= {f"{PREFIX}{name}.lora_A.weight": a, f"{PREFIX}{name}.lora_B.weight": b}
    info = AdapterInfo(
        organ=organ,
        labels={1: organ},
        backbone=spec.name,
        family=spec.family,
        base_sha256=base_digest(backbone),
        rank=2 * rank,
        alpha=2.0 * rank,
        decoder="frozen",
    )
    return Adapter(path.stem, info, lora)


def fused(q: tuple[Tensor, Tensor], v: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A (2r, width) and B (3 width, 2r) of `qkv` from the pairs (w_a, w_b) of q and v."""
    rank, width = q[0].shape
    b = torch.zeros(3 * width, 2 * rank)
    b[:width, :rank] = q[1]
    b[2 * width :, rank:] = v[1]
    return torch.cat([q[0], v[0]]).float(), b


def _pairs(path: Path, blocks: int) -> list[tuple[Tensor, Tensor]]:
    try:
        if path.stat().st_size > MAX_BYTES[LORA]:
            raise AdapterError(f"{path} has {path.stat().st_size} bytes: too large for LoRA")
        tensors = load(path.read_bytes())
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise AdapterError(f"{path} is not a whole safetensors file: {error}") from error
    count = 2 * blocks
    wanted = {f"w_{side}_{n:03d}" for side in "ab" for n in range(count)}
    if set(tensors) != wanted:
        odd = sorted(wanted ^ set(tensors))[0]
        raise AdapterError(
            f"{path} does not fit a SAM of {blocks} blocks: {odd} is "
            f"{'missing' if odd in wanted else 'too many'}"
        )
    pairs = [(tensors[f"w_a_{n:03d}"], tensors[f"w_b_{n:03d}"]) for n in range(count)]
    shape = pairs[0][0].shape
    for n, (a, b) in enumerate(pairs):
        if a.ndim != 2 or a.shape != shape or b.shape != shape[::-1]:
            raise AdapterError(f"{path}: w_a_{n:03d} and w_b_{n:03d} have shapes "
                               f"{tuple(a.shape)} and {tuple(b.shape)}")  # fmt: skip
    return pairs
