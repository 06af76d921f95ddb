"""One loss from a batch of views: prompts and tokens, as inference will use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from promptseg.backbones.base import (
    Backbone,
    Decoded,
    Embedding,
    PixelPrompts,
    PromptBatch,
)
from promptseg.backbones.prompt_maps import concept_scores
from promptseg.errors import FormatError
from promptseg.finetune.lora import Learner
from promptseg.finetune.losses import intersection_over_union
from promptseg.finetune.named_losses import RowLoss
from promptseg.finetune.views import View
from promptseg.inference.encoder import EmbeddingCache, autocast

SCORING, PRESENCE, OTHERS = 1.0, 0.4, 0.1
NAMED_EVERY = 4
ASKED_MOST = 4
RARE = 0.01
CACHE_BYTES = 2 << 30


@dataclass(frozen=True)
class Rows:
    """Decoder rows of one kind.

    Args:
        views: Place of each row's view in the batch.
        places: Place of each row's label.
        prompts: One a row; without anything where the token speaks.
        tokens: True if the token is given.
        ambiguous: True if three candidates are wanted.
        prompted: True if prompts are given.
    """

    views: list[int]
    places: list[int]
    prompts: list[PixelPrompts]
    tokens: bool = False
    ambiguous: bool = False
    prompted: bool = True


def rows_of(views: Sequence[View], labels: int, named: bool = False) -> list[Rows]:
    """All questions to the decoder, sorted by kind; kinds without a row are left out.

    Args:
        views: In the batch.
        labels: How many.
        named: True to give the token beside the prompts now and then, as words with a click do.
    """
    pairs = [(n, place) for n, view in enumerate(views) for place in asked_of(view, labels)]
    kinds = [
        Rows([n for n, _ in pairs], [p for _, p in pairs], [PixelPrompts()] * len(pairs), True,
             prompted=False)
    ]  # fmt: skip
    asked = [
        (n, place, prompt, single, named and (view.number + k) % NAMED_EVERY == 0)
        for n, view in enumerate(views)
        for k, (place, prompt, single) in enumerate(
            zip(view.places, view.prompts, view.ambiguous, strict=True)
        )
    ]
    for ambiguous in (False, True):
        for token in (False, True):
            rows = [row[:3] for row in asked if row[3:] == (ambiguous, token)]
            if rows:
                numbers, places, prompts = (list(column) for column in zip(*rows, strict=True))
                kinds.append(Rows(numbers, places, prompts, token, ambiguous))
    return kinds


def asked_of(view: View, labels: int) -> list[int]:
    """Places of the labels whose tokens are asked of a view: all of a few.

    Of many its own, others that it shows, and at least one that it does not show: most views show
    few labels, and what is never asked about where it is not would be seen everywhere.
    """
    if labels <= ASKED_MOST:
        return list(range(labels))
    own = view.places[0] if view.places else view.number % labels
    shows = (view.masks > 0.5).flatten(1).any(1).tolist()
    start = view.number // labels
    others = [(start + n) % labels for n in range(labels) if (start + n) % labels != own]
    shown = [place for place in others if shows[place]]
    blank = [place for place in others if not shows[place]]
    return [own, *shown[: ASKED_MOST - 2], *blank, *shown[ASKED_MOST - 2 :]][:ASKED_MOST]


class Objective:
    """The supervised objective.

    Args:
        learner: What learns.
        backbones: The same network by the size of its input; the views' size chooses.
        loss: Of a mask.
        unprompted: Weight of the tokens' rows; the prompts' rows get the rest.
        precision: `fp32` or `bf16`.
        dense: Weight of `dense_loss`, and of `apart_loss` among the tokens asked of a view.
    """

    def __init__(
        self,
        learner: Learner,
        backbones: Sequence[Backbone],
        loss: RowLoss,
        unprompted: float,
        precision: str,
        dense: float = 0.0,
    ) -> None:
        self.learner, self.loss, self.unprompted = learner, loss, unprompted
        self.dense = dense
        self.backbones = {backbone.spec.input_size: backbone for backbone in backbones}
        self.precision = precision
        self.device = learner.tokens.device
        self._cache = EmbeddingCache(CACHE_BYTES) if learner.frozen_encoder else None

    def __call__(self, views: Sequence[View]) -> tuple[Tensor, dict[str, float]]:
        """Sum of the views' losses, each the weighted mean of its rows; and parts to log."""
        embedding = self.embed(views)
        masks = torch.stack([view.masks for view in views]).to(self.device)
        counts = torch.tensor([max(1, len(view.prompts)) for view in views], device=self.device)
        total = masks.new_zeros(())
        parts: dict[str, float] = {}
        for rows in rows_of(views, masks.shape[1], named=self.unprompted > 0):
            share = 1 - self.unprompted if rows.prompted else self.unprompted
            if share == 0:
                continue
            decoded = self.decode(embedding, rows, views[0].size, [view.number for view in views])
            target = masks[rows.views, rows.places]
            losses, overlap = row_losses(decoded, target, self.loss)
            each = counts[rows.views] if rows.prompted else min(masks.shape[1], ASKED_MOST)
            total = total + (losses * share / each).sum()
            parts[_kind(rows)] = float(overlap.mean())
            if self.dense and not rows.prompted:
                # The rows of a view follow each other.
                by_view = (len(views), -1)
                logits = decoded.logits[:, 0].float().unflatten(0, by_view)
                apart = apart_loss(logits, target.unflatten(0, by_view))
                total = total + self.dense * apart.sum()
        if self.dense:
            tokens = self.learner.named(range(masks.shape[1]))
            apart = dense_loss(self._coarse(embedding), tokens, masks)
            total = total + self.dense * apart.sum()
            parts["dense_loss"] = float(apart.mean().detach())
        return total, parts

    def _coarse(self, embedding: Embedding) -> Tensor:
        """The coarsest map with as many channels as a token."""
        channels = self.learner.tokens.shape[1]
        maps = [one for one in embedding.features if one.shape[1] == channels]
        if not maps:
            raise FormatError("dense is given, but this network has no map to compare tokens with")
        return min(maps, key=lambda one: one.shape[-1])

    def embed(self, views: Sequence[View]) -> Embedding:
        """Embeddings of the views; of a frozen encoder they are computed once."""
        if self._cache is None:
            return self.encode(views)
        kept = {v.number: self._cache.get(f"{v.number} {v.size}") for v in views}
        missing = list({v.number: v for v in views if kept[v.number] is None}.values())
        if missing:
            with torch.no_grad():
                fresh = self.encode(missing)
            for row, view in enumerate(missing):
                one = Embedding(tuple(f.clone() for f in fresh[row].features))
                self._cache.put(f"{view.number} {view.size}", one)
                kept[view.number] = one
        return Embedding.cat([kept[v.number] for v in views])  # type: ignore[misc]

    def encode(self, views: Sequence[View]) -> Embedding:
        """Embeddings of views of one size."""
        images = torch.stack([view.image for view in views]).to(self.device)
        with autocast(self.device, self.precision):
            return self.backbones[views[0].size].encode(images)

    def decode(
        self, embedding: Embedding, rows: Rows, size: int, numbers: Sequence[int] | None = None
    ) -> Decoded:
        """Answers of some rows on views of `size` pixels a side.

        Args:
            embedding: Of the views.
            rows: What is asked.
            size: Of the views.
            numbers: Of the views, to name the labels in changing words; None for their names.
        """
        backbone = self.backbones[size]
        batch = PromptBatch.collate(rows.prompts, size, backbone.spec.mask_size).to(self.device)
        drawn = None if numbers is None else [numbers[n] for n in rows.views]
        token = self.learner.named(rows.places, drawn) if rows.tokens else None
        with autocast(self.device, self.precision):
            return backbone.decode(embedding[rows.views], batch, rows.ambiguous, token)


def _kind(rows: Rows) -> str:
    """What the overlap of some rows is called in the log."""
    if not rows.prompted:
        return "token_iou"
    return ("named_" if rows.tokens else "") + ("click_iou" if rows.ambiguous else "prompt_iou")


def dense_loss(features: Tensor, tokens: Tensor, masks: Tensor) -> Tensor:
    """`apart_loss` of a coarse map whose places point to the token of a label, or to none.

    It teaches the encoder and the tokens all labels of a view at once, at a small part of the
    decoder's cost. The default network is handed this map as a rough mask; with others it is deep
    supervision (Lee et al., Deeply-supervised nets, AISTATS 2015), dropped afterwards.

    Args:
        features: (B, C, h, w).
        tokens: (L, C).
        masks: (B, L, m, m) share of each pixel inside each label.

    Returns:
        (B,) losses.
    """
    scores = concept_scores(features, tokens.expand(len(features), -1, -1))
    size = (features.shape[-2], features.shape[-1])
    return apart_loss(scores, functional.adaptive_avg_pool2d(masks, size))


def apart_loss(scores: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of every place between some labels and what is none of them, whose score is 0.

    Args:
        scores: (B, L, h, w).
        shares: (B, L, h, w) share of each place inside each label.

    Returns:
        (B,) losses; labels weigh the more the smaller they are.
    """
    scores = functional.pad(scores, (0, 0, 0, 0, 1, 0))
    shares = torch.cat([(1 - shares.sum(1, keepdim=True)).clamp(min=0), shares], 1)
    weights = shares * (shares.mean((2, 3), keepdim=True) + RARE) ** -0.5
    losses = -(weights * scores.log_softmax(1)).flatten(1).sum(1)
    return losses / weights.flatten(1).sum(1)


def row_losses(decoded: Decoded, target: Tensor, loss: RowLoss) -> tuple[Tensor, Tensor]:
    """Loss of every row, and the overlap of its best mask.

    Of several candidates the best learns fully and the others a little, as in SAM (Kirillov et
    al. 2023). Quality learns the measured overlap, presence whether there is anything.

    Args:
        decoded: B rows with M candidates.
        target: (B, m, m) in [0, 1].
        loss: Of a mask.

    Returns:
        (B,) losses and (B,) overlaps.
    """
    logits = decoded.logits.float()
    candidates = logits.shape[1]
    wide = target[:, None].expand_as(logits)
    masks = loss(logits.flatten(0, 1), wide.flatten(0, 1)).view(-1, candidates)
    overlap = intersection_over_union(logits.detach(), wide)
    losses = masks.min(1).values
    if candidates > 1:
        losses = losses + OTHERS * masks.mean(1)
    losses = losses + SCORING * (decoded.quality.float() - overlap).square().mean(1)
    if decoded.presence is not None:
        present = (target > 0.5).flatten(1).any(1).float()
        losses = losses + PRESENCE * functional.binary_cross_entropy(
            decoded.presence.float(), present, reduction="none"
        )
    return losses, overlap.max(1).values
