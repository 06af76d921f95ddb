"""The configuration of a small hierarchical encoder, for SAM 2's image and video models."""

from __future__ import annotations

import transformers


def tiny_hiera(side: int, channels: int) -> transformers.Sam2VisionConfig:
    """Four stages from 16 to 128 channels, brought to `channels` for a square of `side` pixels."""
    stages = transformers.Sam2HieraDetConfig(
        hidden_size=16,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 6, 3],
        global_attention_blocks=[3],
    )
    return transformers.Sam2VisionConfig(
        backbone_config=stages.to_dict(),
        backbone_channel_list=[128, 64, 32, 16],
        fpn_hidden_size=channels,
        backbone_feature_sizes=[[side // stride] * 2 for stride in (4, 8, 16)],
    )
