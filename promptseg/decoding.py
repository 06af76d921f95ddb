"""Prompts on slices -> one mask each, decoded together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from promptseg.backbones.base import Backbone, Decoded, Embedding, PixelPrompts, PromptBatch
from promptseg.embeddings import Progress, SliceEncoder, autocast, out_of_memory
from promptseg.errors import PromptsegError
from promptseg.slicing import Frame

ABSENT_LOGIT = -8.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceMask:
    """Answer for one target on one slice.

    Args:
        logits: (m, m) float32 on the CPU, covering a frame's square input.
        quality: Predicted overlap with the truth in [0, 1].
        presence: Probability that the target is there; 1 if the network does not predict it.
        given: (H, W) bool mask of the whole slice that the user gave, to be kept as it is.
        likeness: Likeness in [0, 1] of the grey levels inside to those of the anchor's mask.
    """

    logits: Tensor
    quality: float
    presence: float = 1.0
    given: np.ndarray | None = None
    likeness: float = 1.0

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int((self.logits > 0).sum())


@dataclass(frozen=True)
class Request:
    """One target on one slice to be decoded.

    Args:
        index: Slice number.
        prompts: In pixels of the frame's input.
        ambiguous: True if the best of three candidates is wanted.
        concept: (C,) token that names the target, None for "whatever is prompted".
    """

    index: int
    prompts: PixelPrompts
    ambiguous: bool = False
    concept: Tensor | None = None


class SliceDecoder:
    """Decodes any number of requests with one call of the network a kind.

    Args:
        encoder: Gives embeddings, and says where and how precisely to compute.
        batch_size: Masks at once; halved when memory runs out.
    """

    def __init__(self, encoder: SliceEncoder, batch_size: int = 16) -> None:
        self.encoder = encoder
        self.backbone: Backbone = encoder.backbone
        self.batch_size = batch_size
        self.decoded = 0

    def decode(
        self, frame: Frame, requests: Sequence[Request], progress: Progress | None = None
    ) -> list[SliceMask]:
        """Masks of N requests, in their order."""
        embedding = self.encoder.embed(frame, [r.index for r in requests], progress)
        return self.decode_embedded(embedding, requests)

    def decode_embedded(self, embedding: Embedding, requests: Sequence[Request]) -> list[SliceMask]:
        """Masks of N requests on N embeddings."""
        answers: dict[int, SliceMask] = {}
        kinds = [(r.ambiguous, r.concept is not None) for r in requests]
        for kind in sorted(set(kinds)):
            rows = [n for n, k in enumerate(kinds) if k == kind]
            while rows:
                found = self._fitting(embedding, requests, rows[: self.batch_size])
                answers.update(zip(rows, found, strict=False))
                rows = rows[len(found) :]
        return [answers[n] for n in range(len(requests))]

    def _fitting(
        self, embedding: Embedding, requests: Sequence[Request], rows: list[int]
    ) -> list[SliceMask]:
        """Masks of as many of `rows`, from the front, as fit into memory."""
        while True:
            try:
                decoded = self._forward(embedding[rows], [requests[n] for n in rows])
                return best_candidates(decoded)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise PromptsegError(
                        "one mask does not fit into memory: use a smaller model or the CPU"
                    ) from error
                rows = rows[: len(rows) // 2]
                self.batch_size = len(rows)
                logger.warning("out of memory: going on with batches of %d masks", len(rows))
                if self.encoder.device.type == "cuda":
                    torch.cuda.empty_cache()

    def candidates(self, frame: Frame, requests: Sequence[Request]) -> Decoded:
        """All candidate masks of N requests, each taken as ambiguous, in their order.

        Args:
            frame: The view of the volume.
            requests: At least one; all with a token or all without.
        """
        return self.candidates_in([(frame, request) for request in requests])

    def candidates_in(self, asked: Sequence[tuple[Frame, Request]]) -> Decoded:
        """The same of requests that are each seen in a view of its own."""
        parts = []
        for start in range(0, len(asked), self.batch_size):
            chunk = asked[start : start + self.batch_size]
            embedding = self.encoder.embed_views([(frame, r.index) for frame, r in chunk])
            parts.append(self._forward(embedding, [replace(r, ambiguous=True) for _, r in chunk]))
        return Decoded(torch.cat([p.logits for p in parts]), torch.cat([p.quality for p in parts]))

    @torch.inference_mode()
    def _forward(self, embedding: Embedding, requests: Sequence[Request]) -> Decoded:
        spec, device = self.backbone.spec, self.encoder.device
        prompts = [request.prompts for request in requests]
        batch = PromptBatch.collate(prompts, spec.input_size, spec.mask_size).to(device)
        tokens = [r.concept for r in requests if r.concept is not None]
        named = {"concept": torch.stack(tokens).to(device)} if tokens else {}
        with autocast(device, self.encoder.precision):
            decoded = self.backbone.decode(embedding, batch, requests[0].ambiguous, **named)
        self.decoded += len(requests)
        presence = None if decoded.presence is None else decoded.presence.float().cpu()
        return replace(
            decoded,
            logits=decoded.logits.float().cpu(),
            quality=decoded.quality.float().cpu(),
            presence=presence,
        )


def best_candidates(decoded: Decoded) -> list[SliceMask]:
    """Of every row the candidate with the greatest predicted quality."""
    chosen = decoded.quality.argmax(1)
    return [
        SliceMask(
            decoded.logits[row, candidate].clone(),
            float(decoded.quality[row, candidate]),
            1.0 if decoded.presence is None else float(decoded.presence[row]),
        )
        for row, candidate in enumerate(chosen.tolist())
    ]
