"""What the decoder is asked about a batch of views, and the losses of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from promptseg.backbones.base import Decoded, PixelPrompts
from promptseg.backbones.prompt_maps import concept_scores
from promptseg.finetune.losses import intersection_over_union
from promptseg.finetune.named_losses import RowLoss
from promptseg.finetune.objectives.terms import partial_cross_entropy
from promptseg.finetune.views import View

SCORING, PRESENCE, OTHERS = 1.0, 0.4, 0.1
# Logits where nobody annotated: as certainly outside as its target then is, and no gradient.
SETTLED = -20.0
# Score of a label that takes no part: a probability of 0, and no gradient.
OUT_OF_QUESTION = -1e4
NAMED_EVERY = 4
ASKED_MOST = 4
RARE = 0.01


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
    few labels, and what is never asked about where it is not would be seen everywhere. Labels that
    nobody annotated there come last.
    """
    if labels <= ASKED_MOST:
        return list(range(labels))
    there = [place for place in range(labels) if place not in view.missing]
    own = view.places[0] if view.places else there[view.number % len(there)]
    shows = (view.masks > 0.5).flatten(1).any(1).tolist()
    start = view.number // labels
    turn = [(start + n) % labels for n in range(labels)]
    others = sorted((place for place in turn if place != own), key=view.missing.__contains__)
    shown = [place for place in others if shows[place]]
    blank = [place for place in others if not shows[place]]
    return [own, *shown[: ASKED_MOST - 2], *blank, *shown[ASKED_MOST - 2 :]][:ASKED_MOST]


def kind_of(rows: Rows) -> str:
    """What the overlap of some rows is called in the log."""
    if not rows.prompted:
        return "token_iou"
    return ("named_" if rows.tokens else "") + ("click_iou" if rows.ambiguous else "prompt_iou")


def dense_loss(
    features: Tensor,
    tokens: Tensor,
    masks: Tensor,
    known: Tensor | None = None,
    asked: Tensor | None = None,
) -> Tensor:
    """`apart_loss` of a coarse map whose places point to the token of a label, or to none.

    It teaches the encoder and the tokens all labels of a view at once, at a small part of the
    decoder's cost. The default network is handed this map as a rough mask; with others it is deep
    supervision (Lee et al., Deeply-supervised nets, AISTATS 2015), dropped afterwards.

    Args:
        features: (B, C, h, w).
        tokens: (L, C).
        masks: (B, L, m, m) share of each pixel inside each label.
        known: (B, m, m) share of each pixel that is annotated; None where all is.
        asked: (B, L) False for labels that nobody annotated; None where all are.

    Returns:
        (B,) losses.
    """
    scores = concept_scores(features, tokens.expand(len(features), -1, -1))
    size = (features.shape[-2], features.shape[-1])
    shown = None if known is None else functional.adaptive_avg_pool2d(known, size)
    return apart_loss(scores, functional.adaptive_avg_pool2d(masks, size), shown, asked)


def apart_loss(
    scores: Tensor, shares: Tensor, known: Tensor | None = None, asked: Tensor | None = None
) -> Tensor:
    """Cross-entropy of every place between some labels and what is none of them, whose score is 0.

    A label that nobody annotated takes no part: what is none of the others may be it, as in the
    marginal loss of Shi et al. (Medical Image Analysis 70, 2021).

    Args:
        scores: (B, L, h, w).
        shares: (B, L, h, w) share of each place inside each label.
        known: (B, h, w) share of each place that is annotated; None where all is.
        asked: (B, L) False for labels that nobody annotated; None where all are.

    Returns:
        (B,) losses; labels weigh the more the smaller they are.
    """
    if asked is not None:
        scores = scores.masked_fill(~asked[..., None, None], OUT_OF_QUESTION)
    scores = against_none(scores)
    whole = 1 if known is None else known[:, None]
    shares = torch.cat([(whole - shares.sum(1, keepdim=True)).clamp(min=0), shares], 1)
    weights = shares * (shares.mean((2, 3), keepdim=True) + RARE) ** -0.5
    losses = -(weights * scores.log_softmax(1)).flatten(1).sum(1)
    return losses / weights.flatten(1).sum(1).clamp(min=1e-6)


def row_losses(
    decoded: Decoded, target: Tensor, loss: RowLoss, known: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Loss of every row, and the overlap of its best mask.

    Of several candidates the best learns fully and the others a little, as in SAM (Kirillov et
    al. 2023). Quality learns the measured overlap, presence whether there is anything.

    Args:
        decoded: B rows with M candidates.
        target: (B, m, m) in [0, 1].
        loss: Of a mask.
        known: (B, m, m) share of each pixel that is annotated; None where all is. The rest has no
            part in the loss, and nothing is learnt of whether a target is there that it may hide.

    Returns:
        (B,) losses and (B,) overlaps.
    """
    logits = decoded.logits.float()
    candidates = logits.shape[1]
    seen = logits.new_ones(len(logits)), logits.new_ones(len(logits))
    if known is not None:
        shown = known >= 0.5
        logits = logits.where(shown[:, None], SETTLED)
        target = target * shown
        seen = shown.flatten(1).any(1).float(), shown.flatten(1).all(1).float()
    wide = target[:, None].expand_as(logits)
    masks = loss(logits.flatten(0, 1), wide.flatten(0, 1)).view(-1, candidates)
    overlap = intersection_over_union(logits.detach(), wide)
    losses = masks.min(1).values
    if candidates > 1:
        losses = losses + OTHERS * masks.mean(1)
    losses = losses + SCORING * seen[0] * (decoded.quality.float() - overlap).square().mean(1)
    if decoded.presence is not None:
        present = (target > 0.5).flatten(1).any(1).float()
        judged = torch.maximum(present, seen[1])
        losses = losses + PRESENCE * judged * functional.binary_cross_entropy(
            decoded.presence.float(), present, reduction="none"
        )
    return losses, overlap.max(1).values


def stroke_losses(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """(B,) partial cross-entropy of answers to prompts; of several candidates as `row_losses`.

    Args:
        logits: (B, M, m, m).
        target: (B, m, m) share of each pixel annotated as the target.
        known: (B, m, m) share of each pixel annotated at all.
    """
    candidates = logits.shape[1]
    shares = torch.stack([(known - target).clamp(min=0), target], 1)
    wide = shares[:, None].expand(-1, candidates, -1, -1, -1).flatten(0, 1)
    losses = partial_cross_entropy(against_none(logits.flatten(0, 1)[:, None]), wide)
    losses = losses.view(-1, candidates)
    return losses.min(1).values + (OTHERS * losses.mean(1) if candidates > 1 else 0)


def against_none(logits: Tensor) -> Tensor:
    """(B, L, h, w) logits of labels with 0 for what is none of them in front: (B, 1 + L, h, w)."""
    return functional.pad(logits, (0, 0, 0, 0, 1, 0))
