"""Training in less memory: blocks computed twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from promptseg.errors import AdapterError


def transformer_blocks(module: nn.Module) -> list[nn.Module]:
    """Blocks with an attention and a perceptron, in the image encoder of any SAM."""
    return [
        layer
        for layer in module.modules()
        if isinstance(getattr(layer, "attn", None), nn.Module)
        and isinstance(getattr(layer, "mlp", None), nn.Module)
    ]


@contextmanager
def checkpointed(module: nn.Module, active: bool = True) -> Iterator[None]:
    """Keep only the inputs of transformer blocks and compute the blocks again going back.

    Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016.

    Raises:
        AdapterError: The network has no such blocks.
    """
    blocks: list[Any] = transformer_blocks(module) if active else []
    if active and not blocks:
        raise AdapterError("checkpointing: this network has no transformer blocks; turn it off")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
