"""LoRA layers in a network, through peft: putting them in, filling them, taking them out.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022; Liu et al., DoRA,
ICML 2024; Kalajdzievski, rsLoRA, 2023.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from promptseg.adapters.files import PREFIX

MAGNITUDE = "lora_magnitude_vector"


def inject(module: nn.Module, slot: str, layers: Sequence[str], options: Mapping[str, Any]) -> None:
    """Wrap layers of a network in LoRA layers; a layer that is wrapped gets one more slot.

    Args:
        module: Network, changed in place.
        slot: Name of the new matrices, without dots.
        layers: Names of linear layers or convolutions, as they are without any adapter.
        options: Of `peft.LoraConfig`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(target_modules=list(layers), **options)
    with warnings.catch_warnings():
        # peft warns of a second adapter, which is what is wanted.
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, module, slot)


def lora_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and layer of every LoRA layer."""
    from peft.tuners.lora import LoraLayer

    for name, layer in module.named_modules():
        if isinstance(layer, LoraLayer):
            yield name, layer


def lora_parameters(module: nn.Module, slot: str) -> dict[str, nn.Parameter]:
    """Parameters of one slot by the names that peft gives them in a file."""
    found = {}
    for name, parameter in module.named_parameters():
        parts = name.split(".")
        if slot not in parts or not any(part.startswith("lora_") for part in parts):
            continue
        parts.remove(slot)
        key = ".".join(parts)
        found[PREFIX + (key.removesuffix(".weight") if MAGNITUDE in key else key)] = parameter
    return found


def fill(module: nn.Module, slot: str, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a file into one slot."""
    places = lora_parameters(module, slot)
    with torch.no_grad():
        for name, tensor in tensors.items():
            places[name].copy_(tensor)


def switch(module: nn.Module, slot: str | None, scale: float = 1.0) -> None:
    """Let the layers use one slot, times `scale`; None turns all of them off."""
    for _, layer in lora_layers(module):
        layer.enable_adapters(slot is not None)
        if slot is not None:
            layer.set_adapter(slot)
            layer.set_scale(slot, scale)
        layer.requires_grad_(False)


def drop(module: nn.Module, slot: str) -> None:
    """Take one slot out; a layer without any is unwrapped."""
    for name, layer in list(lora_layers(module)):
        if slot in layer.lora_A:
            layer.delete_adapter(slot)
        if not layer.lora_A:
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, layer.get_base_layer())
    held: Any = module
    held.peft_config.pop(slot, None)
    if not held.peft_config:
        del held.peft_config


def plain_state(module: nn.Module, slot: str | None) -> dict[str, Tensor]:
    """State dict under the names without adapters, the matrices of `slot` merged into it."""
    state = {
        name.replace(".base_layer.", "."): tensor.detach().clone()
        for name, tensor in module.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in lora_layers(module):
        if slot is not None and slot in layer.lora_A:
            merged = copy.deepcopy(layer)
            merged.merge(safe_merge=True, adapter_names=[slot])
            state[f"{name}.weight"] = merged.get_base_layer().weight.detach().clone()
    return state
