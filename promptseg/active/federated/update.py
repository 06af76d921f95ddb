"""What travels between sites: the tensors of an adapter as one safetensors file, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from promptseg.adapters import Adapter
from promptseg.errors import AdapterError

LORA, TOKEN, DELTA, WORDS = "lora ", "token ", "delta ", "words"
MAX_BYTES = 256 << 20
Update = dict[str, Tensor]


def update_of(adapter: Adapter) -> Update:
    """Every tensor of an adapter in float32, by a name that says what it is."""
    tensors = {f"{LORA}{name}": value for name, value in adapter.lora.items()}
    tensors |= {f"{TOKEN}{label}": value for label, value in adapter.tokens.items()}
    tensors |= {f"{DELTA}{name}": value for name, value in adapter.deltas.items()}
    if adapter.projection is not None:
        tensors[WORDS] = adapter.projection
    return {name: value.detach().cpu().float().contiguous() for name, value in tensors.items()}


def with_update(adapter: Adapter, update: Mapping[str, Tensor]) -> Adapter:
    """The same adapter with other values."""
    part = {name: {k.removeprefix(name): v for k, v in update.items() if k.startswith(name)}
            for name in (LORA, TOKEN, DELTA)}  # fmt: skip
    tokens = {int(label): value for label, value in part[TOKEN].items()}
    return replace(
        adapter,
        lora=part[LORA],
        tokens=tokens,
        deltas=part[DELTA],
        projection=update.get(WORDS),
        folder=None,
    )


def pack(update: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file."""
    return save({name: value.contiguous() for name, value in update.items()}, {"format": "pt"})


def unpack(content: bytes) -> Update:
    """Tensors of a site's file; nothing in it can run.

    Raises:
        AdapterError: It is too large or not whole.
    """
    if len(content) > MAX_BYTES:
        raise AdapterError(f"an update has {len(content)} bytes, more than {MAX_BYTES} allowed")
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise AdapterError(f"an update is no whole safetensors file: {error}") from error


def check_update(
    update: Mapping[str, Tensor], known: Mapping[str, Tensor], max_norm: float | None = None
) -> None:
    """Raise AdapterError unless a site's update may be averaged.

    Args:
        update: From the site.
        known: What the site began with.
        max_norm: Greatest L2 norm of the difference; None allows any.

    Raises:
        AdapterError: Names, shapes or types differ, a value is not finite, or it moved too far.
    """
    odd = sorted(set(update) ^ set(known))
    if odd:
        raise AdapterError(f"the update and the adapter differ in {odd[0]!r}")
    for name, value in update.items():
        if tuple(value.shape) != tuple(known[name].shape):
            raise AdapterError(
                f"{name} has shape {tuple(value.shape)}, expected {tuple(known[name].shape)}"
            )
        if value.dtype != known[name].dtype:
            raise AdapterError(f"{name} is {value.dtype}, expected {known[name].dtype}")
        if not bool(torch.isfinite(value).all()):
            raise AdapterError(f"{name} holds values that are not finite")
    moved = distance(update, known)
    if max_norm is not None and moved > max_norm:
        raise AdapterError(f"the update moved by {moved:.3g}, more than {max_norm:.3g} allowed")


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """L2 norm of the difference of two updates of the same names."""
    parts = [(one[name].double() - other[name].double()).square().sum() for name in one]
    return float(torch.stack(parts).sum().sqrt()) if parts else 0.0
