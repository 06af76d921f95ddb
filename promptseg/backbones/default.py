"""The default model behind the backbone protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from promptseg.backbones.base import BackboneSpec, Decoded, Embedding, PromptBatch
from promptseg.backbones.network import STRIDE, PromptsegConfig, PromptsegModel
from promptseg.backbones.prompt_maps import named_maps, prompt_maps
from promptseg.errors import WeightsError
from promptseg.io.atomic import atomic_path

LICENCE = "research use only (trained on research data; see weights/README.md)"


class DefaultBackbone:
    """Small network of this project, trained on crops around prompts.

    Args:
        module: The network.
        name: Registry name or path the weights came from.
        input_size: Side of the square input, a multiple of 16; None for the network's own.
        sha256: Digest of the weights file.

    Raises:
        WeightsError: If the input size cannot work.
    """

    def __init__(
        self,
        module: PromptsegModel,
        name: str = "memory",
        input_size: int | None = None,
        sha256: str | None = None,
    ) -> None:
        size = module.config.image_size if input_size is None else input_size
        if size < STRIDE * 2 or size % STRIDE:
            raise WeightsError(f"input size {size} cannot work: give a multiple of {STRIDE}")
        self.module = module.eval()
        self.spec = BackboneSpec(
            name=name,
            family="promptseg",
            input_size=size,
            mask_size=size // 2,
            context="2.5d",
            crop=True,
            presence=True,
            concept=module.config.decoder[0],
            names=tuple(module.config.names),
            sha256=sha256,
            licence=LICENCE,
            propagates="mask",
            own_token="mask_decoder.concept.weight",
            stored_as="promptseg",
            crop_factor=module.config.crop_factor,
        )

    def encode(self, images: Tensor) -> Embedding:
        """Encode (B, 3, input_size, input_size) grey values in [0, 1]."""
        return Embedding(self.module.encode(images))

    def resized(self, input_size: int) -> DefaultBackbone | None:
        """The same network at another input size; None for one that is no multiple of 16."""
        if input_size % STRIDE or input_size < 2 * STRIDE:
            return None
        return DefaultBackbone(self.module, self.spec.name, input_size, self.spec.sha256)

    def named_tokens(self) -> Tensor:
        """(N, C) token of each of `spec.names`."""
        known = self.module.mask_decoder.names
        return torch.zeros(0, self.spec.concept) if known is None else known.weight.detach()

    def decode(
        self,
        embedding: Embedding,
        prompts: PromptBatch,
        multimask: bool = False,
        concept: Tensor | None = None,
    ) -> Decoded:
        """Decode B prompts on B embeddings; `multimask` gives three candidates, else one.

        `concept` (B, C) takes the place of the network's own "whatever is prompted", and where no
        mask is given its likeness to the image's coarsest map is handed over as one: a network
        that understands rough masks learns a name as fast as a linear classifier.
        """
        maps = prompt_maps(prompts, self.spec.input_size)
        if concept is not None:
            maps = named_maps(maps, embedding.features[0], concept)
        logits, quality, presence = self.module.decode(embedding.features, maps, concept)
        kept = slice(1, None) if multimask else slice(0, 1)
        scores = quality[:, kept].float().sigmoid()
        return Decoded(logits[:, kept], scores, presence.float().sigmoid())


def save_default(module: PromptsegModel, path: Path, about: dict[str, str]) -> None:
    """Write one safetensors file that carries its own configuration.

    Args:
        module: The network.
        path: File to write.
        about: Further metadata, such as the data and the date.
    """
    config = json.dumps(module.config.to_diff_dict())
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, {"format": "pt", "config": config, **about})


def load_default(
    path: Path,
    name: str,
    *,
    input_size: int | None = None,
    attention: Literal["sdpa", "eager"] = "sdpa",
    sha256: str | None = None,
) -> DefaultBackbone:
    """Load a file of `save_default` or a folder of `save_pretrained`.

    Raises:
        WeightsError: If the file is missing, corrupt or holds another network.
    """
    config, state = _read_folder(path) if path.is_dir() else _read_file(path)
    module = _build(config, state, attention, path)
    return DefaultBackbone(module, name, input_size, sha256)


def _read_folder(folder: Path) -> tuple[str, dict[str, Tensor]]:
    try:
        config = (folder / "config.json").read_text(encoding="utf-8")
        return config, load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{folder} holds no whole model: {_brief(error)}") from error


def _read_file(path: Path) -> tuple[str, dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return (file.metadata() or {})["config"], state
    except KeyError as error:
        raise WeightsError(f"{path} is not a default model: it has no configuration") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(f"{path} is no whole safetensors file: {_brief(error)}") from error


def _build(config: str, state: dict[str, Tensor], attention: str, path: Path) -> PromptsegModel:
    """The network of a configuration; nothing is allocated for a shape that the file lacks."""
    values = {name: value.to(torch.float32, copy=True) for name, value in state.items()}
    try:
        about = {**json.loads(config), "attn_implementation": attention}
        with torch.device("meta"):
            module = PromptsegModel(PromptsegConfig(**about))
        module.load_state_dict(values, assign=True)
    except Exception as error:  # a wrong number fails wherever it is first used
        raise WeightsError(
            f"{path} does not hold the network it claims: {_brief(error)}"
        ) from error
    return module


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:200]
