"""Small open_clip models with random weights, written to disk in open_clip's own format."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.push_to_hf_hub import save_config_for_hf, save_for_hf
from open_clip.tokenizer import HFTokenizer
from transformers import BertConfig, BertTokenizerFast

PLAIN: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
    },
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
BERT_NAME = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
BIOMED: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 160,
    },
    "text_cfg": {
        "hf_model_name": BERT_NAME,
        "hf_tokenizer_name": BERT_NAME,
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 16,
    },
}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "an", "mri", "ct", "of", "the", "left",
         "right", "atrium", "ventricle", "liver", "##s", "image", "kidney"]  # fmt: skip


def plain_network(seed: int = 0) -> torch.nn.Module:
    """A CLIP of one block a tower."""
    torch.manual_seed(seed)
    return open_clip.CLIP(**deepcopy(PLAIN)).eval()


def architecture(folder: Path) -> Path:
    """The configuration of `plain_network` as a file of open_clip's registry."""
    path = folder / "tiny-clip.json"
    path.write_text(json.dumps(PLAIN))
    return path


def with_preprocess(network: torch.nn.Module) -> torch.nn.Module:
    """The same with the pixel statistics that the configuration file is to carry."""
    size = network.visual.image_size
    preprocess = {"size": size, "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    open_clip.set_model_preprocess_cfg(network, preprocess)
    return network


def save_plain_folder(folder: Path, safe: bool = False) -> torch.nn.Module:
    """A folder that `open_clip.create_model('local-dir:...')` loads."""
    network = with_preprocess(plain_network())
    folder.mkdir(parents=True, exist_ok=True)
    save_config_for_hf(network, folder / "open_clip_config.json", deepcopy(PLAIN))
    if safe:
        from safetensors.torch import save_file

        save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    else:
        torch.save(network.state_dict(), folder / "open_clip_pytorch_model.bin")
    return network


def save_biomed_folder(folder: Path) -> torch.nn.Module:
    """The files that BiomedCLIP's hub repository has, and no config.json."""
    scratch = folder.parent / f"{folder.name}-bert"
    scratch.mkdir(parents=True, exist_ok=True)
    bert = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    bert.save_pretrained(scratch)
    (scratch / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(scratch / "vocab.txt")).save_pretrained(scratch)
    config = deepcopy(BIOMED)
    config["text_cfg"].update(hf_model_name=str(scratch), hf_model_pretrained=False)
    torch.manual_seed(1)
    network = with_preprocess(open_clip.CustomTextCLIP(**config).eval())
    save_for_hf(network, HFTokenizer(str(scratch)), deepcopy(BIOMED), str(folder), False)
    return network
