"""Does an adapter fit a backbone? Asked before anything of the backbone is touched."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from promptseg.adapters.files import PREFIX, Adapter, layer_of
from promptseg.backbones.base import BackboneSpec
from promptseg.errors import AdapterError

_NAME = re.compile(rf"{re.escape(PREFIX)}.+\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector)")


def check_fits(
    adapter: Adapter,
    spec: BackboneSpec,
    base_sha256: str,
    layers: Mapping[str, nn.Module],
    parameters: Mapping[str, Tensor],
) -> None:
    """Raise AdapterError, naming what does not match, unless an adapter fits a backbone.

    Args:
        adapter: What would be attached.
        spec: The backbone's.
        base_sha256: Digest of the backbone's weights.
        layers: The backbone's layers by name, without any adapter.
        parameters: Its parameters by name.
    """
    info, name = adapter.info, adapter.name
    if info.family != spec.family:
        raise AdapterError(
            f"adapter {name} is for the family {info.family} ({info.backbone}), the model "
            f"{spec.name} is of {spec.family}"
        )
    if info.base_sha256 != base_sha256:
        raise AdapterError(
            f"adapter {name} was trained on {info.backbone} with sha256 {info.base_sha256[:16]}, "
            f"the model {spec.name} has {base_sha256[:16]}: load the model it was trained on, or "
            "train it again"
        )
    _check_lora(adapter, layers)
    for key, delta in adapter.deltas.items():
        found = parameters.get(key)
        if found is None:
            raise AdapterError(f"adapter {name} changes {key}, which {spec.name} does not have")
        _check_shape(name, key, delta, tuple(found.shape))
    for label, token in adapter.tokens.items():
        _check_shape(name, f"token of label {label}", token, (spec.concept,))
    if adapter.projection is not None:
        inputs = adapter.projection.shape[-1]
        _check_shape(name, "projection of words", adapter.projection, (spec.concept, inputs))


def _check_lora(adapter: Adapter, layers: Mapping[str, nn.Module]) -> None:
    rank, dora = adapter.info.rank, adapter.info.method == "dora"
    odd = [name for name in adapter.lora if not _NAME.fullmatch(name)]
    if odd:
        raise AdapterError(f"adapter {adapter.name} holds {odd[0]!r}, which is no LoRA weight")
    expected: dict[str, tuple[int, ...]] = {}
    for path in adapter.layers:
        layer = layers.get(path)
        if layer is None:
            raise AdapterError(f"adapter {adapter.name} adapts {path}: the model has no such layer")
        expected |= {f"{PREFIX}{path}.{n}": s for n, s in _shapes(layer, path, rank, dora).items()}
    missing = sorted(set(expected) - set(adapter.lora))
    if missing:
        raise AdapterError(f"adapter {adapter.name} lacks {missing[0]}")
    for key, tensor in adapter.lora.items():
        if key not in expected:
            raise AdapterError(
                f"adapter {adapter.name} holds {key}, but its method is {adapter.info.method}"
            )
        _check_shape(adapter.name, f"{key} (rank {rank}, {layer_of(key)})", tensor, expected[key])


def _shapes(layer: nn.Module, path: str, rank: int, dora: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that peft adds to a layer."""
    if isinstance(layer, nn.Linear):
        ends: tuple[int, ...] = ()
        inner: tuple[int, ...] = (layer.in_features,)
        outputs = layer.out_features
        magnitude: tuple[int, ...] = (outputs,)
    elif isinstance(layer, nn.Conv2d):
        ends, inner = (1, 1), (layer.in_channels // layer.groups, *layer.kernel_size)
        outputs = layer.out_channels
        magnitude = (1, outputs, 1, 1)
    else:
        raise AdapterError(f"{path} is {type(layer).__name__}: LoRA adapts linear layers and "
                           "2D convolutions")  # fmt: skip
    shapes = {"lora_A.weight": (rank, *inner), "lora_B.weight": (outputs, rank, *ends)}
    return {**shapes, "lora_magnitude_vector": magnitude} if dora else shapes


def _check_shape(name: str, key: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise AdapterError(
            f"adapter {name}: {key} has shape {tuple(tensor.shape)}, the model needs {expected}"
        )
