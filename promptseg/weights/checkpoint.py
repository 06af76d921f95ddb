"""Reading checkpoints without running anything that is in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = (".pth", ".pt", ".bin", ".ckpt")
NESTS = ("model", "state_dict", "model_state_dict")
WRAPPER = "module."
SOURCE = "source_sha256"


def load_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, on the CPU.

    `.safetensors` is read as such; `.pth`, `.pt`, `.bin` and `.ckpt` with PyTorch's
    restricted unpickler (`weights_only=True`), so that code in the file never runs. A state
    dict nested under `model` or `state_dict` is unwrapped, as is the `module.` prefix that
    parallel training leaves.

    Raises:
        WeightsError: If the file is missing, truncated, corrupt, or holds anything but
            tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}: check the path")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty (0 bytes): fetch the checkpoint again")
    if path.suffix == ".safetensors":
        return _without_wrapper(_read_safetensors(path))
    if path.suffix not in PICKLED:
        raise WeightsError(
            f"{path} is not a checkpoint that can be read: expected .safetensors or one of "
            f"{', '.join(PICKLED)}"
        )
    return _without_wrapper(_unwrap(_read_pickled(path), path))


def convert(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Rewrite a checkpoint as safetensors, names and values unchanged.

    The digest of the checkpoint is kept in the metadata, so that a converted file is still
    known as the registry's entry it came from.

    Args:
        path: Checkpoint to read.
        out: File to write; ends in `.safetensors`.

    Raises:
        WeightsError: If the checkpoint cannot be read or `out` has another ending.
    """
    from safetensors.torch import save_file

    from promptseg.io.atomic import atomic_path

    target = Path(out)
    if target.suffix != ".safetensors":
        raise WeightsError(f"cannot write {target}: the name must end in .safetensors")
    metadata = {"format": "pt", SOURCE: converted_from(Path(path)) or sha256_file(path)}
    state = {name: tensor.clone().contiguous() for name, tensor in load_state(path).items()}
    try:
        with atomic_path(target) as temporary:
            save_file(state, temporary, metadata)
    except OSError as error:
        raise WeightsError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def converted_from(path: Path) -> str | None:
    """Digest of the checkpoint that `convert` made the file from, None for any other file."""
    if path.suffix != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(SOURCE)
    except (SafetensorError, OSError):
        return None


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks.

    Raises:
        WeightsError: If the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file ({_first_line(error)}): fetch it again"
        ) from error


def _read_pickled(path: Path) -> Any:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: it is corrupt, or holds Python objects that could run code. "
            "Only tensors are read; save the model's state_dict() and try again"
        ) from error
    except Exception as error:  # a damaged archive fails in as many ways as there are readers
        raise WeightsError(
            f"{path} is corrupt or truncated ({_first_line(error)}): fetch it again"
        ) from error


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    for nest in NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(nest), Mapping):
            content = content[nest]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no state dict: found {type(content).__name__}")
    odd = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise WeightsError(f"{path} holds values that are not tensors: {', '.join(odd[:3])}")
    return {str(name): value for name, value in content.items()}


def _without_wrapper(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if not all(name.startswith(WRAPPER) for name in state):
        return state
    return {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(" .:")[:200]
