"""Promptable networks behind one protocol."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from promptseg.errors import WeightsError
from promptseg.weights import registry as weights

if TYPE_CHECKING:
    from torch import Tensor

    from promptseg.backbones.base import Backbone

Attention = Literal["sdpa", "eager"]
Library = Literal["segment-anything", "transformers"]

# Networks that are made without a checkpoint of the registry, as "module:function", imported when
# asked for.
MAKERS: dict[str, str] = {}

UNWRAPPED = {
    "text": "it understands words and segments nothing; words need no --model of their own",
    "corrector": "it corrects the masks of any model from clicks; give it as corrector=",
    "coarse": "it looks at whole targets in 3D beside any model; give it as coarse=",
    "step": "it goes from slice to slice beside the default model; give it as step=",
    "ranking": "it says which mask is meant beside the default model; give it as ranking=",
    "mobile_sam": "MobileSAM has a TinyViT encoder, for which promptseg has no wrapper yet",
    "sam_hq": "original SAM-HQ checkpoints have no wrapper; give a transformers folder of SAM-HQ",
    "transformers": "these are weights of a transformers model; give the folder with config.json",
    "unknown": "its weights have the names of no network that promptseg knows",
}


def load_backbone(
    name_or_path: str | os.PathLike[str],
    *,
    input_size: int | None = None,
    attention: Attention = "sdpa",
    library: Library = "segment-anything",
) -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name_or_path: A name of the registry (downloaded if it is nowhere) or of `MAKERS`; a
            checkpoint in the original layout of SAM or SAM 2 (.pth, .pt, .safetensors); or a
            folder written by transformers' `save_pretrained`.
        input_size: Side of the square input in pixels; None for the network's own.
        attention: Attention of networks built with transformers.
        library: What builds original SAM checkpoints. With `transformers` they are converted.

    Raises:
        WeightsError: If there is no such name or file, the file is corrupt, unsafe or of an
            unknown network, or the input size cannot work.
    """
    if attention not in ("sdpa", "eager"):
        raise WeightsError(f"attention {attention!r} is not known: give 'sdpa' or 'eager'")
    if library not in ("segment-anything", "transformers"):
        raise WeightsError(
            f"library {library!r} is not known: give 'segment-anything' or 'transformers'"
        )
    name = str(name_or_path)
    if name in MAKERS:
        module, _, made_by = MAKERS[name].partition(":")
        made: Backbone = getattr(import_module(module), made_by)()
        return made
    if name not in weights.registry() and Path(name).is_dir():
        return _from_folder(Path(name), input_size, attention)
    entry, path, digest = _find(name)
    if entry is not None and entry.family == "promptseg":
        return _default(path, entry.name, input_size, attention, digest)
    about: dict[str, Any] = {
        "name": str(path) if entry is None else entry.name,
        "input_size": input_size,
        "pixels": "imagenet" if entry is None else entry.pixels,
        "sha256": digest,
        "licence": "unknown" if entry is None else entry.licence,
    }
    state = weights.load_state(path)
    if _layout(state) == "promptseg":
        return _default(path, str(path), input_size, attention, digest)
    return _from_state(state, about, attention, library)


def _find(name: str) -> tuple[weights.Entry | None, Path, str]:
    """Registry entry, file and digest of a name or a path; a file is known by its digest."""
    path = Path(name)
    if name not in weights.registry() and path.is_file():
        digest = weights.sha256_file(path)
        known = {digest, weights.converted_from(path)} - {None}
        entries = weights.registry().values()
        return next((entry for entry in entries if entry.sha256 in known), None), path, digest
    entry = weights.lookup(name)
    if entry.family in UNWRAPPED:
        raise WeightsError(f"cannot load {name}: {UNWRAPPED[entry.family]}")
    path = weights.locate(name) or weights.pull(name)
    return entry, path, weights.check(entry, path)


def _from_folder(folder: Path, input_size: int | None, attention: Attention) -> Backbone:
    kind = _model_type(folder)
    if kind == "promptseg":
        return _default(folder, str(folder), input_size, attention, _folder_digest(folder))
    from promptseg.backbones.folders import load_folder, wrap

    module = load_folder(folder, kind, attention)
    return wrap(module, name=str(folder), input_size=input_size, sha256=_folder_digest(folder))


def _model_type(folder: Path) -> str:
    config = folder / "config.json"
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["model_type"])
    except FileNotFoundError:
        raise WeightsError(f"{folder} is no model folder: it has no config.json") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{config} does not say its model_type: {error!r}") from error


def _folder_digest(folder: Path) -> str | None:
    files = [folder / name for name in ("model.safetensors", "pytorch_model.bin")]
    return next((weights.sha256_file(file) for file in files if file.is_file()), None)


def _default(
    path: Path, name: str, input_size: int | None, attention: Attention, digest: str | None
) -> Backbone:
    from promptseg.backbones.default import load_default

    return load_default(path, name, input_size=input_size, attention=attention, sha256=digest)


def _layout(state: Mapping[str, Tensor]) -> str:
    from promptseg.backbones.layout import layout_of

    return layout_of(state)


def _from_state(
    state: Mapping[str, Tensor], about: dict[str, Any], attention: Attention, library: Library
) -> Backbone:
    layout = _layout(state)
    if layout in UNWRAPPED:
        raise WeightsError(f"cannot load {about['name']}: {UNWRAPPED[layout]}")
    if layout == "sam" and library == "segment-anything":
        from promptseg.backbones.segment_anything import SegmentAnything

        return SegmentAnything(state, **about)
    from promptseg.backbones.convert import to_transformers
    from promptseg.backbones.folders import wrap

    return wrap(to_transformers(state, about["name"], attention), **about)
