"""An adapter melted into its base: a plain checkpoint that any tool can load."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from promptseg.adapters.stack import AdapterStack
from promptseg.backbones.base import Backbone
from promptseg.errors import AdapterError
from promptseg.io.atomic import atomic_path


def save_merged(stack: AdapterStack, out: str | os.PathLike[str]) -> Path:
    """Write base plus active adapter.

    The default network and SAM's original layout become one `.safetensors` file, models of
    transformers a folder of `save_pretrained`. Tokens stay with the adapter: the checkpoint
    answers prompts, not the lack of them.

    Args:
        stack: With an active adapter.
        out: File or folder to write.

    Raises:
        AdapterError: No adapter is active, or `out` has the wrong ending or cannot be written.
    """
    if stack.active is None:
        raise AdapterError("no adapter is active: nothing to merge")
    target, spec = Path(out), stack.backbone.spec
    single = spec.stored_as != "folder"
    if single and target.suffix != ".safetensors":
        raise AdapterError(f"cannot write {target}: the name must end in .safetensors")
    if not single and target.exists():
        raise AdapterError(f"cannot write {target}: a {spec.family} model is a new folder")
    state = stack.merged_state()
    try:
        if single:
            _write_file(stack, state, target)
        else:
            _write_folder(stack.backbone, state, target)
    except OSError as error:
        raise AdapterError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _write_file(stack: AdapterStack, state: dict[str, Tensor], target: Path) -> None:
    adapter = stack.active
    about = {"adapter": "" if adapter is None else f"{adapter.name} {adapter.digest}"}
    if stack.backbone.spec.stored_as == "promptseg":
        from promptseg.backbones.default import save_default
        from promptseg.backbones.network import PromptsegModel

        module: Any = stack.backbone.module
        config = copy.deepcopy(module.config)
        if adapter is not None and adapter.info.crop_factor is not None:
            config.crop_factor = adapter.info.crop_factor
        plain = PromptsegModel(config)
        plain.load_state_dict(state)
        save_default(plain, target, about)
        return
    whole = {name: tensor.contiguous() for name, tensor in state.items()}
    with atomic_path(target) as temporary:
        temporary.write_bytes(save(whole, {"format": "pt", **about}))


def _write_folder(backbone: Backbone, state: dict[str, Tensor], target: Path) -> None:
    module: Any = backbone.module
    plain = type(module)(module.config)
    plain.load_state_dict(state)
    target.parent.mkdir(parents=True, exist_ok=True)
    held = Path(tempfile.mkdtemp(prefix=".promptseg-", dir=target.parent))
    try:
        plain.save_pretrained(held / target.name)
        os.replace(held / target.name, target)
    finally:
        shutil.rmtree(held, ignore_errors=True)
