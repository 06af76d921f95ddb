"""The protocol between the engine and a promptable network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from promptseg.backbones.crop_factor import crop_factor_fault
from promptseg.errors import WeightsError

Context = Literal["grey", "2.5d"]
Propagates = Literal["mask", "box", "memory"]


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone declares of itself; nothing else is known of it before it is called.

    Args:
        name: Registry name or path the weights came from.
        family: `promptseg`, `segment-anything`, `sam`, `sam_hq`, `sam2` or `edgetam`; only says
            whose weights fit, never what the network can do.
        input_size: Side of the square input in pixels.
        mask_size: Side of the square mask prompt and of the low-resolution logits.
        context: `grey` repeats the slice in three channels, `2.5d` gives the slice
            before, the slice and the slice after.
        crop: True if the network was trained on crops around its prompt; False if it
            expects the whole slice.
        crop_factor: Side of those crops over that of the target's box; None where the weights do
            not say.
        presence: True if `decode` predicts whether the target is in the slice.
        concept: Channels of a token that names a target, 0 if `decode` takes none.
        names: Concepts that it has a token of its own for; it is then `KnowsNames`.
        pixels: How `encode` normalises grey values; a part of what decides an embedding.
        propagates: What travels from one slice to the next: `mask` if the network was trained with
            its neighbour's mask as a prompt, `box` if it understands the box around it, `memory`
            if it also has `remember` and `recall` (`backbones.memory.MemoryBackbone`).
        own_token: Parameter of `module` that means "whatever is prompted"; None without one.
        stored_as: How weights are written: `promptseg` (architecture and tensors in one file),
            `state_dict` (tensors in one file) or `folder` (as transformers saves them).
        geodesic: True if trained with the exponentialised geodesic distance of margin points,
            which then stands among the positive strokes.
        sha256: Digest of the weights, None for weights made in memory.
        licence: Terms of the weights, shown on load.
    """

    name: str
    family: str
    input_size: int
    mask_size: int
    context: Context = "grey"
    crop: bool = False
    presence: bool = False
    concept: int = 0
    names: tuple[str, ...] = ()
    geodesic: bool = False
    sha256: str | None = None
    licence: str = "unknown"
    pixels: Literal["imagenet", "unit"] = "unit"
    propagates: Propagates = "box"
    own_token: str | None = None
    stored_as: Literal["promptseg", "state_dict", "folder"] = "folder"
    crop_factor: float | None = None

    def __post_init__(self) -> None:
        if fault := crop_factor_fault(self.crop_factor):
            raise WeightsError(f"{self.name}: {fault}")


@dataclass(frozen=True)
class Embedding:
    """Encoder output for B slices; indexing and concatenation act on the batch.

    Args:
        features: Feature maps, each (B, C_i, H_i, W_i); their meaning is the backbone's own.
    """

    features: tuple[Tensor, ...]

    def __len__(self) -> int:
        return int(self.features[0].shape[0])

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Embedding:
        rows = [index] if isinstance(index, int) else index
        return Embedding(tuple(feature[rows] for feature in self.features))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Embedding:
        """Move, and cast if `dtype` is given."""
        return Embedding(tuple(feature.to(device, dtype) for feature in self.features))

    @property
    def nbytes(self) -> int:
        """Bytes held by the feature maps."""
        return sum(feature.numel() * feature.element_size() for feature in self.features)

    @staticmethod
    def cat(parts: Sequence[Embedding]) -> Embedding:
        """Join along the batch."""
        columns = zip(*(part.features for part in parts), strict=True)
        return Embedding(tuple(torch.cat(column) for column in columns))


@dataclass(frozen=True)
class PixelPrompts:
    """Prompts of one target on one slice, in pixels of the square network input.

    Args:
        points: (N, 2) x, y; pixel centres are at whole numbers plus one half.
        labels: (N,) 1 foreground, 0 background.
        box: (4,) x0, y0, x1, y1 or None.
        mask: (mask_size, mask_size) logits of a previous or neighbouring mask, or None.
        scribbles: (2, input_size, input_size) positive and negative strokes, or None.
    """

    points: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    box: Tensor | None = None
    mask: Tensor | None = None
    scribbles: Tensor | None = None


@dataclass(frozen=True)
class PromptBatch:
    """Ragged prompts of B (slice, target) pairs, padded.

    Args:
        points: (B, N, 2) x, y in input pixels, zero where padded.
        labels: (B, N) 1 foreground, 0 background, -1 padding.
        boxes: (B, 4); rows of NaN where there is none.
        masks: (B, 1, mask_size, mask_size) logits, zero where there is none.
        has_mask: (B,) bool.
        scribbles: (B, 2, input_size, input_size) positive and negative strokes in [0, 1], or
            None where no row has any.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor
    has_mask: Tensor
    scribbles: Tensor | None = None

    def __len__(self) -> int:
        return int(self.points.shape[0])

    @property
    def has_box(self) -> Tensor:
        """(B,) bool."""
        return ~torch.isnan(self.boxes).any(dim=1)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> PromptBatch:
        return PromptBatch(
            self.points[index],
            self.labels[index],
            self.boxes[index],
            self.masks[index],
            self.has_mask[index],
            None if self.scribbles is None else self.scribbles[index],
        )

    def to(self, device: torch.device | str) -> PromptBatch:
        """Move every tensor."""
        return PromptBatch(
            self.points.to(device),
            self.labels.to(device),
            self.boxes.to(device),
            self.masks.to(device),
            self.has_mask.to(device),
            None if self.scribbles is None else self.scribbles.to(device),
        )

    @staticmethod
    def collate(items: Sequence[PixelPrompts], input_size: int, mask_size: int) -> PromptBatch:
        """Pad B ragged prompts into one batch."""
        count, longest = len(items), max((len(item.points) for item in items), default=0)
        points = torch.zeros(count, longest, 2)
        labels = torch.full((count, longest), -1, dtype=torch.long)
        boxes = torch.full((count, 4), float("nan"))
        masks = torch.zeros(count, 1, mask_size, mask_size)
        has_mask = torch.zeros(count, dtype=torch.bool)
        drawn = any(item.scribbles is not None for item in items)
        scribbles = torch.zeros(count, 2, input_size, input_size) if drawn else None
        for row, item in enumerate(items):
            points[row, : len(item.points)] = item.points
            labels[row, : len(item.labels)] = item.labels
            if item.box is not None:
                boxes[row] = item.box
            if item.mask is not None:
                masks[row, 0], has_mask[row] = item.mask, True
            if scribbles is not None and item.scribbles is not None:
                scribbles[row] = item.scribbles
        return PromptBatch(points, labels, boxes, masks, has_mask, scribbles)


@dataclass(frozen=True)
class Decoded:
    """Candidate masks of B (slice, target) pairs.

    Args:
        logits: (B, M, mask_size, mask_size), mask where > 0; covers the whole square input.
        quality: (B, M) predicted intersection over union in [0, 1].
        presence: (B,) probability that the target is in the slice; None if not predicted.
        pointer: (B, M, P) what a network with a memory keeps of each mask; None without one.
    """

    logits: Tensor
    quality: Tensor
    presence: Tensor | None = None
    pointer: Tensor | None = None


@runtime_checkable
class Backbone(Protocol):
    """A promptable network: image encoder, prompt encoder, mask decoder."""

    spec: BackboneSpec
    module: torch.nn.Module

    def encode(self, images: Tensor) -> Embedding:
        """Encode (B, 3, input_size, input_size) grey values in [0, 1]."""
        ...

    def decode(
        self,
        embedding: Embedding,
        prompts: PromptBatch,
        multimask: bool = False,
        concept: Tensor | None = None,
    ) -> Decoded:
        """Decode B prompts on B embeddings; `multimask` gives three candidates, else one.

        `concept` (B, C) names the target, as adapters learn it: then no prompt is needed.
        """
        ...


@runtime_checkable
class Resizable(Protocol):
    """A backbone that takes inputs of other sizes with the same weights."""

    def resized(self, input_size: int) -> Backbone | None:
        """The same network at another input size; None where that cannot work."""
        ...


def half_size(backbone: Backbone) -> Backbone | None:
    """The same network at half its input size, where it takes that."""
    if not isinstance(backbone, Resizable):
        return None
    return backbone.resized(backbone.spec.input_size // 2)


@runtime_checkable
class KnowsNames(Protocol):
    """A backbone that has learnt structures by name, without an adapter."""

    def named_tokens(self) -> Tensor:
        """(N, C) token of each of `spec.names`."""
        ...
