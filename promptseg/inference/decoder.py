"""Prompts on slices -> one mask each, decoded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from promptseg.backbones.base import Backbone, Decoded, Embedding, PixelPrompts, PromptBatch
from promptseg.backbones.memory import Memory, Recollection, memory_backbone
from promptseg.inference.device import autocast, halved_until_it_fits
from promptseg.inference.encoder import Progress, SliceEncoder
from promptseg.volume.slicing import Frame

ABSENT_LOGIT = -8.0


@dataclass(frozen=True)
class SliceMask:
    """Answer for one target on one slice.

    Args:
        logits: (m, m) float32 on the CPU, covering a frame's square input.
        quality: Predicted overlap with the truth in [0, 1].
        presence: Probability that the target is there; 1 if the network does not predict it.
        given: (H, W) bool mask of the whole slice that the user gave, to be kept as it is.
        pointer: (P,) float32 on the CPU, what a network with a memory keeps of the target.
        looked: Dice that the coarse view expects of the whole target; None if it did not look.
    """

    logits: Tensor
    quality: float
    presence: float = 1.0
    given: np.ndarray | None = None
    pointer: Tensor | None = None
    looked: float | None = None

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int((self.logits > 0).sum())


def mean_mask(masks: Sequence[SliceMask], weights: Sequence[float]) -> SliceMask:
    """Weighted mean of answers for one target on one slice; the weights sum to 1."""
    weighted = list(zip(weights, masks, strict=True))
    return SliceMask(
        torch.stack([weight * mask.logits for weight, mask in weighted]).sum(0),
        sum(weight * mask.quality for weight, mask in weighted),
        sum(weight * mask.presence for weight, mask in weighted),
    )


@dataclass(frozen=True)
class Request:
    """One target on one slice to be decoded.

    Args:
        index: Slice number.
        prompts: In pixels of the frame's input.
        ambiguous: True if the best of three candidates is wanted.
        concept: (C,) token that names the target, None for "whatever is prompted".
        memory: What is recalled of the target, for a network with a memory; needs no prompt.
    """

    index: int
    prompts: PixelPrompts
    ambiguous: bool = False
    concept: Tensor | None = None
    memory: Recollection | None = None

    @property
    def kind(self) -> tuple[bool, bool, tuple[int, int]]:
        """Requests of one kind can be decoded together."""
        recalled = (0, 0) if self.memory is None else self.memory.shape
        return self.ambiguous, self.concept is not None, recalled


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
        kinds = [request.kind for request in requests]
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

        def compute(count: int) -> list[SliceMask]:
            some = rows[:count]
            return best_candidates(self._forward(embedding[some], [requests[n] for n in some]))

        found, fitted = halved_until_it_fits(len(rows), compute, "mask", self.encoder.device)
        if fitted < len(rows):
            self.batch_size = fitted
        return found

    def candidates(self, frame: Frame, requests: Sequence[Request]) -> Decoded:
        """All candidate masks of N requests, each taken as ambiguous, in their order.

        Args:
            frame: The view of the volume.
            requests: At least one; all with a token or all without.
        """
        return self.candidates_in([(frame, request) for request in requests])

    def candidates_in(self, asked: Sequence[tuple[Frame, Request]]) -> Decoded:
        """The same of requests that are each seen in a view of its own."""
        parts = list(self._in_views([(frame, replace(r, ambiguous=True)) for frame, r in asked]))
        return Decoded(torch.cat([p.logits for p in parts]), torch.cat([p.quality for p in parts]))

    def decode_in(self, asked: Sequence[tuple[Frame, Request]]) -> list[SliceMask]:
        """Masks of N requests of one kind that are each seen in a view of its own."""
        return [mask for part in self._in_views(asked) for mask in best_candidates(part)]

    def _in_views(self, asked: Sequence[tuple[Frame, Request]]) -> Iterator[Decoded]:
        for start in range(0, len(asked), self.batch_size):
            chunk = asked[start : start + self.batch_size]
            embedding = self.encoder.embed_views([(frame, r.index) for frame, r in chunk])
            yield self._forward(embedding, [request for _, request in chunk])

    @torch.inference_mode()
    def _forward(self, embedding: Embedding, requests: Sequence[Request]) -> Decoded:
        spec, device = self.backbone.spec, self.encoder.device
        prompts = [request.prompts for request in requests]
        batch = PromptBatch.collate(prompts, spec.input_size, spec.mask_size).to(device)
        tokens = [r.concept for r in requests if r.concept is not None]
        named = {"concept": torch.stack(tokens).to(device)} if tokens else {}
        with autocast(device, self.encoder.precision):
            embedding = self._recalled(embedding, requests)
            decoded = self.backbone.decode(embedding, batch, requests[0].ambiguous, **named)
        self.decoded += len(requests)
        return Decoded(
            decoded.logits.float().cpu(),
            decoded.quality.float().cpu(),
            None if decoded.presence is None else decoded.presence.float().cpu(),
            None if decoded.pointer is None else decoded.pointer.float().cpu(),
        )

    def _recalled(self, embedding: Embedding, requests: Sequence[Request]) -> Embedding:
        """The same, of which each knows what its request recalls."""
        recollections = [r.memory for r in requests if r.memory is not None]
        if not recollections:
            return embedding
        return memory_backbone(self.backbone).recall(embedding, recollections)

    def remember(
        self, embedding: Embedding, masks: Sequence[SliceMask], by_user: bool = False
    ) -> list[Memory]:
        """What a network with a memory keeps of N answers on N embeddings; on the CPU.

        Args:
            embedding: Of their slices.
            masks: The answers.
            by_user: True if the user said where the target is.

        Raises:
            PromptsegError: If the network has no memory.
        """
        found: dict[int, Memory] = {}
        for pointed in (False, True):
            rows = [n for n, mask in enumerate(masks) if (mask.pointer is not None) == pointed]
            for start in range(0, len(rows), self.batch_size):
                chunk = rows[start : start + self.batch_size]
                made = self._remembered(embedding[chunk], [masks[n] for n in chunk], by_user)
                found.update((n, made[row]) for row, n in enumerate(chunk))
        return [found[n] for n in range(len(masks))]

    @torch.inference_mode()
    def _remembered(
        self, embedding: Embedding, masks: Sequence[SliceMask], by_user: bool
    ) -> Memory:
        """The same of answers that all have a pointer, or all none."""
        backbone, device = memory_backbone(self.backbone), self.encoder.device
        pointers = [mask.pointer for mask in masks if mask.pointer is not None]
        there = [float(m.area > 0) if by_user else m.presence for m in masks]
        with autocast(device, self.encoder.precision):
            memory = backbone.remember(
                embedding,
                torch.stack([mask.logits for mask in masks]).to(device),
                torch.tensor(there, device=device),
                torch.stack(pointers).to(device) if pointers else None,
                by_user,
            )
        return memory.to("cpu")


def best_candidates(decoded: Decoded) -> list[SliceMask]:
    """Of every row the candidate with the greatest predicted quality."""
    chosen = decoded.quality.argmax(1)
    return [
        SliceMask(
            decoded.logits[row, candidate].clone(),
            float(decoded.quality[row, candidate]),
            1.0 if decoded.presence is None else float(decoded.presence[row]),
            pointer=None if decoded.pointer is None else decoded.pointer[row, candidate].clone(),
        )
        for row, candidate in enumerate(chosen.tolist())
    ]
