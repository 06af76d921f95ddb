"""SAM 2 with its memory, as transformers runs a video, and its image part through promptseg."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from promptseg.backbones.folders import wrap
from promptseg.backbones.loading import load_whole
from promptseg.backbones.transformers import TransformersBackbone
from promptseg.evaluate.bench.contenders import AXIS, Outcome, corners, to_bytes
from promptseg.evaluate.bench.scenes import Scene, largest_box


def random_video(config: transformers.Sam2VideoConfig | None = None) -> torch.nn.Module:
    """A `Sam2VideoModel` of random weights; SAM 2.1 tiny's shape by default."""
    torch.manual_seed(0)
    chosen = transformers.Sam2VideoConfig() if config is None else config
    return transformers.Sam2VideoModel(chosen).eval()


def image_part(video: Any) -> TransformersBackbone:
    """The network that segments single slices, with a copy of the video's weights."""
    own = video.config
    prompt = {**own.prompt_encoder_config.to_dict(), "model_type": "sam2_prompt_encoder"}
    mask = {**own.mask_decoder_config.to_dict(), "model_type": "sam2_mask_decoder"}
    config = transformers.Sam2Config(
        vision_config=own.vision_config.to_dict(),
        prompt_encoder_config=prompt,
        mask_decoder_config=mask,
    )
    module = transformers.Sam2Model(config)
    names = module.state_dict().keys()
    state = {name: tensor for name, tensor in video.state_dict().items() if name in names}
    load_whole(module, state, "sam2 of random weights")
    return wrap(module.eval(), name="sam2 of random weights")


@torch.inference_mode()
def sam2_video(model: Any, scene: Scene) -> Outcome:
    """transformers' Sam2VideoModel from one box both ways, as its documentation shows.

    In the model's own precision; the documentation loads it in bfloat16.
    """
    processor = video_processor(int(model.config.image_size))
    grey = to_bytes(scene.volume)
    frames = np.repeat(np.moveaxis(grey, AXIS, 0)[..., None], 3, -1)
    session = processor.init_video_session(
        video=frames, inference_device=model.device, dtype=model.dtype
    )
    box = largest_box(scene.targets[0])[0]
    start = int(box.lo[AXIS])  # type: ignore[union-attr]
    processor.add_inputs_to_inference_session(
        session, frame_idx=start, obj_ids=1, input_boxes=[[corners(box).tolist()]]
    )
    model(session, frame_idx=start)
    masks = np.zeros((1, *grey.shape), bool)
    for reverse in (False, True):
        for found in model.propagate_in_video_iterator(session, start, reverse=reverse):
            size = [[session.video_height, session.video_width]]
            full = processor.post_process_masks([found.pred_masks], original_sizes=size)[0]
            masks[0, :, :, found.frame_idx] = full[0, 0].cpu().numpy()
    return Outcome(masks, grey.shape[AXIS])


def video_processor(side: int) -> transformers.Sam2VideoProcessor:
    """The processor of published SAM 2 models, for an input of `side` pixels."""
    size = {"height": side, "width": side}
    return transformers.Sam2VideoProcessor(
        transformers.Sam2ImageProcessor(size=size),
        transformers.Sam2VideoVideoProcessor(size=size),
    )
