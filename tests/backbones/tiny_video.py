"""A small SAM 2 with memory, and what the library's own tracking of a video says of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import transformers
from backbones.tiny_hiera import tiny_hiera
from backbones.tiny_sam import randomise
from torch import Tensor
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from promptseg.evaluate.bench.video import random_video

VIDEO_SIDE = 128
BOX_LABELS = (2, 3)


def tiny_video(side: int = VIDEO_SIDE) -> torch.nn.Module:
    """A `Sam2VideoModel` as the library initialises it."""
    decoder = {"hidden_size": 128, "mlp_dim": 64, "iou_head_hidden_dim": 64}
    config = transformers.Sam2VideoConfig(
        vision_config=tiny_hiera(side, 128).to_dict(),
        image_size=side,
        prompt_encoder_config={"hidden_size": 128, "image_size": side},
        mask_decoder_config={**decoder, "num_attention_heads": 4},
        memory_attention_hidden_size=128,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=64,
    )
    return random_video(config)


def remembering_video(faint: bool = False) -> torch.nn.Module:
    """The same with all weights far from zero, so that every part of the memory matters.

    Args:
        faint: True for one that finds the target absent on some frames, but not where a box is.
    """
    video = tiny_video()
    randomise(video, 1, 0.1)
    if faint:
        last = video.mask_decoder.pred_obj_score_head.proj_out
        last.weight.data.neg_()
        last.bias.data.neg_().add_(1.7)
    return video.eval()


def tracked(
    video: torch.nn.Module, pixels: Tensor, boxes: Mapping[int, Tensor], start: int, reverse: bool
) -> dict[int, tuple[Tensor, float]]:
    """Logits (m, m) and score of the target's presence by frame, from boxes of one target.

    Args:
        video: The model.
        pixels: (N, 3, side, side) as it takes them.
        boxes: (4,) x0, y0, x1, y1 by frame, pixel centres at whole numbers.
        start: Where it begins, one of these frames.
        reverse: True to go backwards.
    """
    session = Sam2VideoInferenceSession(pixels, *pixels.shape[-2:], dtype=torch.float32)
    number = session.obj_id_to_idx(1)
    for frame, box in boxes.items():
        corners = {
            "point_coords": box.view(1, 1, 2, 2),
            "point_labels": torch.tensor([[BOX_LABELS]], dtype=torch.int32),
        }
        session.add_point_inputs(number, frame, corners)
        session.obj_with_new_inputs = [1]
        video(session, frame_idx=frame)
    return {
        found.frame_idx: (found.pred_masks[0, 0], float(found.object_score_logits))
        for found in video.propagate_in_video_iterator(session, start, reverse=reverse)
    }
