"""Image-text models through open_clip: pictures and words as points on one sphere.

Any architecture of open_clip loads with a checkpoint file, any folder in open_clip's own format
(BiomedCLIP's included), and any model of the hub where there is a network:

    clip = load_clip("ViT-B-32", "laion2b.safetensors")
    clip = load_clip("models/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224")
    clip = load_clip("hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224")
    likeness = clip.encode_images([slice_]) @ clip.encode_texts(["an MRI of the liver"]).T

Only `hf-hub:` names use the network.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image

from promptseg.errors import WeightsError
from promptseg.inference.device import choose_device
from promptseg.text.clip_network import MISTAKES, Tokenizer, build_network, build_tokenizer
from promptseg.text.clip_sources import find_source
from promptseg.weights.checkpoint import load_state, sha256_file


class ClipModel:
    """An image-text model, ready to encode.

    Args:
        network: Open_clip's network.
        tokenizer: Words to tokens.
        preprocess: Size, mean, deviation and resizing of pictures.
        name: What it was loaded as.
        sha256: Digest of the weights and the configuration.
        device: Where to compute.
        batch_size: Pictures or texts at once.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Tokenizer,
        preprocess: PreprocessCfg,
        name: str,
        sha256: str,
        device: torch.device,
        batch_size: int = 32,
    ) -> None:
        self.network, self.tokenizer, self.preprocess = network.to(device), tokenizer, preprocess
        self.name, self.sha256, self.device, self.batch_size = name, sha256, device, batch_size
        self._transform = image_transform_v2(preprocess, is_train=False)

    @property
    def image_size(self) -> int:
        """Longer side in pixels of what the image tower sees."""
        return max(self.preprocess.input_size[1:])

    @property
    def scale(self) -> float:
        """What cosines are multiplied with before a softmax, as it was learned."""
        return float(self.network.logit_scale.exp())

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Pictures as unit vectors.

        Args:
            images: N grey pictures (H, W) in [0, 1], of any size.

        Returns:
            (N, D) float32.
        """
        return self._batched(images, self._encode_images)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as (N, D) float32 unit vectors."""
        return self._batched(texts, self._encode_texts)

    def _batched(self, items: Sequence[Any], encode: Any) -> np.ndarray:
        starts = range(0, len(items), self.batch_size)
        with torch.inference_mode():
            parts = [encode(items[start : start + self.batch_size]) for start in starts]
        if not parts:
            return np.zeros((0, 0), np.float32)
        return torch.cat(parts).float().cpu().numpy()

    def _encode_images(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        pixels = torch.stack([self._transform(as_picture(image)) for image in images])
        return self.network.encode_image(pixels.to(self.device), normalize=True)

    def _encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self.network.encode_text(self.tokenizer(list(texts)).to(self.device), normalize=True)


def as_picture(image: np.ndarray) -> Image.Image:
    """A grey (H, W) slice in [0, 1] as an RGB picture of 8 bits."""
    levels = np.clip(np.nan_to_num(np.asarray(image, np.float32)), 0, 1) * 255
    return Image.fromarray(np.round(levels).astype(np.uint8)).convert("RGB")


def load_clip(
    name: str | Path,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 32,
) -> ClipModel:
    """Load an image-text model.

    Args:
        name: An open_clip architecture, or the .json file of one, with a checkpoint;
            a folder (`local-dir:` before it or not) with `open_clip_config.json`, the weights
            and, for a Hugging Face text tower, its tokenizer's files; or `hf-hub:OWNER/NAME`.
        checkpoint: .safetensors, .pt, .pth or .bin; pickled files are read with
            `weights_only=True`, so that code in them never runs.
        device: `auto`, `cpu` or `cuda`.
        batch_size: Pictures or texts at once.

    Raises:
        WeightsError: If a file is missing, empty, truncated, unsafe, or of another
            architecture; names the file and the reason.
    """
    chosen = choose_device(device)
    source = find_source(name, checkpoint)
    _refuse_torchscript(source.weights)
    state = load_state(source.weights)
    network = build_network(source, state)
    tokenizer = build_tokenizer(source, token_count(network))
    preprocess = _preprocess(network, source.preprocess, source.name)
    about = json.dumps([dict(source.model), str(preprocess)], sort_keys=True, default=str)
    digest = hashlib.sha256((sha256_file(source.weights) + about).encode()).hexdigest()
    return ClipModel(network, tokenizer, preprocess, str(name), digest, chosen, batch_size)


def token_count(network: Any) -> int:
    """Rows of the token table of a network's text tower."""
    tower = getattr(network, "text", network)
    return int(tower.vocab_size)


def _preprocess(network: Any, given: Mapping[str, Any], name: str) -> PreprocessCfg:
    try:
        merged = merge_preprocess_dict(PreprocessCfg(), dict(given))
        config = PreprocessCfg(**{**merged, "size": network.visual.image_size})
        image_transform_v2(config, is_train=False)
        mean, std = (np.broadcast_to(np.asarray(v, float), 3) for v in (config.mean, config.std))
    except MISTAKES as error:
        raise WeightsError(f"{name}: preprocess_cfg cannot be used: {error}") from error
    if not (np.isfinite([mean, std]).all() and (std > 0).all()):
        raise WeightsError(f"{name}: preprocess_cfg has mean {config.mean}, std {config.std}")
    return config


def _refuse_torchscript(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any("/code/" in name for name in archive.namelist()):
            raise WeightsError(
                f"{path} was refused: it is a TorchScript archive, which holds code; save the "
                "model's state_dict() and give that"
            )
