"""Original SAM checkpoints through the segment-anything package.

Kirillov et al., Segment Anything, ICCV 2023; Ma et al., Segment Anything in Medical Images,
Nature Communications 2024 (MedSAM: the same network as SAM ViT-B).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn

from promptseg.backbones.base import BackboneSpec, Decoded, Embedding
from promptseg.backbones.groups import Group, GroupedBackbone
from promptseg.backbones.inputs import Pixels
from promptseg.backbones.layout import DECODER_HEADS, SamShape, sam_shape
from promptseg.backbones.loading import check_input_size, load_whole, resize_positions


class SegmentAnything(GroupedBackbone):
    """SAM as the segment-anything package builds it.

    Args:
        state: State dict in segment-anything's names; the architecture is read from its shapes.
        name: Registry name or path the weights came from.
        input_size: Side of the square input in pixels; None for the one it was trained on.
            Position tables are interpolated to any other.
        pixels: `imagenet` for SAM's own normalisation of colours, `unit` for encoders that
            were trained on grey values in [0, 1] as they are (MedSAM).
        sha256: Digest of the weights.
        licence: Terms of the weights.

    Raises:
        WeightsError: If the weights are not a whole SAM or the input size cannot work.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        *,
        name: str = "sam",
        input_size: int | None = None,
        pixels: Pixels = "imagenet",
        sha256: str | None = None,
        licence: str = "unknown",
    ) -> None:
        shape = sam_shape(state, name)
        wanted = shape.image_size if input_size is None else input_size
        grid = check_input_size(wanted, shape.patch_size, name) // shape.patch_size
        self.module = build_sam(shape, wanted)
        load_whole(self.module, resize_positions(state, grid), name)
        self.module.eval()
        self.spec = BackboneSpec(
            name=name,
            family="segment-anything",
            input_size=wanted,
            mask_size=4 * grid,
            concept=shape.channels,
            sha256=sha256,
            licence=licence,
            pixels=pixels,
            stored_as="state_dict",
        )

    def _encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (self._network.image_encoder(pixels),)

    def _decode(self, features: Embedding, group: Group, multimask: bool) -> Decoded:
        (image,) = features.features
        prompt_encoder, decoder = self._network.prompt_encoder, self._network.mask_decoder
        points = None if group.points is None else (group.points, group.labels)
        sparse, dense = prompt_encoder(points, group.boxes, group.masks)
        sparse = sparse.expand(len(image), -1, -1)
        if group.concept is not None:
            sparse = torch.cat([sparse, group.concept[:, None]], dim=1)
        # The decoder repeats one image over all prompts. It adds the dense prompts to it, so
        # one image of zeros and the features among the dense prompts give each row its own.
        logits, quality = decoder(
            image_embeddings=image.new_zeros(1, *image.shape[1:]),
            image_pe=prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=image + dense,
            multimask_output=multimask,
        )
        return Decoded(logits, quality.clamp(0.0, 1.0))


def build_sam(shape: SamShape, input_size: int) -> Sam:
    """An untrained SAM of that architecture for that input size."""
    grid = input_size // shape.patch_size
    return Sam(_image_encoder(shape, input_size), _prompt_encoder(shape, grid), _decoder(shape))


def _image_encoder(shape: SamShape, input_size: int) -> ImageEncoderViT:
    return ImageEncoderViT(
        img_size=input_size,
        patch_size=shape.patch_size,
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        mlp_ratio=shape.hidden / shape.width,
        out_chans=shape.channels,
        qkv_bias=shape.qkv_bias,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=shape.window,
        global_attn_indexes=shape.global_blocks,
    )


def _prompt_encoder(shape: SamShape, grid: int) -> PromptEncoder:
    return PromptEncoder(
        embed_dim=shape.channels,
        image_embedding_size=(grid, grid),
        input_image_size=(grid * shape.patch_size, grid * shape.patch_size),
        mask_in_chans=shape.mask_channels,
    )


def _decoder(shape: SamShape) -> MaskDecoder:
    return MaskDecoder(
        transformer_dim=shape.channels,
        transformer=TwoWayTransformer(
            depth=shape.decoder_depth,
            embedding_dim=shape.channels,
            num_heads=DECODER_HEADS,
            mlp_dim=shape.decoder_hidden,
            attention_downsample_rate=shape.decoder_downsample,
        ),
        num_multimask_outputs=shape.masks,
        iou_head_depth=shape.quality_depth,
        iou_head_hidden_dim=shape.quality_hidden,
    )
