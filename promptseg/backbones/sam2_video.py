"""SAM 2 with its memory through the transformers library.

Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025. The library's modules are
called as its own tracking of a video calls them; what it keeps in a session is handed in and out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam2_video.modeling_sam2_video import NO_OBJ_SCORE, get_1d_sine_pe

from promptseg.backbones.base import Decoded, Embedding
from promptseg.backbones.groups import Group
from promptseg.backbones.memory import Memory, MemorySpan, Recollection
from promptseg.backbones.transformers import TransformersSam2, rebuilt

MOST_KEY_SLICES = 4


class TransformersSam2Video(TransformersSam2):
    """`Sam2VideoModel`: `TransformersSam2` that remembers.

    `encode` and `decode` are those of the image part. A mask that nothing but the memory asked
    for is empty where the network finds the target absent; one that a prompt asked for is kept.
    """

    predicts_presence = True
    propagates = "memory"

    def __init__(self, module: Any, **options: Any) -> None:
        super().__init__(module, **options)
        config = module.config
        tracked = config.multimask_output_in_sam and config.multimask_output_for_tracking
        most = config.max_cond_frame_num
        self.span = MemorySpan(
            maps=config.num_maskmem - 1,
            pointers=config.max_object_pointers_in_encoder,
            key_slices=most if most > 0 else MOST_KEY_SLICES,
            ambiguous=tracked and config.multimask_min_pt_num <= 0,
        )

    @staticmethod
    def _resized(module: Any, size: int, name: str) -> nn.Module:
        config = copy.deepcopy(module.config)
        config.image_size = config.prompt_encoder_config.image_size = size
        config.vision_config.backbone_feature_sizes = [[size // s, size // s] for s in (4, 8, 16)]
        config.memory_attention_rope_feat_sizes = [size // 16, size // 16]
        return rebuilt(module, config, module.state_dict(), name)

    def _decoded(self, features: Embedding, group: Group, multimask: bool) -> Decoded:
        logits, quality, score, pointers = self._drawn(features, group, multimask)
        if group.empty:
            logits = torch.where(score[:, None, None, None] > 0, logits, NO_OBJ_SCORE)
        return Decoded(logits, quality.clamp(0.0, 1.0), score.sigmoid(), pointers)

    def _drawn(
        self, features: Embedding, group: Group, multimask: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (B, M, m, m), quality (B, M), score (B,) of presence, pointers (B, M, P)."""
        network = self._network
        fine, middle, coarse = features.features
        places = network.get_image_wide_positional_embeddings()
        sparse, dense = network.prompt_encoder(**prompts_of(group, coarse))
        logits, quality, tokens, score = network.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=places.expand(len(coarse), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            high_resolution_features=[fine, middle],
        )
        pointers = network.object_pointer_proj(tokens[:, 0])
        return logits[:, 0], quality[:, 0], score[:, 0, 0], pointers

    def remember(
        self,
        embedding: Embedding,
        logits: Tensor,
        presence: Tensor,
        pointers: Tensor | None = None,
        by_user: bool = False,
    ) -> Memory:
        """What is to be remembered of B answers; see `MemoryBackbone`."""
        network, size = self._network, (self.spec.input_size,) * 2
        coarse = self._without_still(embedding)
        there = (presence > 0.5).to(coarse)[:, None]
        full = functional.interpolate(
            logits.to(coarse)[:, None], size, mode="bilinear", align_corners=False
        )
        full = torch.where(there[..., None, None] > 0, full, NO_OBJ_SCORE)
        mask = (full > 0).to(full) if by_user else full.sigmoid()
        if pointers is None:
            pointers = self._pointers_of(embedding, (full > 0).to(full))
        scale, offset = self._scale_of_masks
        maps, _ = network.memory_encoder(coarse, mask * scale + offset)
        lost = network.occlusion_spatial_embedding_parameter
        if lost is not None:
            maps = maps + ((1 - there) * lost)[..., None, None]
        pointers = there * pointers.to(coarse) + (1 - there) * network.no_object_pointer
        return Memory(maps.to(torch.bfloat16), pointers.float())

    def _pointers_of(self, embedding: Embedding, masks: Tensor) -> Tensor:
        """(B, P) pointers of masks (B, 1, size, size) that something else has drawn."""
        coarse = self._without_still(embedding)
        features = Embedding((*self._on_device(embedding).features[:2], coarse))
        group = Group(None, None, None, self._network.mask_downsample(masks))
        with torch.autocast(coarse.device.type, enabled=False):
            _, quality, _, pointers = self._drawn(features, group, multimask=True)
        best = quality.argmax(1)
        return pointers[torch.arange(len(best), device=best.device), best]

    def recall(self, embedding: Embedding, recollections: Sequence[Recollection]) -> Embedding:
        """B embeddings that know the target; see `MemoryBackbone`."""
        network = self._network
        coarse = self._without_still(embedding)
        sine = network.vision_encoder.neck.position_encoding
        places = sine(coarse.shape, coarse.device, coarse.dtype)
        maps, of_maps = self._map_tokens(recollections, coarse)
        pointers, of_pointers = self._pointer_tokens(recollections, coarse)
        known = network.memory_attention(
            sequence(coarse),
            torch.cat([maps, pointers]),
            sequence(places.expand_as(coarse)),
            torch.cat([of_maps, of_pointers]),
            len(pointers),
        )
        conditioned = known.reshape(-1, *known.shape[-2:]).transpose(1, 2).reshape(coarse.shape)
        fine, middle, _ = self._on_device(embedding).features
        return Embedding((fine, middle, conditioned.to(coarse)))

    def _on_device(self, embedding: Embedding) -> Embedding:
        still = self._network.no_memory_embedding
        return embedding.to(still.device, still.dtype)

    @property
    def _scale_of_masks(self) -> tuple[float, float]:
        config = self._network.config
        return config.sigmoid_scale_for_mem_enc, config.sigmoid_bias_for_mem_enc

    def _without_still(self, embedding: Embedding) -> Tensor:
        """(B, C, h, w) coarse features, without what `encode` adds for "no memory"."""
        still = self._network.no_memory_embedding.reshape(1, -1, 1, 1)
        return embedding.features[-1].to(still) - still

    def _map_tokens(
        self, recollections: Sequence[Recollection], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(T, B, C) of all maps one behind the other, and where and when they are from."""
        network = self._network
        maps, codes = [], []
        for column in zip(*(r.maps for r in recollections), strict=True):
            found = torch.cat([one for one, _ in column]).to(like)
            where = network.memory_encoder.position_encoding(found.shape, like.device, like.dtype)
            back = torch.tensor([steps for _, steps in column], device=like.device)
            # The code of a prompted slice, 0 steps back, is the last.
            when = network.memory_temporal_positional_encoding[back - 1].flatten(1)
            maps.append(sequence(found))
            codes.append(sequence(where.expand_as(found)) + when)
        return torch.cat(maps), torch.cat(codes)

    def _pointer_tokens(
        self, recollections: Sequence[Recollection], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(T, B, C) of all pointers, in pieces as wide as the maps, and when they are from."""
        network, width = self._network, self._network.mem_dim
        pointers = torch.stack(
            [torch.cat([one for one, _ in r.pointers]) for r in recollections], dim=1
        ).to(like)
        count, rows, channels = pointers.shape
        pieces = pointers.reshape(count, rows, -1, width).transpose(1, 2).flatten(0, 1)
        codes = like.new_zeros(count, rows, width)
        if network.config.enable_temporal_pos_encoding_for_object_pointers:
            back = [[steps / max(r.horizon, 1) for _, steps in r.pointers] for r in recollections]
            when = get_1d_sine_pe(torch.tensor(back, device=like.device).T, dim=channels)
            codes = network.temporal_positional_encoding_projection_layer(when.to(like))
        return pieces, codes.repeat_interleave(len(pieces) // count, dim=0)


def sequence(maps: Tensor) -> Tensor:
    """(h * w, B, C) vectors of (B, C, h, w) maps."""
    return maps.flatten(2).permute(2, 0, 1)


def prompts_of(group: Group, features: Tensor) -> dict[str, Tensor | None]:
    """Prompts as arguments of the prompt encoder; a padding point where there is none."""
    points, labels = group.points, group.labels
    if points is None and group.boxes is None:
        points = features.new_zeros(len(features), 1, 2)
        labels = torch.full((len(features), 1), -1, device=features.device)
    return {
        "input_points": None if points is None else points[:, None],
        "input_labels": None if labels is None else labels[:, None],
        "input_boxes": None if group.boxes is None else group.boxes[:, None],
        "input_masks": group.masks,
    }
