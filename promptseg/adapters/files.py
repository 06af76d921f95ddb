"""Adapter folders: finding, reading and writing them."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from promptseg.adapters.info import AdapterInfo, read_info, read_json
from promptseg.errors import AdapterError, PromptsegError
from promptseg.io.atomic import atomic_path
from promptseg.weights.assets import asset_dir
from promptseg.weights.registry import sha256_file

INFO, CONFIG = "promptseg.json", "adapter_config.json"
LORA, HEADS, VIEW = "adapter_model.safetensors", "heads.safetensors", "coarse.safetensors"
MAX_BYTES = {LORA: 512 << 20, HEADS: 4 << 30, VIEW: 64 << 20}
PREFIX = "base_model.model."
TOKEN, DELTA, PROJECTION = "token.", "delta.", "text.weight"
# Options of peft under which the same tensors would mean something else.
PLAIN_OPTIONS: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "layer_replication": (None,),
    "target_parameters": (None, []),
}


@dataclass(frozen=True, eq=False)
class Adapter:
    """Weights of an adapter and what they are.

    Args:
        name: What it is called once it is loaded.
        info: promptseg.json.
        lora: Low-rank matrices by peft's names, `base_model.model.<layer>.lora_A.weight`.
        tokens: (C,) token by label.
        deltas: What to add to a parameter of the base, by the parameter's name.
        projection: (C, D) from embeddings of words to tokens, None where words were not learned.
        folder: Where it was read from.
        view: Parameters of the coarse 3D view by name, where it was taught too.
    """

    name: str
    info: AdapterInfo
    lora: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[int, Tensor] = field(default_factory=dict)
    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    folder: Path | None = None
    projection: Tensor | None = None
    view: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """Names of the base's layers with low-rank matrices, in order."""
        return sorted({layer_of(name) for name in self.lora})

    def token(self, label: int, shift: Tensor | None = None) -> Tensor:
        """(C,) token of a label.

        Args:
            label: One that has a token.
            shift: (D,) embedding of the words that name it less that of its name; None for the
                name itself, and without effect where words were not learned.
        """
        plain = self.tokens[label]
        if shift is None or self.projection is None:
            return plain
        return plain + self.projection.to(plain) @ shift.to(plain)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all weights and the scale they are applied with."""
        scale = (self.info.method, self.info.rank, self.info.alpha, self.info.rslora)
        view = save(_halved(self.view)) if self.view else b""
        return hashlib.sha256(
            save(dict(self.lora)) + save(_heads(self)) + repr(scale).encode() + view
        ).hexdigest()


def layer_of(name: str) -> str:
    """Layer of the base that a tensor of peft belongs to."""
    return name.removeprefix(PREFIX).rsplit(".lora_", 1)[0]


def adapter_dirs() -> list[Path]:
    """Folders searched for names: $PROMPTSEG_ADAPTERS, then those that ship with the package."""
    named = os.environ.get("PROMPTSEG_ADAPTERS")
    return [*([Path(named).expanduser()] if named else []), asset_dir("adapters")]


def list_adapters() -> dict[str, Path]:
    """Folder by name of every adapter that can be loaded by name."""
    found: dict[str, Path] = {}
    for root in adapter_dirs():
        for file in sorted(root.glob(f"*/{INFO}")):
            found.setdefault(file.parent.name, file.parent)
    return found


def find_adapter(source: str | os.PathLike[str]) -> Path:
    """Folder of an adapter given by name or folder.

    Raises:
        AdapterError: There is none; names the near matches.
    """
    known = list_adapters()
    if str(source) in known:
        return known[str(source)]
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    near = difflib.get_close_matches(str(source), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    names = ", ".join(known) or "none is installed"
    raise AdapterError(f"no adapter or folder named {str(source)!r}.{hint} Known names: {names}")


def adapter_digest(source: str | os.PathLike[str]) -> str | None:
    """SHA-256 of an adapter's promptseg.json, which vouches for its other files; None without."""
    try:
        return sha256_file(find_adapter(source) / INFO)
    except PromptsegError:
        return None


def read_adapter(source: str | os.PathLike[str]) -> Adapter:
    """Read an adapter whole and check that its files agree with each other.

    Args:
        source: Name or folder.

    Raises:
        AdapterError: There is none, a file is missing, too large, corrupt or of another
            version, or rank and layers contradict.
    """
    folder = find_adapter(source)
    info = read_info(folder / INFO)
    heads = read_tensors(folder / HEADS, info) if (folder / HEADS).is_file() else {}
    lora = read_tensors(folder / LORA, info) if info.method != "none" else {}
    if info.method != "none":
        _check_config(folder / CONFIG, info, lora)
    projection = heads.pop(PROJECTION, None)
    odd = [name for name in heads if not name.startswith((TOKEN, DELTA))]
    if odd:
        raise AdapterError(f"{folder / HEADS} holds {odd[0]!r}: expected token.* and delta.*")
    tokens = {n.removeprefix(TOKEN): t.float() for n, t in heads.items() if n.startswith(TOKEN)}
    if not set(tokens) <= {str(label) for label in info.labels}:
        raise AdapterError(
            f"{folder / HEADS} has tokens for labels {sorted(tokens)}, {INFO} names "
            f"{sorted(info.labels)}"
        )
    deltas = {n.removeprefix(DELTA): t.float() for n, t in heads.items() if n.startswith(DELTA)}
    by_label = {int(label): token for label, token in tokens.items()}
    projection = None if projection is None else projection.float()
    view = read_tensors(folder / VIEW, info) if info.coarse_sha256 else {}
    view = {name: tensor.float() for name, tensor in view.items()}
    return Adapter(folder.resolve().name, info, lora, by_label, deltas, folder, projection, view)


def read_tensors(path: Path, info: AdapterInfo) -> dict[str, Tensor]:
    """Tensors of one safetensors file, within the size allowed and with the digest recorded.

    Raises:
        AdapterError: It is missing, too large, not the recorded file, corrupt or not finite.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES[path.name]:
            raise AdapterError(f"{path} has {size} bytes, more than {MAX_BYTES[path.name]} allowed")
        content = path.read_bytes()
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror or error}") from error
    expected = info.files.get(path.name)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise AdapterError(
            f"{path} is not the file that {INFO} was written with: copy the whole folder again"
        )
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise AdapterError(f"{path} is not a whole safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise AdapterError(f"{path}: {name} holds values that are no finite numbers")
    return tensors


def _check_config(path: Path, info: AdapterInfo, lora: Mapping[str, Tensor]) -> None:
    config = read_json(path)
    for option, allowed in PLAIN_OPTIONS.items():
        if option in config and config[option] not in allowed:
            raise AdapterError(f"{path}: {option} is {config[option]!r}, which is not supported")
    for option, expected in lora_options(info).items():
        if config.get(option) != expected:
            raise AdapterError(
                f"{path}: {option} is {config.get(option)!r}, {INFO} says {expected!r}"
            )
    layers = sorted({layer_of(name) for name in lora})
    targets = config.get("target_modules")
    if not isinstance(targets, list) or sorted(targets) != layers:
        raise AdapterError(f"{path}: target_modules are not the layers in {LORA}")


def lora_options(info: AdapterInfo) -> dict[str, Any]:
    """Options of `peft.LoraConfig` that decide what the tensors mean."""
    return {
        "r": info.rank,
        "lora_alpha": info.alpha,
        "use_dora": info.method == "dora",
        "use_rslora": info.rslora,
    }


def write_adapter(adapter: Adapter, folder: str | os.PathLike[str]) -> Adapter:
    """Write an adapter folder; promptseg.json comes last and vouches for the others.

    Tokens and matrices are kept in float32, the differences to the base and what is of the
    coarse 3D view in float16.

    Args:
        adapter: What to write; nothing of it changes.
        folder: Made if it does not exist.

    Returns:
        The adapter as it will be read again.

    Raises:
        AdapterError: The folder cannot be written; an adapter that was there still is.
    """
    folder = Path(folder)
    contents = {HEADS: save(_heads(adapter))}
    if adapter.lora:
        contents[LORA] = save(
            {n: t.contiguous() for n, t in adapter.lora.items()}, {"format": "pt"}
        )
        contents[CONFIG] = _config(adapter).encode()
    if adapter.view:
        contents[VIEW] = save(_halved(adapter.view), {"format": "pt"})
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    info = replace(adapter.info, files=digests)
    try:
        _write_all(folder, {**contents, INFO: info.to_json().encode()})
    except OSError as error:
        raise AdapterError(
            f"the adapter cannot be written to {folder}: {error.strerror or error}"
        ) from error
    return read_adapter(folder)


def _write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """All files beside their places first, so that a full disk is met before any is replaced."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        # An exit stack leaves in reverse: the last file named is renamed first.
        for name, data in reversed(list(contents.items())):
            stack.enter_context(atomic_path(folder / name)).write_bytes(data)


def _halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half().contiguous() for name, tensor in tensors.items()}


def _heads(adapter: Adapter) -> dict[str, Tensor]:
    tokens = {f"{TOKEN}{label}": t.float().contiguous() for label, t in adapter.tokens.items()}
    deltas = {f"{DELTA}{name}": t.half().contiguous() for name, t in adapter.deltas.items()}
    if adapter.projection is None:
        return {**tokens, **deltas}
    return {**tokens, **deltas, PROJECTION: adapter.projection.float().contiguous()}


def _config(adapter: Adapter) -> str:
    from peft import LoraConfig

    config = LoraConfig(
        target_modules=adapter.layers,
        inference_mode=True,
        base_model_name_or_path=adapter.info.backbone,
        **lora_options(adapter.info),
    ).to_dict()
    config["target_modules"] = adapter.layers
    return json.dumps(config, indent=2, sort_keys=True, default=_listed) + "\n"


def _listed(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(getattr(value, "value", value))
