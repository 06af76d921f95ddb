"""Original checkpoints in the names of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import transformers
from torch import Tensor

from promptseg.backbones.layout import SamShape, layout_of, sam_shape
from promptseg.backbones.loading import load_whole
from promptseg.errors import WeightsError

Rules = Sequence[tuple[str, str]]

# The original decoder leaves layer normalisation at PyTorch's epsilon; transformers' default is
# the encoder's 1e-6.
DECODER_EPSILON = 1e-5

HEADS: Rules = (
    (r"\.mask_downscaling\.0\.", r".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", r".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", r".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", r".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", r".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", r".upscale_conv1."),
    (r"\.output_upscaling\.1\.", r".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", r".upscale_conv2."),
    (r"\.norm_final_attn\.", r".layer_norm_final_attn."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
)
SAM: Rules = (
    (r"^image_encoder\.", r"vision_encoder."),
    (r"\.patch_embed\.proj\.", r".patch_embed.projection."),
    (r"^vision_encoder\.blocks\.", r"vision_encoder.layers."),
    (r"\.neck\.0\.", r".neck.conv1."),
    (r"\.neck\.1\.", r".neck.layer_norm1."),
    (r"\.neck\.2\.", r".neck.conv2."),
    (r"\.neck\.3\.", r".neck.layer_norm2."),
    (r"\.point_embeddings\.", r".point_embed."),
    *HEADS,
)
SAM2: Rules = (
    (r"^image_encoder\.trunk\.", r"vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", r"prompt_encoder."),
    (r"^sam_mask_decoder\.", r"mask_decoder."),
    (r"^no_mem_embed$", r"no_memory_embedding"),
    (r"\.patch_embed\.proj\.", r".patch_embed.projection."),
    (r"_attn(\w*)\.out_proj\.", r"_attn\1.o_proj."),
    (r"\.mlp\.layers\.0\.", r".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", r".mlp.proj_out."),
    *HEADS,
)
MEMORY = r"^(memory_|maskmem_|obj_ptr_|mask_downsample|no_obj_|no_mem_pos_enc)"  # video only
PERCEPTRON = re.compile(r"^(.*(?:_mlps\.\d+|_head))\.layers\.(\d+)\.(\w+)$")
FREQUENCIES = "pe_layer.positional_encoding_gaussian_matrix"


def to_transformers(
    state: Mapping[str, Tensor], name: str, attention: str = "sdpa"
) -> transformers.PreTrainedModel:
    """Build the `SamModel` or `Sam2Model` of an original checkpoint.

    Args:
        state: State dict in the original names of SAM or of SAM 2.
        name: Model named in the message.
        attention: `sdpa` or `eager`.

    Raises:
        WeightsError: If the weights are not a whole network of a known size.
    """
    config: transformers.PretrainedConfig
    if layout_of(state) == "sam2":
        config, renamed = sam2_config(state, name), sam2_state(state)
    else:
        config, renamed = sam_config(sam_shape(state, name)), sam_state(state)
    module = transformers.AutoModel.from_config(config, attn_implementation=attention)
    load_whole(module, renamed, name)
    return module.eval()


def sam_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of segment-anything's `Sam` in the names of transformers' `SamModel`."""
    return _renamed(state, SAM)


def sam_config(shape: SamShape) -> transformers.SamConfig:
    """Configuration of the `SamModel` with that architecture."""
    vision = transformers.SamVisionConfig(
        hidden_size=shape.width,
        output_channels=shape.channels,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        qkv_bias=shape.qkv_bias,
        window_size=shape.window,
        global_attn_indexes=list(shape.global_blocks),
        num_pos_feats=shape.channels // 2,
        mlp_dim=shape.hidden,
    )
    prompt = transformers.models.sam.SamPromptEncoderConfig(
        hidden_size=shape.channels,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
        mask_input_channels=shape.mask_channels,
    )
    return transformers.SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompt.to_dict(),
        mask_decoder_config={
            "hidden_size": shape.channels,
            "mlp_dim": shape.decoder_hidden,
            "num_hidden_layers": shape.decoder_depth,
            "attention_downsample_rate": shape.decoder_downsample,
            "num_multimask_outputs": shape.masks,
            "iou_head_depth": shape.quality_depth,
            "iou_head_hidden_dim": shape.quality_hidden,
            "layer_norm_eps": DECODER_EPSILON,
        },
    )


def sam2_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of an original SAM 2 or 2.1 in the names of transformers' `Sam2Model`.

    The parts that track through a video are left out.
    """
    still = {name: tensor for name, tensor in state.items() if not re.match(MEMORY, name)}
    renamed = _renamed(still, SAM2)
    points = sorted(name for name in renamed if ".point_embeddings." in name)
    renamed["prompt_encoder.point_embed.weight"] = torch.cat([renamed.pop(name) for name in points])
    return renamed


def _renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    depths = _perceptron_depths(state)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(FREQUENCIES):
            renamed["shared_image_embedding.positional_embedding"] = tensor
            renamed["prompt_encoder.shared_embedding.positional_embedding"] = tensor
        else:
            renamed[_new_name(name, rules, depths)] = tensor
    return renamed


def _perceptron_depths(state: Mapping[str, Tensor]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for match in filter(None, map(PERCEPTRON.match, state)):
        depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    return depths


def _new_name(name: str, rules: Rules, depths: Mapping[str, int]) -> str:
    match = PERCEPTRON.match(name)
    if match:
        owner, layer = match[1], int(match[2])
        inner = {0: "proj_in", depths[owner] - 1: "proj_out"}.get(layer, f"layers.{layer - 1}")
        name = f"{owner}.{inner}.{match[3]}"
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


# Published SAM 2 and 2.1 encoders by channels and blocks: blocks of each stage, first stage's
# heads, windows, global blocks, side of the position table.
HIERA: dict[tuple[int, int], tuple[list[int], int, list[int], list[int], int]] = {
    (96, 12): ([1, 2, 7, 2], 1, [8, 4, 14, 7], [5, 7, 9], 7),
    (96, 16): ([1, 2, 11, 2], 1, [8, 4, 14, 7], [7, 10, 13], 7),
    (112, 24): ([2, 3, 16, 3], 2, [8, 4, 14, 7], [12, 16, 20], 14),
    (144, 48): ([2, 6, 36, 4], 2, [8, 4, 16, 8], [23, 33, 43], 7),
}


def sam2_config(state: Mapping[str, Tensor], name: str) -> transformers.Sam2Config:
    """Configuration of the `Sam2Model` for an original checkpoint of SAM 2 or 2.1.

    Args:
        state: State dict in the original names.
        name: Model named in the message.

    Raises:
        WeightsError: If it is not one of the four published sizes.
    """
    table = state.get("image_encoder.trunk.pos_embed")
    width = 0 if table is None else table.shape[1]
    found = [re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", key) for key in state]
    depth = 1 + max((int(match[1]) for match in found if match), default=-1)
    if (width, depth) not in HIERA:
        raise WeightsError(
            f"{name} is no published SAM 2: its encoder has {width} channels and {depth} blocks; "
            "save it with save_pretrained and give the folder"
        )
    stages, heads, windows, everywhere, side = HIERA[width, depth]
    widths = [width * 2**stage for stage in range(len(stages))]
    encoder = transformers.Sam2HieraDetConfig(
        hidden_size=width,
        num_attention_heads=heads,
        blocks_per_stage=stages,
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[heads * 2**stage for stage in range(len(stages))],
        window_size_per_stage=windows,
        global_attention_blocks=everywhere,
        window_positional_embedding_background_size=[side, side],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=encoder.to_dict(), backbone_channel_list=widths[::-1]
    )
    return transformers.Sam2Config(vision_config=vision.to_dict())
