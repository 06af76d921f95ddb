"""SAM, SAM-HQ, SAM 2 and EdgeTAM through the transformers library.

Kirillov et al., Segment Anything, ICCV 2023; Ke et al., Segment Anything in High Quality,
NeurIPS 2023; Ravi et al., SAM 2, ICLR 2025; Zhou et al., EdgeTAM, CVPR 2025.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn

from promptseg.backbones.base import BackboneSpec, Decoded, Embedding, Propagates
from promptseg.backbones.groups import Group, GroupedBackbone
from promptseg.backbones.inputs import Pixels
from promptseg.backbones.loading import check_input_size, load_whole, resize_positions


class TransformersBackbone(GroupedBackbone):
    """What the wrappers of the library's models share.

    Args:
        module: Model of the library, with its weights.
        name: Registry name or path the weights came from.
        input_size: Side of the square input in pixels; None for the model's own. Position
            tables are interpolated to any other.
        pixels: `imagenet` for normalised colours, `unit` for grey values as they are.
        sha256: Digest of the weights.
        licence: Terms of the weights.

    Raises:
        WeightsError: If the input size cannot work.
    """

    predicts_presence: ClassVar[bool] = False
    propagates: ClassVar[Propagates] = "box"

    def __init__(
        self,
        module: transformers.PreTrainedModel,
        *,
        name: str = "memory",
        input_size: int | None = None,
        pixels: Pixels = "imagenet",
        sha256: str | None = None,
        licence: str = "unknown",
    ) -> None:
        prompt = module.config.prompt_encoder_config
        own = int(prompt.image_size)
        wanted = check_input_size(
            own if input_size is None else input_size, self._multiple(module.config), name
        )
        self.module = module if wanted == own else self._resized(module, wanted, name)
        self.module.eval()
        self.spec = BackboneSpec(
            name=name,
            family=module.config.model_type.removesuffix("_video"),
            input_size=wanted,
            mask_size=4 * (wanted // int(prompt.patch_size)),
            presence=self.predicts_presence,
            concept=int(prompt.hidden_size),
            sha256=sha256,
            licence=licence,
            pixels=pixels,
            propagates=self.propagates,
        )

    def _decode(self, features: Embedding, group: Group, multimask: bool) -> Decoded:
        with appended_token(self._network.prompt_encoder, group.concept):
            return self._decoded(features, group, multimask)

    def _decoded(self, features: Embedding, group: Group, multimask: bool) -> Decoded:
        """Masks of B prompts of one shape."""
        output = self._network(
            **self._given(features.features),
            input_points=None if group.points is None else group.points[:, None],
            input_labels=None if group.labels is None else group.labels[:, None],
            input_boxes=None if group.boxes is None else group.boxes[:, None],
            input_masks=group.masks,
            multimask_output=multimask,
        )
        return Decoded(output.pred_masks[:, 0], output.iou_scores[:, 0].clamp(0.0, 1.0))

    @staticmethod
    @abstractmethod
    def _multiple(config: Any) -> int:
        """Input sizes are multiples of this."""

    @staticmethod
    @abstractmethod
    def _resized(module: Any, size: int, name: str) -> nn.Module:
        """The same model for another input size."""

    @abstractmethod
    def _given(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """Features as arguments of the model."""


class TransformersSam(TransformersBackbone):
    """`SamModel`; features are the image embeddings."""

    @staticmethod
    def _multiple(config: Any) -> int:
        return int(config.vision_config.patch_size)

    @staticmethod
    def _resized(module: Any, size: int, name: str) -> nn.Module:
        config = copy.deepcopy(module.config)
        grid = size // config.vision_config.patch_size
        config.vision_config.image_size = config.prompt_encoder_config.image_size = size
        config.prompt_encoder_config.image_embedding_size = grid
        return rebuilt(module, config, resize_positions(module.state_dict(), grid), name)

    def _encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (self._network.vision_encoder(pixels).last_hidden_state,)

    def _given(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        return {"image_embeddings": features[0]}


class TransformersSamHQ(TransformersSam):
    """`SamHQModel`; features are the image embeddings and the first global block's output."""

    def _encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        output = self._network.vision_encoder(pixels)
        return output.last_hidden_state, output.intermediate_embeddings[0].permute(0, 3, 1, 2)

    def _given(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        early = features[1].permute(0, 2, 3, 1)
        return {"image_embeddings": features[0], "intermediate_embeddings": [early]}


class TransformersSam2(TransformersBackbone):
    """`Sam2Model` and `EdgeTamModel`; features from strides 4, 8 and 16."""

    @staticmethod
    def _multiple(config: Any) -> int:
        backbone = config.vision_config.backbone_config
        windows = getattr(backbone, "window_size_per_stage", None)
        # The coarsest level has stride 32; the position table is tiled by the first window.
        return 32 if windows is None else int(torch.tensor(32).lcm(torch.tensor(4 * windows[0])))

    @staticmethod
    def _resized(module: Any, size: int, name: str) -> nn.Module:
        config = copy.deepcopy(module.config)
        config.prompt_encoder_config.image_size = size
        config.vision_config.backbone_feature_sizes = [[size // s, size // s] for s in (4, 8, 16)]
        return rebuilt(module, config, module.state_dict(), name)

    def _encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        decoder = self._network.mask_decoder
        fine, middle, coarse = self._network.vision_encoder(pixels).fpn_hidden_states
        still = self._network.no_memory_embedding.reshape(1, -1, 1, 1)
        return decoder.conv_s0(fine), decoder.conv_s1(middle), coarse + still

    def _given(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        return {"image_embeddings": list(features)}


@contextmanager
def appended_token(prompt_encoder: nn.Module, token: Tensor | None) -> Iterator[None]:
    """Let a prompt encoder of the library give one more token, (B, C), behind its own."""

    added = None if token is None else token[:, None, None]

    def append(_: nn.Module, __: Any, output: tuple[Tensor | None, Tensor]) -> Any:
        sparse, dense = output
        parts = [part for part in (sparse, added) if part is not None]
        return torch.cat(parts, dim=2), dense

    hook = None if token is None else prompt_encoder.register_forward_hook(append)
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def rebuilt(
    module: Any, config: transformers.PretrainedConfig, state: dict[str, Tensor], name: str
) -> nn.Module:
    """A model of the same class with another configuration, and the weights of `state`.

    Raises:
        WeightsError: If they do not fit it.
    """
    parameter = next(module.parameters())
    fresh = type(module)(config).to(parameter.device, parameter.dtype)
    load_whole(fresh, state, name)
    return fresh
