"""Dropout in front of an adapter's matrices while answering, for as long as a block runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from promptseg.adapters.injection import lora_layers
from promptseg.errors import PromptsegError


@contextmanager
def adapter_dropout(module: nn.Module, rate: float, seed: int) -> Iterator[None]:
    """Drop inputs of every LoRA layer at random within the block; then all is as before.

    Monte-Carlo dropout (Gal and Ghahramani, Dropout as a Bayesian Approximation, ICML 2016) of
    the adapter alone. Neither weights nor modes nor the caller's random numbers change.

    Args:
        module: Network with LoRA layers.
        rate: Share of the inputs that are dropped.
        seed: Decides which.

    Raises:
        PromptsegError: The rate is not in (0, 1).
    """
    if not 0 < rate < 1:
        raise PromptsegError(f"dropout rate is {rate}: give a number between 0 and 1")
    held = [(layer, dict(layer.lora_dropout.items())) for _, layer in lora_layers(module)]
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.is_cuda})
    try:
        for layer, slots in held:
            for slot in slots:
                layer.lora_dropout[slot] = nn.Dropout(rate).train()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        for layer, slots in held:
            for slot, kept in slots.items():
                layer.lora_dropout[slot] = kept
