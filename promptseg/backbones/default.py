"""The default model behind the backbone protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from promptseg.backbones.base import BackboneSpec, Decoded, Embedding, PromptBatch
from promptseg.backbones.network import STRIDE, PromptsegConfig, PromptsegModel
from promptseg.backbones.prompt_maps import prompt_maps
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
            sha256=sha256,
            licence=LICENCE,
        )

    def encode(self, images: Tensor) -> Embedding:
        """Encode (B, 3, input_size, input_size) grey values in [0, 1]."""
        return Embedding(self.module.encode(images))

    def decode(
        self,
        embedding: Embedding,
        prompts: PromptBatch,
        multimask: bool = False,
        concept: Tensor | None = None,
    ) -> Decoded:
        """Decode B prompts on B embeddings; `multimask` gives three candidates, else one.

        `concept` (B, C) takes the place of the network's own "whatever is prompted".
        """
        maps = prompt_maps(prompts, self.spec.input_size)
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
        WeightsError: If the file is corrupt or holds another network.
    """
    if path.is_dir():
        module = PromptsegModel.from_pretrained(path, attn_implementation=attention)
        return DefaultBackbone(module, name, input_size, sha256)
    try:
        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a default model: {error}") from error
    except Exception as error:  # safetensors raises its own error type
        raise WeightsError(f"{path} is corrupt: {error}") from error
    module = PromptsegModel(PromptsegConfig(**config, attn_implementation=attention))
    try:
        module.load_state_dict({key: value.to(torch.float32) for key, value in state.items()})
    except RuntimeError as error:
        brief = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path} does not hold the network it claims: {brief}") from error
    return DefaultBackbone(module, name, input_size, sha256)
