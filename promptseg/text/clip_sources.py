"""Where an image-text model is: architecture and file, local folder, or hub.

Nothing here reads weights. The network is used for `hf-hub:` names alone.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import open_clip

from promptseg.errors import WeightsError
from promptseg.weights.checkpoint import PICKLED

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "open_clip_pytorch_model.pt",
)
TOKENS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model",
          "sentencepiece.bpe.model")  # fmt: skip
SMALL = ["*.json", "*.txt", "*.model"]
NEEDED = ("embed_dim", "vision_cfg", "text_cfg")


@dataclass(frozen=True)
class ClipSource:
    """An image-text model on the disk.

    Args:
        name: What the user asked for.
        model: Open_clip's configuration of the network.
        weights: Checkpoint.
        folder: Where the files of a Hugging Face text tower are looked for.
        preprocess: Open_clip's configuration of the image preprocessing, as far as it is given.
    """

    name: str
    model: Mapping[str, Any]
    weights: Path
    folder: Path
    preprocess: Mapping[str, Any] = field(default_factory=dict)


def find_source(name: str | Path, checkpoint: str | Path | None = None) -> ClipSource:
    """Configuration and checkpoint of a model; see `promptseg.text.clip.load_clip`.

    Raises:
        WeightsError: If there is no such architecture, folder, configuration or checkpoint.
    """
    text = str(name)
    if text.startswith(HUB):
        return replace(_from_folder(hub_folder(text), checkpoint), name=text)
    folder = Path(text.removeprefix(LOCAL)).expanduser()
    if text.startswith(LOCAL) or folder.is_dir():
        return _from_folder(folder, checkpoint)
    if folder.suffix == ".json":
        model, preprocess = read_config(folder)
    else:
        model, preprocess = _architecture(text)
    if checkpoint is None:
        raise WeightsError(
            f"{text} is an architecture: give the checkpoint file that goes with it, a folder "
            f"with {CONFIG}, or {HUB}OWNER/NAME"
        )
    weights = Path(checkpoint).expanduser()
    return ClipSource(text, model, weights, weights.parent, preprocess)


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Network and preprocessing of an open_clip configuration file.

    Raises:
        WeightsError: If the file is missing, not JSON or not such a configuration.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    model = content.get("model_cfg", content) if isinstance(content, dict) else None
    missing = [key for key in NEEDED if not isinstance(model, dict) or key not in model]
    if missing or not isinstance(model, dict):
        raise WeightsError(f"{path} describes no image-text model: it lacks {', '.join(missing)}")
    odd = [key for key in NEEDED[1:] if not isinstance(model[key], dict)]
    if odd:
        raise WeightsError(f"{path}: {', '.join(odd)} must be a table")
    preprocess = content.get("preprocess_cfg") or {}
    if not isinstance(preprocess, dict):
        raise WeightsError(f"{path}: preprocess_cfg must be a table")
    return model, preprocess


def hub_folder(name: str) -> Path:
    """Local copy of a hub repository; files that are there already are not fetched again.

    Raises:
        WeightsError: If the hub or the repository cannot be reached.
    """
    from huggingface_hub import snapshot_download

    identifier = name.removeprefix(HUB)
    try:
        folder = Path(snapshot_download(identifier, allow_patterns=SMALL))
        for weights in ("open_clip*.safetensors", "open_clip_pytorch_model.bin"):
            if not any((folder / held).is_file() for held in WEIGHTS):
                snapshot_download(identifier, allow_patterns=[weights])
        for other in _text_towers(folder):
            with suppress(Exception):  # what is then missing is named by whoever needs it
                snapshot_download(other, allow_patterns=SMALL)
    except Exception as error:  # the hub's client raises whatever its transport raises
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"cannot fetch {name}: {reason}; without a network give a local folder "
            f"that holds {CONFIG} and the checkpoint"
        ) from error
    return folder


def _text_towers(folder: Path) -> set[str]:
    """Repositories of the tokenizer and of the text tower's configuration, where not in here."""
    text = read_config(folder / CONFIG)[0]["text_cfg"]
    names = set()
    if not any((folder / file).is_file() for file in TOKENS):
        names.add(text.get("hf_tokenizer_name"))
    if not (folder / "config.json").is_file():
        names.add(text.get("hf_model_name"))
    return {name for name in names if name}


def _from_folder(folder: Path, checkpoint: str | Path | None) -> ClipSource:
    if not folder.is_dir():
        raise WeightsError(f"no folder {folder}: check the path")
    model, preprocess = read_config(folder / CONFIG)
    weights = _weights_in(folder) if checkpoint is None else Path(checkpoint).expanduser()
    return ClipSource(str(folder), model, weights, folder, preprocess)


def _weights_in(folder: Path) -> Path:
    known = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if known:
        return known[0]
    others = [p for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", *PICKLED)]
    if len(others) == 1:
        return others[0]
    found = ", ".join(p.name for p in others) or "none"
    raise WeightsError(
        f"{folder} must hold {WEIGHTS[0]} or open_clip_pytorch_model.bin; checkpoints found: "
        f"{found}; give the one to use as the checkpoint"
    )


def _architecture(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    known = name.replace("/", "-")
    config = open_clip.get_model_config(known)
    if config is None:
        near = difflib.get_close_matches(known, open_clip.list_models(), n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise WeightsError(
            f"no open_clip architecture or folder {name!r}.{hint} A model of the hub is named "
            f"{HUB}OWNER/NAME, an architecture of your own by its .json file"
        )
    tags = open_clip.list_pretrained_tags_by_model(known)
    return config, open_clip.get_pretrained_cfg(known, tags[0]) if tags else {}
