"""Digests of tensors: weights that came from no file have one too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Sha256 of names, types, shapes and values."""
    state = hashlib.sha256()
    for name, tensor in tensors.items():
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        state.update(values.view(torch.uint8).numpy().data)
    return state.hexdigest()
