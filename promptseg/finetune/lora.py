"""Which parts of a backbone learn: low-rank matrices, the decoder, the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from promptseg.adapters import injection
from promptseg.adapters.files import PREFIX, Adapter
from promptseg.adapters.info import AdapterInfo
from promptseg.backbones.base import Backbone
from promptseg.errors import AdapterError
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.words import LabelWords

ENCODERS = ("image_encoder", "vision_encoder")
PROMPT_SIDE = ("prompt_encoder", "mask_decoder")
SLOT = "learning"
QUERY_VALUE = ("qkv", "q_proj", "v_proj", "query", "value")
ATTENTION = (*QUERY_VALUE, "k_proj", "key", "proj", "o_proj", "out_proj")


def lora_targets(module: nn.Module, targets: tuple[str, ...]) -> list[str]:
    """Names of the layers that targets by name mean in a network.

    `attention` is query and value. SAM's encoders hold query, key and value in one layer `qkv`:
    that layer is adapted, and the rows of the key are kept at zero while training
    (`freeze_key`), so that exactly query and value change. `attention_all` is the whole of it
    and the projection behind it.

    Args:
        module: The network, without adapters.
        targets: Some of `config.TARGETS`, or `decoder`.

    Raises:
        AdapterError: A target means no layer of this network.
    """
    chosen: list[str] = []
    for target in targets:
        layers = [name for name, layer in module.named_modules() if _is_target(name, layer, target)]
        if not layers:
            raise AdapterError(
                f"targets has {target!r}, which this network ({type(module).__name__}) has no "
                "layer for: choose others"
            )
        chosen += [name for name in layers if name not in chosen]
    return chosen


def _is_target(name: str, layer: nn.Module, target: str) -> bool:
    parts = name.split(".")
    if target == "decoder":
        return parts[0] == "mask_decoder" and "transformer" in parts and type(layer) is nn.Linear
    if parts[0] not in ENCODERS:
        return False
    if target == "convolutions":
        return type(layer) is nn.Conv2d and layer.groups == 1
    if type(layer) is not nn.Linear:
        return False
    inside = any(part in ("attn", "attention", "self_attn") for part in parts)
    if target == "attention":
        return inside and parts[-1] in QUERY_VALUE
    return inside and parts[-1] in ATTENTION if target == "attention_all" else "mlp" in parts


def freeze_key(module: nn.Module, slot: str = SLOT) -> None:
    """Keep the key's rows of every fused `qkv` as they are: their gradients become zero."""
    for name, layer in injection.lora_layers(module):
        if name.rpartition(".")[2] == "qkv" and slot in layer.lora_A:
            rows = layer.lora_B[slot].weight.shape[0] // 3
            layer.lora_B[slot].weight.register_hook(_without(rows))
            if slot in layer.lora_magnitude_vector:
                layer.lora_magnitude_vector[slot].weight.register_hook(_without(rows))


def _without(rows: int) -> Any:
    def zero(gradient: Tensor) -> Tensor:
        kept = gradient.clone()
        kept[rows : 2 * rows] = 0
        return kept

    return zero


@dataclass
class Learner:
    """A backbone of which some parts learn.

    Args:
        backbone: Its module is changed in place.
        tokens: (L, C) of each label what its token has beside the projection of its words.
        lora: Low-rank matrices by peft's names.
        heads: Parameters of the base that learn, by name.
        base: Their values before.
        flags: Of every parameter of the base, whether it took gradients before.
        words: Wordings of the labels; None where no tower understands them.
        projection: (C, D) from their embeddings to tokens.
    """

    backbone: Backbone
    tokens: nn.Parameter
    lora: Mapping[str, nn.Parameter]
    heads: Mapping[str, nn.Parameter]
    base: Mapping[str, Tensor]
    flags: Mapping[nn.Parameter, bool]
    words: LabelWords | None = None
    projection: nn.Parameter | None = None

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything that learns, by a name unique among them."""
        heads = {f"head {name}": parameter for name, parameter in self.heads.items()}
        words = {} if self.projection is None else {"projection": self.projection}
        return {"tokens": self.tokens, **words, **self.lora, **heads}

    @property
    def naming(self) -> list[nn.Parameter]:
        """Those that name the labels: the tokens, and what words become them by."""
        return [self.tokens, *([] if self.projection is None else [self.projection])]

    @property
    def count(self) -> int:
        """Numbers that learn."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def frozen_encoder(self) -> bool:
        """True if embeddings do not change while training."""
        encoder = [PREFIX + root for root in ENCODERS]
        low_rank = any(name.startswith(tuple(encoder)) for name in self.lora)
        return not low_rank and not any(name.startswith(ENCODERS) for name in self.heads)

    def named(self, places: Sequence[int], numbers: Sequence[int] | None = None) -> Tensor:
        """(B, C) tokens of B labels.

        Args:
            places: Of the labels.
            numbers: Of the views, which choose the wording; None for the labels' names.
        """
        tokens = self.tokens[list(places)]
        if self.words is None or self.projection is None:
            return tokens
        embeddings = self.words.chosen(places, numbers).to(tokens)
        return tokens + embeddings @ self.projection.T * self.words.size**-0.5

    def modes(self) -> None:
        """Dropout of LoRA on; all else as at inference, so that frozen statistics stay."""
        self.backbone.module.eval()
        for _, layer in injection.lora_layers(self.backbone.module):
            layer.lora_dropout.train()

    def adapter(self, name: str, info: AdapterInfo) -> Adapter:
        """What was learned so far, copied."""
        lora = {key: p.detach().cpu().clone() for key, p in self.lora.items()}
        named = self.named(range(len(self.tokens))).detach().cpu()
        tokens = {label: token.clone() for label, token in zip(info.labels, named, strict=True)}
        deltas = {key: p.detach().cpu() - self.base[key].cpu() for key, p in self.heads.items()}
        projection = None
        if self.words is not None and self.projection is not None:
            projection = self.projection.detach().cpu() * self.words.size**-0.5
        return Adapter(name, info, lora, tokens, deltas, projection=projection)

    def begin(self, adapter: Adapter, labels: Sequence[int]) -> None:
        """Go on from an adapter of the same shape instead of from the base.

        Labels that it does not know keep their first token.

        Args:
            adapter: Fits the backbone.
            labels: In the order of the tokens.

        Raises:
            AdapterError: Its low-rank matrices are of other layers or of another rank.
        """
        theirs = {name: tuple(value.shape) for name, value in adapter.lora.items()}
        ours = {name: tuple(value.shape) for name, value in self.lora.items()}
        if theirs != ours:
            odd = sorted(set(theirs.items()) ^ set(ours.items()))[0]
            raise AdapterError(
                f"adapter {adapter.name} cannot be gone on from: {odd[0]} has shape {odd[1]}; give "
                "the rank and targets that it was made with"
            )
        missing = sorted(set(adapter.deltas) - set(self.heads))
        if missing:
            raise AdapterError(
                f"adapter {adapter.name} changes {missing[0]}, which would not learn here: give "
                "the encoder and decoder options that it was made with"
            )
        with torch.no_grad():
            for name, value in adapter.lora.items():
                self.lora[name].copy_(value)
            for name, value in adapter.deltas.items():
                self.heads[name].copy_(self.base[name] + value.to(self.base[name]))
            if self.projection is not None and self.words is not None:
                known = adapter.projection
                if known is not None and known.shape == self.projection.shape:
                    self.projection.copy_(known * self.words.size**0.5)
            named = self.named(range(len(self.tokens))) - self.tokens
            for place, label in enumerate(labels):
                if label in adapter.tokens:
                    self.tokens[place] = adapter.tokens[label].to(self.tokens) - named[place]

    def release(self) -> None:
        """Give the backbone back as it was."""
        with torch.no_grad():
            for name, value in self.base.items():
                self.heads[name].copy_(value)
        if self.lora:
            injection.drop(self.backbone.module, SLOT)
        for parameter, flag in self.flags.items():
            parameter.requires_grad_(flag)


def make_learner(
    backbone: Backbone, config: FinetuneConfig, labels: int, words: LabelWords | None = None
) -> Learner:
    """Wrap a backbone for training; what does not learn is frozen.

    Args:
        backbone: On its device, without adapters.
        config: Which parts learn, and how.
        labels: Number of tokens.
        words: Wordings of the labels, where tokens are to follow words.

    Raises:
        AdapterError: The backbone takes no token, or has no layer for a target.
    """
    module, spec = backbone.module, backbone.spec
    if spec.concept == 0:
        raise AdapterError(f"{spec.name} takes no token that names a target")
    if hasattr(module, "peft_config"):
        raise AdapterError(f"{spec.name} has adapters: remove them before training a new one")
    chosen = lora_targets(module, config.target_names) if config.uses_lora else []
    named = dict(module.named_parameters())
    flags = {parameter: parameter.requires_grad for parameter in named.values()}
    module.requires_grad_(False)
    lora: dict[str, nn.Parameter] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if chosen:
            injection.inject(module, SLOT, chosen, _options(config))
            if "attention" in config.target_names and "attention_all" not in config.target_names:
                freeze_key(module)
            lora = injection.lora_parameters(module, SLOT)
        tokens = _first_tokens(backbone, labels, config.spread)
        projection = None if words is None else _first_projection(tokens, words.size)
    heads = {name: p for name, p in named.items() if _learns(name, config, spec.own_token)}
    for parameter in (*lora.values(), *heads.values()):
        parameter.requires_grad_(True)
    base = {name: parameter.detach().clone() for name, parameter in heads.items()}
    words = None if words is None else words.to(tokens.device)
    return Learner(backbone, tokens, lora, heads, base, flags, words, projection)


def _options(config: FinetuneConfig) -> dict[str, Any]:
    return {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_dora": config.dora,
        "use_rslora": config.rslora,
    }


def _learns(name: str, config: FinetuneConfig, own_token: str | None) -> bool:
    if name.startswith(PROMPT_SIDE):
        # The token of the base means "whatever is prompted" to everyone: it stays.
        return config.decoder == "full" and name != own_token
    return config.encoder == "full" and name.startswith(ENCODERS)


def _first_tokens(backbone: Backbone, labels: int, spread: float) -> nn.Parameter:
    """The default network's own token with noise, or noise alone.

    The numbers of the network's own token are about 1. With noise far below that, hundreds of
    steps go by until several labels come apart.
    """
    module, channels = backbone.module, backbone.spec.concept
    device = next(module.parameters()).device
    noise = torch.randn(labels, channels) * spread
    own = backbone.spec.own_token
    if own is not None:
        noise = noise + module.get_parameter(own).detach().cpu()
    return nn.Parameter(noise.to(device))


def _first_projection(tokens: nn.Parameter, size: int) -> nn.Parameter:
    """Small: labels start almost alike, and unlike enough to come apart."""
    noise = torch.randn(tokens.shape[1], size) * 0.02 * size**0.5
    return nn.Parameter(noise.to(tokens.device))
