"""Building an open_clip network and its tokenizer from files, without the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
from huggingface_hub import constants
from open_clip.convert import convert_state_dict
from open_clip.hf_configs import arch_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from promptseg.errors import WeightsError
from promptseg.text.clip_sources import TOKENS, ClipSource

State = Mapping[str, Tensor]
Tokenizer = Callable[[list[str]], Tensor]
BERT = "text.transformer."
OTHER_BERTS = ("roberta", "albert", "deberta", "distilbert", "modernbert")
HEAD_CHANNELS = 64
MISTAKES = (TypeError, KeyError, ValueError, RuntimeError, AttributeError, AssertionError, OSError)


@contextmanager
def offline() -> Iterator[None]:
    """Keep the Hugging Face libraries from asking their hub."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def build_network(source: ClipSource, state: State) -> torch.nn.Module:
    """The network of a source with the weights of `state`, on the CPU, ready to infer.

    Raises:
        WeightsError: If the configuration is not one that open_clip can build, or the weights
            are not for it.
    """
    config = deepcopy(dict(source.model))
    text, vision = config["text_cfg"], config["vision_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    kind = open_clip.CLIP
    if custom:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    with TemporaryDirectory() as folder, offline():
        if "hf_model_name" in text:
            tower = text_tower_config(source, state)
            (Path(folder) / "config.json").write_text(json.dumps(tower), encoding="utf-8")
            text.update(hf_model_name=folder, hf_model_pretrained=False)
        try:
            network = kind(**config)
        except MISTAKES as error:
            raise WeightsError(
                f"{source.name}: open_clip cannot build the network that its configuration "
                f"describes: {type(error).__name__}: {error}"
            ) from error
    load_weights(network, state, source)
    return network.eval().requires_grad_(False)


def load_weights(network: torch.nn.Module, state: State, source: ClipSource) -> None:
    """Put every tensor of a checkpoint into a network, none missing, none left over.

    Raises:
        WeightsError: If names or shapes differ; the network is then as it was.
    """
    given, own = _renamed(network, state), network.state_dict()
    faults = [f"{name} is missing" for name in own if name not in given]
    faults += [f"{name} is unknown" for name in given if name not in own]
    faults += [
        f"{name} is {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in given and own[name].shape != given[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{source.weights} is not a checkpoint of {source.name}: {'; '.join(faults[:3])}"
            f"{more}; name the architecture that it was trained with"
        )
    network.load_state_dict(given)


def _renamed(network: torch.nn.Module, state: State) -> dict[str, Tensor]:
    """The same under the names of today's open_clip, as its own loader does it."""
    given = dict(convert_state_dict(network, dict(state)))
    if "positional_embedding" in given and not hasattr(network, "positional_embedding"):
        given = convert_to_custom_text_state_dict(given)
    given.pop(f"{BERT}embeddings.position_ids", None)
    own = network.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in given and name in own and given[name].numel() == 1:
            given[name] = given[name].reshape(own[name].shape)
    return given


def text_tower_config(source: ClipSource, state: State) -> dict[str, Any]:
    """Configuration of a Hugging Face text tower, without the network.

    BiomedCLIP's folder has none, its text tower is given by name only: then the sizes are read
    off the weights, with heads of 64 channels as every published BERT has them.

    Raises:
        WeightsError: If it is neither in the folder nor to be read off the weights nor in the
            Hugging Face cache.
    """
    held = source.folder / "config.json"
    for config in _tables(held):
        if config.get("model_type") in arch_dict:
            return {key: value for key, value in config.items() if key != "auto_map"}
    name = str(source.model["text_cfg"]["hf_model_name"])
    lower = name.lower()
    if "bert" in lower and not any(other in lower for other in OTHER_BERTS):
        found = bert_config(state)
        if found:
            return found
    try:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(name, local_files_only=True).to_dict()
    except MISTAKES as error:
        raise WeightsError(
            f"{source.name}: the configuration of its text tower {name} is neither in "
            f"{source.folder} nor to be read off {source.weights}: check that these are its "
            "weights, or put that tower's config.json there"
        ) from error


def _tables(path: Path) -> list[dict[str, Any]]:
    """A JSON object and its `text_config`; nothing if there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    parts = [content, content.get("text_config")] if isinstance(content, dict) else []
    return [part for part in parts if isinstance(part, dict)]


def bert_config(state: State) -> dict[str, Any] | None:
    """Sizes of a BERT read off its weights; None if they are not a BERT's."""
    try:
        words, width = state[f"{BERT}embeddings.word_embeddings.weight"].shape
        places = len(state[f"{BERT}embeddings.position_embeddings.weight"])
        types = len(state[f"{BERT}embeddings.token_type_embeddings.weight"])
        inner = len(state[f"{BERT}encoder.layer.0.intermediate.dense.weight"])
    except (KeyError, ValueError):
        return None
    layers = {name.split(".")[4] for name in state if name.startswith(f"{BERT}encoder.layer.")}
    return {
        "model_type": "bert",
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // HEAD_CHANNELS),
        "intermediate_size": inner,
        "max_position_embeddings": places,
        "type_vocab_size": types,
    }


def build_tokenizer(source: ClipSource, words: int) -> Tokenizer:
    """The tokenizer of a source.

    Args:
        source: Says which; a Hugging Face tokenizer is read from its folder, else from the
            Hugging Face cache.
        words: Rows of the text tower's token table.

    Raises:
        WeightsError: If its files are not there, damaged, or of another text tower.
    """
    text = source.model["text_cfg"]
    options = {"context_length": text.get("context_length", 77)}
    options.update(text.get("tokenizer_kwargs") or {})
    name = text.get("hf_tokenizer_name")
    if not name:
        tokenizer: Any = open_clip.SimpleTokenizer(**options)
        known = len(tokenizer.encoder)
    else:
        tokenizer = _hf_tokenizer(source, name, {**options, "tokenizer_mode":
                                  text.get("tokenizer_mode")})  # fmt: skip
        known = len(tokenizer.tokenizer)
    if known > words:
        raise WeightsError(
            f"{source.name}: the tokenizer knows {known} tokens, the text tower {words}: they "
            "are not of the same model"
        )
    return tokenizer


def _hf_tokenizer(source: ClipSource, name: str, options: dict[str, Any]) -> HFTokenizer:
    held = any((source.folder / file).is_file() for file in TOKENS)
    where = str(source.folder) if held else name
    try:
        with offline():
            return HFTokenizer(where, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # the tokenizers library raises bare Exception on a damaged file
        reason = "it is damaged" if held else "there is none"
        raise WeightsError(
            f"{source.name}: no tokenizer can be read from {source.folder} ({reason}): put "
            f"tokenizer.json and tokenizer_config.json of {name} there"
        ) from error
