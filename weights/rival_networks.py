"""Three networks of about the same size behind one interface, to be compared.

`encode` turns (B, 3, S, S) grey values in [0, 1] into features; `decode` turns features and B
prompts into logits (B, 4, S/2, S/2), quality logits (B, 4) and presence logits (B,). The first
mask is for clear prompts, the others are for an ambiguous click.

The rivals come from transformers with its initialisation, except where that is made for loading
a checkpoint: layers of the prompt encoder and the mask decoder start as PyTorch starts them
(drawn with deviation 0.02, token times pixel begins at a saddle), positions are coded with the
frequencies of the original SAM (deviation 1), and both get the prompts twice: as sparse tokens,
and as the maps of the default network in the place of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from promptseg.backbones.base import PromptBatch
from promptseg.backbones.network import PROMPT_CHANNELS, PromptsegConfig, PromptsegModel
from promptseg.backbones.prompt_maps import prompt_maps

Answer = tuple[Tensor, Tensor, Tensor]
MASKS, CHANNELS = 4, 128
DECODER = {"hidden_size": CHANNELS, "num_attention_heads": 4, "mlp_dim": 512,
           "num_multimask_outputs": MASKS, "iou_head_hidden_dim": CHANNELS}  # fmt: skip
BOX_CORNERS = (2, 3)
TABLES = ("pos_embed", "point_embed", "iou_token", "score_token", "mask_tokens")


class Hybrid(nn.Module):
    """The default network: convolutions down to stride 16, then transformer blocks.

    Args:
        size: Side of the input in pixels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.model = PromptsegModel(PromptsegConfig())

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode(images)

    def decode(self, features: tuple[Tensor, ...], prompts: PromptBatch) -> Answer:
        return self.model.decode(features, prompt_maps(prompts, self.size))


class Rival(nn.Module):
    """What the two networks of transformers share.

    Args:
        model: Freshly drawn.
        size: Side of the input in pixels.
    """

    def __init__(self, model: SamModel | Sam2Model, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size
        first = model.prompt_encoder.mask_embed.conv1
        model.prompt_encoder.mask_embed.conv1 = nn.Conv2d(
            PROMPT_CHANNELS, first.out_channels, first.kernel_size, first.stride
        )
        for part in (model.mask_decoder, model.prompt_encoder):
            for layer in part.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
        model.prompt_encoder.no_mask_embed.requires_grad_(False)
        table = model.shared_image_embedding.positional_embedding
        table.requires_grad_(False).normal_()
        model.prompt_encoder.shared_embedding.positional_embedding = table

    def prompted(self, prompts: PromptBatch, side: int) -> tuple[Tensor, Tensor]:
        """Sparse tokens (B, 1, N, C) and dense maps (B, C, side, side)."""
        encoder = self.model.prompt_encoder
        maps = prompt_maps(prompts, self.size)
        return self.sparse(prompts), encoder.mask_embed(
            functional.interpolate(maps, (4 * side, 4 * side), mode="area")
        )

    def sparse(self, prompts: PromptBatch) -> Tensor:
        """Tokens of points and box corners; rows with fewer are filled with "not a point"."""
        encoder = self.model.prompt_encoder
        corners = torch.nan_to_num(prompts.boxes).view(-1, 2, 2)
        kinds = torch.tensor(BOX_CORNERS, device=corners.device).expand(len(prompts), -1)
        kinds = torch.where(prompts.has_box[:, None], kinds, -1)
        places = torch.cat([prompts.points, corners], 1)[:, None]
        kinds = torch.cat([prompts.labels, kinds], 1)[:, None]
        coded = encoder.shared_embedding(places, (self.size, self.size))
        tables = encoder.point_embed
        rows = tables.weight if isinstance(tables, nn.Embedding) else torch.cat(
            [table.weight for table in tables]
        )  # fmt: skip
        named = coded + rows[kinds.clamp(min=0)]
        return torch.where(kinds[..., None] >= 0, named, encoder.not_a_point_embed.weight)

    def positions(self, features: Tensor) -> Tensor:
        table = self.model.get_image_wide_positional_embeddings()
        return table.expand(len(features), -1, -1, -1).to(features.dtype)


class PlainVit(Rival):
    """A small `SamModel`: plain ViT, one feature map.

    Its patches are 8 pixels wide, so that its masks come at half the input's resolution as those
    of the default network; with SAM's own 16 they would come at a quarter.
    """

    PATCH = 8

    def __init__(self, size: int) -> None:
        vision = SamVisionConfig(
            hidden_size=192,
            output_channels=CHANNELS,
            num_hidden_layers=5,
            num_attention_heads=6,
            image_size=size,
            patch_size=self.PATCH,
            mlp_dim=768,
            window_size=0,
            global_attn_indexes=[0, 1, 2, 3, 4],
            num_pos_feats=CHANNELS // 2,
            initializer_range=0.02,
        )
        prompt = SamPromptEncoderConfig(
            hidden_size=CHANNELS, image_size=size, patch_size=self.PATCH
        )
        decoder = SamMaskDecoderConfig(**DECODER)
        config = SamConfig(
            vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
        )
        super().__init__(SamModel(config), size)
        self.presence = presence_head()

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.model.vision_encoder(images * 2 - 1).last_hidden_state,)

    def decode(self, features: tuple[Tensor, ...], prompts: PromptBatch) -> Answer:
        (coarse,) = features
        sparse, dense = self.prompted(prompts, coarse.shape[-1])
        masks, quality = self.model.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=self.positions(coarse),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return masks[:, 0], quality[:, 0], self.presence(coarse + dense)[:, 0]


class Hierarchical(Rival):
    """A small `Sam2Model`: Hiera at strides 4 to 32, fine features into the decoder.

    Its masks come at a quarter of the input's resolution and are interpolated to a half.
    """

    WIDTHS = (44, 88, 176, 352)

    def __init__(self, size: int) -> None:
        encoder = Sam2HieraDetConfig(
            hidden_size=self.WIDTHS[0],
            image_size=[size, size],
            blocks_per_stage=[1, 2, 2, 1],
            embed_dim_per_stage=list(self.WIDTHS),
            num_attention_heads_per_stage=[1, 2, 4, 8],
            window_size_per_stage=[8, 4, 8, 4],
            global_attention_blocks=[4],
        )
        vision = Sam2VisionConfig(
            backbone_config=encoder.to_dict(),
            backbone_channel_list=list(self.WIDTHS[::-1]),
            backbone_feature_sizes=[[size // s, size // s] for s in (4, 8, 16)],
            fpn_hidden_size=CHANNELS,
        )
        prompt = Sam2PromptEncoderConfig(hidden_size=CHANNELS, image_size=size)
        decoder = Sam2MaskDecoderConfig(**DECODER)
        config = Sam2Config(
            vision_config=vision.to_dict(),
            prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )
        super().__init__(Sam2Model(config), size)
        self.model.no_memory_embedding.requires_grad_(False)
        self.model.mask_decoder.iou_prediction_head.sigmoid_output = False

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.vision_encoder(images * 2 - 1).fpn_hidden_states
        fine, middle, coarse = maps
        decoder = self.model.mask_decoder
        return decoder.conv_s0(fine), decoder.conv_s1(middle), coarse

    def decode(self, features: tuple[Tensor, ...], prompts: PromptBatch) -> Answer:
        coarse = features[-1]
        sparse, dense = self.prompted(prompts, coarse.shape[-1])
        masks, quality, _, presence = self.model.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=self.positions(coarse),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
            high_resolution_features=list(features[:-1]),
        )
        half = (self.size // 2, self.size // 2)
        masks = functional.interpolate(masks[:, 0], half, mode="bilinear", align_corners=False)
        return masks, quality[:, 0], presence[:, 0, 0]


def presence_head() -> nn.Sequential:
    """(B, CHANNELS, H, W) -> (B, 1), which `SamModel` lacks."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(CHANNELS, 1),
    )


NETWORKS: dict[str, type[nn.Module]] = {
    "vit": PlainVit,
    "hiera": Hierarchical,
    "hybrid": Hybrid,
}
TITLES = {
    "vit": "plain ViT (SAM)",
    "hiera": "Hiera (SAM 2)",
    "hybrid": "convolutions, then ViT (ours)",
}


class Named:
    """A network's parameters, tables called "tokens", as `Optimiser` knows them.

    Args:
        network: One of `NETWORKS`.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                table = any(word in name for word in TABLES)
                yield f"tokens {name}" if table else name, parameter
