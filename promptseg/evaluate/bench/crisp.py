"""Masks that mean something from a network of random weights.

A random network's logits lie near zero, where any rounding flips a sign, so that masks of two
ways of computing the same cannot be compared, and its propagation through a volume follows
nothing. The last layer of the mask decoder fitted to a known target mends both at the cost of
encoding three slices. All before it stays random, and takes the time it always takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d

from promptseg.backbones.base import Embedding, PixelPrompts, PromptBatch
from promptseg.backbones.transformers import TransformersBackbone
from promptseg.evaluate.bench.contenders import AXIS
from promptseg.evaluate.bench.scenes import Scene, slice_boxes
from promptseg.evaluate.metrics import dice
from promptseg.inference.crop import frame_of, whole_slice
from promptseg.inference.slice_prompts import sort_prompts
from promptseg.session import Segmenter

LOGIT = 10.0
QUALITY_LOGIT, OBJECT_LOGIT = 3.0, 10.0
RIDGE = 1e-6


def fit_masks(backbone: TransformersBackbone, scene: Scene) -> None:
    """Fit the last layer of the mask decoder, so that masks follow the first target.

    Of the last upscaling's channels the first becomes a linear function z of the layer before
    and the second -z, and their difference the logits: GELU(z) - GELU(-z) = z. The predicted
    quality becomes high everywhere.

    Args:
        backbone: Of `SamModel` or `Sam2Model`; its mask decoder is changed.
        scene: With the target.
    """
    embedding, prompts, shares = fitting_slices(backbone, scene)
    factors, offset = least_squares(last_features(backbone, embedding, prompts), shares)
    decoder: Any = backbone.module.mask_decoder
    with torch.no_grad():
        for channel, sign in ((0, 1.0), (1, -1.0)):
            decoder.upscale_conv2.weight[:, channel] = sign * factors
            decoder.upscale_conv2.bias[channel] = sign * offset
        if hasattr(decoder, "conv_s0"):
            decoder.conv_s0.weight[:2] = 0
            decoder.conv_s0.bias[:2] = 0
    difference = torch.zeros(decoder.upscale_conv2.out_channels)
    difference[0], difference[1] = 1.0, -1.0
    for mlp in decoder.output_hypernetworks_mlps:
        set_constant(mlp.proj_out, difference)
    set_constant(decoder.iou_prediction_head.proj_out, QUALITY_LOGIT)
    if hasattr(decoder, "pred_obj_score_head"):
        set_constant(decoder.pred_obj_score_head.proj_out, OBJECT_LOGIT)


def fitting_slices(
    backbone: TransformersBackbone, scene: Scene
) -> tuple[Embedding, PromptBatch, Tensor]:
    """Embedding, boxes and (B, m, m) true shares of the slices that the fit looks at."""
    target, spec = scene.targets[0], backbone.spec
    filled = np.flatnonzero(target.any((0, 1)))
    chosen = sorted({int(filled[len(filled) // 2]), int(filled[0]), max(0, int(filled[0]) - 1)})
    device = next(backbone.module.parameters()).device
    session = Segmenter(backbone, str(device), "fp32", 1).session(scene.volume, AXIS)
    boxes = slice_boxes(target, everywhere=True).to_voxel(scene.volume)
    engine = session.asker.prepared(boxes, AXIS)
    frame = frame_of(engine.encoder, AXIS, whole_slice(engine.encoder, AXIS), engine.spacing)
    places = sort_prompts(boxes, AXIS, engine.shape)[1]
    asked: list[PixelPrompts] = [places[k].to_pixels(frame, k, spec.mask_size) for k in chosen]
    batch = PromptBatch.collate(asked, spec.input_size, spec.mask_size)
    shares = torch.stack([frame.project(target[:, :, k], spec.mask_size) for k in chosen])
    return engine.encoder.embed(frame, chosen), batch, shares


@torch.no_grad()
def last_features(
    backbone: TransformersBackbone, embedding: Embedding, prompts: PromptBatch
) -> Tensor:
    """(B, C, m/2, m/2) what the last upscaling of the mask decoder is given."""
    decoder: Any = backbone.module.mask_decoder
    seen: list[Tensor] = []
    hook = decoder.upscale_conv2.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        backbone.decode(embedding, prompts)
    finally:
        hook.remove()
    return torch.cat(seen).cpu()


def least_squares(features: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Transposed convolution of stride 2 that gives +10 inside and -10 outside.

    Inside and outside count the same, however few pixels they have; the bias is then moved to
    where the masks agree best.

    Args:
        features: (B, C, m/2, m/2).
        shares: (B, m, m) how much of each pixel is inside.

    Returns:
        (C, 2, 2) weights and the () bias.
    """
    rows = features.permute(0, 2, 3, 1).flatten(0, 2).double()
    inside = shares.double()
    weight = inside / inside.sum() + (1 - inside) / (1 - inside).sum()
    count = rows.shape[1]
    normal = torch.zeros(4 * count + 1, 4 * count + 1, dtype=torch.double)
    wanted = torch.zeros(4 * count + 1, dtype=torch.double)
    for n in range(4):
        place = (slice(None), slice(n // 2, None, 2), slice(n % 2, None, 2))
        design = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        weighted = (design * weight[place].reshape(-1, 1)).T
        own = [*range(n * count, (n + 1) * count), 4 * count]
        normal[torch.tensor(own)[:, None], own] += weighted @ design
        wanted[own] += weighted @ (2 * inside[place].reshape(-1) - 1)
    normal += RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=torch.double)
    solved = (LOGIT * torch.linalg.solve(normal, wanted)).float()
    factors, offset = solved[:-1].reshape(2, 2, count).permute(2, 0, 1), solved[-1]
    values = conv_transpose2d(features.float(), factors[:, None], offset[None], stride=2)[:, 0]
    return factors, offset - best_level(values, shares > 0.5)


def best_level(values: Tensor, inside: Tensor) -> float:
    """Where to cut values so that what lies above agrees best with a mask of their shape."""
    levels = torch.linspace(-LOGIT, LOGIT, 81).tolist()
    return max(levels, key=lambda level: dice((values > level).numpy(), inside.numpy()))


@torch.no_grad()
def set_constant(layer: nn.Linear, value: Tensor | float) -> None:
    """Let a layer give the same whatever it is given."""
    layer.weight.zero_()
    layer.bias.copy_(torch.as_tensor(value, dtype=layer.bias.dtype).expand_as(layer.bias))


def hand_over(backbone: TransformersBackbone, sam: nn.Module) -> None:
    """Give segment_anything's own network of the same weights the fitted layers too."""
    fitted: Any = backbone.module.mask_decoder
    own: Any = sam.mask_decoder
    pairs = [*zip(fitted.output_hypernetworks_mlps, own.output_hypernetworks_mlps, strict=True)]
    for one, other in [*pairs, (fitted.iou_prediction_head, own.iou_prediction_head)]:
        other.layers[-1].load_state_dict(one.proj_out.state_dict())
    own.output_upscaling[3].load_state_dict(fitted.upscale_conv2.state_dict())
