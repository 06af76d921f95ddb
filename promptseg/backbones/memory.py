"""What a backbone with a memory can do besides encoding and decoding.

A network that was trained on videos keeps of every slice it answered a map and a vector (object
pointer), and lets the next slices attend to them (Ravi et al., SAM 2, ICLR 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from promptseg.backbones.base import Backbone, Embedding
from promptseg.errors import PromptsegError


@dataclass(frozen=True)
class MemorySpan:
    """How much a network remembers.

    Args:
        maps: Slices back whose maps are recalled.
        pointers: Slices whose pointers are recalled, the present one counted.
        key_slices: Prompted slices that are recalled however far away they are.
        ambiguous: True if the best of several candidates is taken where nothing but the memory
            says what the target is.
    """

    maps: int
    pointers: int
    key_slices: int
    ambiguous: bool = True


@dataclass(frozen=True)
class Memory:
    """What is remembered of B (slice, target) pairs; indexing acts on the batch.

    Args:
        maps: (B, C, h, w) bfloat16.
        pointers: (B, P) float32.
    """

    maps: Tensor
    pointers: Tensor

    def __len__(self) -> int:
        return int(self.maps.shape[0])

    def __getitem__(self, row: int) -> Memory:
        """The memory of one pair, apart from the others."""
        return Memory(self.maps[row : row + 1].clone(), self.pointers[row : row + 1].clone())

    def to(self, device: torch.device | str) -> Memory:
        """Move."""
        return Memory(self.maps.to(device), self.pointers.to(device))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.maps.nbytes + self.pointers.nbytes


@dataclass(frozen=True)
class Recollection:
    """What is recalled of one target on one slice.

    Args:
        maps: Pairs of a map (1, C, h, w) and how many slices back it is from, 0 for a slice that
            the user prompted.
        pointers: Pairs of a pointer (1, P) and how many slices back it is from.
        horizon: Greatest number of slices back, at least 1; distances are relative to it.
    """

    maps: tuple[tuple[Tensor, int], ...]
    pointers: tuple[tuple[Tensor, int], ...]
    horizon: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """How many maps and pointers; recollections of one shape are recalled together."""
        return len(self.maps), len(self.pointers)


@runtime_checkable
class MemoryBackbone(Backbone, Protocol):
    """A backbone with a memory."""

    span: MemorySpan

    def remember(
        self,
        embedding: Embedding,
        logits: Tensor,
        presence: Tensor,
        pointers: Tensor | None = None,
        by_user: bool = False,
    ) -> Memory:
        """What is to be remembered of B answers.

        Args:
            embedding: Of B slices.
            logits: (B, mask_size, mask_size).
            presence: (B,) probability that the target is there; below one half it is not.
            pointers: (B, P) as decoded; None for masks that the network did not draw.
            by_user: True if the user said so: then the masks are certain.
        """
        ...

    def recall(self, embedding: Embedding, recollections: Sequence[Recollection]) -> Embedding:
        """B embeddings that know the target, to be decoded without a prompt.

        Args:
            embedding: Of B slices.
            recollections: One each, all of one shape.
        """
        ...


def memory_backbone(backbone: Backbone) -> MemoryBackbone:
    """A backbone that has a memory, as it declares.

    Raises:
        PromptsegError: It has none.
    """
    if backbone.spec.propagates != "memory" or not isinstance(backbone, MemoryBackbone):
        raise PromptsegError(
            f"{backbone.spec.name} has no memory: ask it with prompts, or load a model "
            "that has one, such as a sam2_video folder"
        )
    return backbone
