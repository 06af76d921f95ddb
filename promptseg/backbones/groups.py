"""Ragged prompts in batches of equal shape.

A padded point is a token that the other tokens of SAM's decoder attend to, so padding changes
the mask. Rows with the same number of points, box or none and mask or none are decoded
together, and the results put back in the order of the rows.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from promptseg.backbones.base import BackboneSpec, Decoded, Embedding, PromptBatch
from promptseg.backbones.inputs import normalised
from promptseg.backbones.points import with_scribble_points

# SAM numbers pixels by their centres and adds one half itself.
PIXEL_CENTRE = 0.5


@dataclass(frozen=True)
class Group:
    """B prompts of one shape, in SAM's coordinates (pixel centres at whole numbers).

    Args:
        points: (B, N, 2) x, y, or None without points.
        labels: (B, N) 1 or 0, or None without points.
        boxes: (B, 4) x0, y0, x1, y1, or None.
        masks: (B, 1, mask_size, mask_size) logits, or None.
        concept: (B, C) a further token each, or None.
    """

    points: Tensor | None
    labels: Tensor | None
    boxes: Tensor | None
    masks: Tensor | None
    concept: Tensor | None = None

    @property
    def empty(self) -> bool:
        """True if nothing says what the target is."""
        given = self.points, self.boxes, self.masks, self.concept
        return all(part is None for part in given)


class GroupedBackbone(ABC):
    """What networks with SAM's prompt encoder share: grey values in, ragged prompts in groups.

    Attributes:
        module: The network.
        spec: What it can do.
    """

    module: nn.Module
    spec: BackboneSpec

    @property
    def _network(self) -> Any:
        return self.module

    def encode(self, images: Tensor) -> Embedding:
        """Encode (B, 3, input_size, input_size) in [0, 1].

        Raises:
            ValueError: If the images have another shape.
        """
        return Embedding(self._encode(normalised(images, self.spec.input_size, self.spec.pixels)))

    def decode(
        self,
        embedding: Embedding,
        prompts: PromptBatch,
        multimask: bool = False,
        concept: Tensor | None = None,
    ) -> Decoded:
        """Decode B prompts on B embeddings; three candidates with `multimask`, else one.

        `concept` (B, C) is appended to the prompt tokens.

        Raises:
            ValueError: If there are not as many prompts as embeddings.
        """

        def decode(features: Embedding, group: Group) -> Decoded:
            return self._decode(features, group, multimask)

        return decode_in_groups(self.module, embedding, prompts, decode, concept)

    @abstractmethod
    def _encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Features of normalised images, each (B, C, H, W)."""

    @abstractmethod
    def _decode(self, features: Embedding, group: Group, multimask: bool) -> Decoded:
        """Masks of B prompts of one shape."""


def decode_in_groups(
    module: nn.Module,
    embedding: Embedding,
    prompts: PromptBatch,
    decode: Callable[[Embedding, Group], Decoded],
    concept: Tensor | None = None,
) -> Decoded:
    """Decode rows of one shape together; strokes become points.

    Autocast is off meanwhile: in half precision SAM's position code of a point is off by
    several pixels.

    Args:
        module: The network; features and masks are brought to its device and precision.
        embedding: Features of B slices.
        prompts: B prompts, one for each of them.
        decode: Decodes a group on its own rows of the embedding.
        concept: (B, C) tokens that name the targets.

    Raises:
        ValueError: If there are no prompts or their number differs from the embeddings'.
    """
    if len(prompts) != len(embedding) or len(prompts) == 0:
        raise ValueError(
            f"{len(prompts)} prompts on {len(embedding)} embeddings: give one for one, and at "
            "least one"
        )
    weight = next(module.parameters())
    embedding = embedding.to(weight.device, weight.dtype)
    prompts = with_scribble_points(prompts.to(weight.device))
    prompts = dataclasses.replace(prompts, masks=prompts.masks.to(weight.dtype))
    token = None if concept is None else concept.to(weight.device, weight.dtype)
    rows = _rows_by_shape(prompts)
    with torch.autocast(weight.device.type, enabled=False):
        parts = []
        for index in rows:
            named = None if token is None else token[index]
            parts.append(decode(embedding[index], _group(prompts[index], named)))
    back = torch.argsort(torch.tensor([row for index in rows for row in index]))
    return _in_order(parts, back)


def _in_order(parts: Sequence[Decoded], order: Tensor) -> Decoded:
    joined: dict[str, Tensor] = {}
    for name in ("logits", "quality", "presence", "pointer"):
        column = [getattr(part, name) for part in parts]
        if column[0] is not None:
            joined[name] = torch.cat(column)[order.to(column[0].device)]
    return Decoded(**joined)


def _rows_by_shape(prompts: PromptBatch) -> list[list[int]]:
    shapes = torch.stack(
        [(prompts.labels >= 0).sum(dim=1), prompts.has_box.long(), prompts.has_mask.long()], dim=1
    )
    rows: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, shape in enumerate(shapes.tolist()):
        rows[tuple(shape)].append(row)
    return list(rows.values())


def _group(prompts: PromptBatch, concept: Tensor | None) -> Group:
    """Drop the padding of prompts that have one shape."""
    order = torch.argsort((prompts.labels < 0).long(), dim=1, stable=True)
    order = order[:, : int((prompts.labels[0] >= 0).sum())]
    some = order.shape[1] > 0
    points = prompts.points.gather(1, order[..., None].expand(-1, -1, 2)) - PIXEL_CENTRE
    return Group(
        points if some else None,
        prompts.labels.gather(1, order) if some else None,
        prompts.boxes - PIXEL_CENTRE if prompts.has_box[0] else None,
        prompts.masks if prompts.has_mask[0] else None,
        concept,
    )
