"""The network of the default model: a convolutional stem, a small ViT, a promptable decoder.

The transformer parts are the blocks of transformers' SAM (`SamVisionLayer`,
`SamTwoWayTransformer`), so that LoRA addresses them by the same names as in any SAM. Prompts
reach the decoder as maps (clicks, strokes, box, mask) rather than as sparse tokens: a batch of
ragged prompts then gives exactly what each prompt alone gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamTwoWayTransformer, SamVisionLayer

PROMPT_CHANNELS = 7
STRIDE = 16


class PromptsegConfig(PretrainedConfig):
    """Shape of the default network.

    Args:
        image_size: Side of the square input the position tables are made for, in pixels.
        stem: Channels at strides 2, 4 and 8.
        hidden_size: Width of the transformer blocks at stride 16.
        depth: Number of transformer blocks.
        heads: Attention heads of a block.
        decoder: Decoder channels at strides 16, 8, 4 and 2.
        groups: Groups of every group normalisation.
        masks: Candidate masks: one for clear prompts, the rest for ambiguous ones.
        names: Concepts that have a token of their own, in the order of the tokens.
        crop_factor: Side of the crops that it was trained on over that of the target's box; None
            where training drew many.
    """

    model_type = "promptseg"

    def __init__(
        self,
        image_size: int = 256,
        stem: tuple[int, int, int] = (24, 48, 96),
        hidden_size: int = 192,
        depth: int = 4,
        heads: int = 6,
        decoder: tuple[int, int, int, int] = (128, 64, 48, 24),
        groups: int = 8,
        masks: int = 4,
        names: Sequence[str] = (),
        crop_factor: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.stem = tuple(stem)
        self.hidden_size = hidden_size
        self.depth = depth
        self.heads = heads
        self.decoder = tuple(decoder)
        self.groups = groups
        self.masks = masks
        self.names = list(names)
        self.crop_factor = crop_factor
        super().__init__(**kwargs)


def conv_norm(inputs: int, outputs: int, groups: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, group normalisation, rectifier."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.GroupNorm(groups, outputs),
        nn.ReLU(),
    )


def laid_out(maps: Tensor) -> Tensor:
    """(B, C, H, W) with the channels of a pixel side by side, in single precision on a CPU.

    What follows keeps the layout, in which oneDNN's convolutions need no copies: a prompt is
    answered in a seventh less time, eight at once in a quarter less. With autocast and in gradients
    the rounding of a row would depend on how many there are; on a GPU nobody measured it.
    """
    if maps.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.is_grad_enabled():
        return maps.contiguous()
    return maps.contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """Two normalised convolutions with a shortcut; (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.first = conv_norm(channels, channels, groups)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.GroupNorm(groups, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class ImageEncoder(nn.Module):
    """Slices (B, 3, S, S) -> maps at strides 16, 8, 4 and 2."""

    def __init__(self, config: PromptsegConfig) -> None:
        super().__init__()
        groups, (half, quarter, eighth), width = config.groups, config.stem, config.hidden_size
        self.stride2 = nn.Sequential(conv_norm(3, half, groups, 2), conv_norm(half, half, groups))
        self.stride4 = nn.Sequential(
            conv_norm(half, quarter, groups, 2), ResidualBlock(quarter, groups)
        )
        self.stride8 = nn.Sequential(
            conv_norm(quarter, eighth, groups, 2),
            ResidualBlock(eighth, groups),
            ResidualBlock(eighth, groups),
        )
        self.stride16 = conv_norm(eighth, width, groups, 2)
        vision = SamVisionConfig(
            hidden_size=width,
            num_attention_heads=config.heads,
            mlp_dim=width * 4,
            image_size=config.image_size,
            patch_size=STRIDE,
            window_size=0,
            use_rel_pos=True,
            attn_implementation="sdpa",  # type: ignore[call-arg]
        )
        self.layers = nn.ModuleList(SamVisionLayer(vision, 0) for _ in range(config.depth))
        self.neck = nn.Sequential(
            nn.Conv2d(width, config.decoder[0], 1), nn.GroupNorm(groups, config.decoder[0])
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half = self.stride2(laid_out(images) * 2 - 1)
        quarter = self.stride4(half)
        eighth = self.stride8(quarter)
        tokens = self.stride16(eighth).permute(0, 2, 3, 1).contiguous()
        for layer in self.layers:
            tokens = layer(tokens)
        return self.neck(laid_out(tokens.permute(0, 3, 1, 2))), eighth, quarter, half


class PromptEncoder(nn.Module):
    """Prompt maps (B, channels, S/2, S/2) -> maps at strides 16, 8, 4 and 2."""

    def __init__(self, config: PromptsegConfig, channels: int = PROMPT_CHANNELS) -> None:
        super().__init__()
        sixteenth, eighth, quarter, half = config.decoder
        groups = config.groups
        self.stride2 = conv_norm(channels, half, groups)
        self.stride4 = conv_norm(half, quarter, groups, 2)
        self.stride8 = conv_norm(quarter, eighth, groups, 2)
        self.stride16 = nn.Conv2d(eighth, sixteenth, 3, 2, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half = self.stride2(laid_out(maps))
        quarter = self.stride4(half)
        eighth = self.stride8(quarter)
        return self.stride16(eighth), eighth, quarter, half


class Fusion(nn.Module):
    """Upscale the coarse map twice and add the image and prompt maps of that level."""

    def __init__(self, coarse: int, image: int, outputs: int, groups: int, blocks: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(coarse, outputs, 1)
        self.image = nn.Conv2d(image, outputs, 1, bias=False)
        self.mix = conv_norm(outputs, outputs, groups)
        self.blocks = nn.Sequential(*(ResidualBlock(outputs, groups) for _ in range(blocks)))

    def forward(self, coarse: Tensor, image: Tensor, prompt: Tensor) -> Tensor:
        raised = functional.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        return self.blocks(self.mix(raised + self.image(image) + prompt))


def head(width: int, outputs: int) -> nn.Sequential:
    """Two-layer perceptron on a token."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


def position_map(height: int, width: int, table: Tensor) -> Tensor:
    """Random Fourier features of pixel centres: (1, C, height, width)."""
    rows = (torch.arange(height, device=table.device) + 0.5) / height
    columns = (torch.arange(width, device=table.device) + 0.5) / width
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    angles = 2 * torch.pi * ((2 * grid - 1).to(table.dtype) @ table)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).permute(2, 0, 1)[None]


class MaskDecoder(nn.Module):
    """Image maps + prompt maps -> candidate masks, their quality, presence of the target."""

    frequencies: Tensor

    def __init__(self, config: PromptsegConfig) -> None:
        super().__init__()
        sixteenth, eighth, quarter, half = config.decoder
        groups = config.groups
        self.tokens = nn.Embedding(config.masks + 2, sixteenth)
        self.concept = nn.Embedding(1, sixteenth)
        self.names = nn.Embedding(len(config.names), sixteenth) if config.names else None
        self.register_buffer("frequencies", torch.randn(2, sixteenth // 2))
        self.transformer = SamTwoWayTransformer(
            SamMaskDecoderConfig(
                hidden_size=sixteenth,
                num_hidden_layers=2,
                num_attention_heads=4,
                mlp_dim=sixteenth * 4,
                attn_implementation="sdpa",  # type: ignore[call-arg]
            )
        )
        self.to_eighth = Fusion(sixteenth, config.stem[2], eighth, groups, 1)
        self.to_quarter = Fusion(eighth, config.stem[1], quarter, groups, 1)
        self.to_half = Fusion(quarter, config.stem[0], half, groups, 0)
        self.kernels = nn.ModuleList(head(sixteenth, half) for _ in range(config.masks))
        self.quality = head(sixteenth, config.masks)
        self.presence = head(sixteenth, 1)

    def forward(
        self,
        image: tuple[Tensor, Tensor, Tensor, Tensor],
        prompt: tuple[Tensor, Tensor, Tensor, Tensor],
        concept: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        coarse = image[0] + prompt[0]
        batch, channels, height, width = coarse.shape
        if concept is None:
            concept = self.concept.weight.expand(batch, -1)
        tokens = self.tokens.weight.to(coarse.dtype).expand(batch, -1, -1)
        tokens = torch.cat([tokens, concept[:, None].to(coarse.dtype)], dim=1)
        position = position_map(height, width, self.frequencies).to(coarse.dtype)
        tokens, keys = self.transformer(
            tokens[:, None], coarse, position.expand(batch, -1, -1, -1), None
        )
        tokens = tokens[:, 0]
        # Laid out: else the layout, and with it the rounding, differs for a batch of one.
        coarse = laid_out(keys[:, 0].transpose(1, 2).reshape(batch, channels, height, width))
        fine = self.to_eighth(coarse, image[1], prompt[1])
        fine = self.to_quarter(fine, image[2], prompt[2])
        fine = self.to_half(fine, image[3], prompt[3])
        kernels = torch.stack([k(tokens[:, 2 + n]) for n, k in enumerate(self.kernels)], dim=1)
        logits = torch.einsum("bmc,bchw->bmhw", kernels, fine)
        return logits, self.quality(tokens[:, 0]), self.presence(tokens[:, 1])[:, 0]


class PromptsegModel(PreTrainedModel):
    """The default network; `save_pretrained` and `from_pretrained` as any transformers model."""

    config_class = PromptsegConfig
    base_model_prefix = "promptseg"
    main_input_name = "images"
    _supports_sdpa = True

    def __init__(self, config: PromptsegConfig) -> None:
        super().__init__(config)
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own layer initialisation; relative positions start at zero."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, 3, S, S) grey values in [0, 1] -> maps at strides 16, 8, 4 and 2."""
        return self.image_encoder(images)

    def decode(
        self,
        features: tuple[Tensor, Tensor, Tensor, Tensor],
        maps: Tensor,
        concept: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks of B prompts on B embeddings.

        Args:
            features: What `encode` gave, each (B, C, H, W).
            maps: (B, PROMPT_CHANNELS, S/2, S/2) from `prompt_maps`.
            concept: (B, C) token that names the target, None for "whatever is prompted".

        Returns:
            Logits (B, masks, S/2, S/2), quality logits (B, masks), presence logits (B,).
        """
        return self.mask_decoder(features, self.prompt_encoder(maps), concept)

    def forward(
        self, images: Tensor, maps: Tensor, concept: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`encode` then `decode`."""
        return self.decode(self.encode(images), maps, concept)
