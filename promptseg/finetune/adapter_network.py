"""A backbone with an adapter that learns, as objectives see it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from promptseg.backbones.base import Backbone, Decoded, Embedding, PixelPrompts, PromptBatch
from promptseg.backbones.prompt_maps import concept_scores
from promptseg.errors import FormatError
from promptseg.finetune.learning import (
    ASKED_MOST,
    PRESENCE,
    Rows,
    against_none,
    apart_loss,
    dense_loss,
    kind_of,
    row_losses,
    rows_of,
    stroke_losses,
)
from promptseg.finetune.lora import Learner
from promptseg.finetune.named_losses import RowLoss
from promptseg.finetune.objectives.base import AUXILIARY, LEVELS, MAIN, Batch, Loss, Seen
from promptseg.finetune.objectives.terms import partial_cross_entropy
from promptseg.finetune.views import View
from promptseg.inference.device import autocast
from promptseg.inference.encoder import EmbeddingCache

CACHE_BYTES = 2 << 30
AUXILIARY_DROPOUT = 0.5
# Mask logits run to about this; level sets to 1.
LEVEL_LOGITS = 8.0


class AdapterNetwork:
    """The network of an adapter; labels are asked for by their tokens.

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
        self._decoders: dict[str, nn.Module] = {}

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What the adapter keeps."""
        return self.learner.parameters

    def add_branch(self, name: str) -> Mapping[str, nn.Parameter]:
        """A second mask decoder that starts as the first one and learns wholly."""
        decoder = copy.deepcopy(self.learner.backbone.module.get_submodule("mask_decoder"))
        self._decoders[name] = decoder.requires_grad_(True)
        return dict(decoder.named_parameters())

    def see(self, batch: Batch, images: Tensor | None = None) -> AdapterSeen:
        """Look at a batch, or at other images (B, 3, S, S) of its samples."""
        embedding = self.embed(batch.views) if images is None else self.encoded(images)
        return AdapterSeen(self, batch, embedding)

    def stochastic(self) -> AbstractContextManager[None]:
        """Dropout of LoRA is on while training anyway."""
        return nullcontext()

    def collate(self, views: Sequence[View], progress: float = 0.0, boost: float = 1.0) -> Batch:
        """Views of one size as a batch on the network's device."""
        known, levels = views[0].known, views[0].levels
        return Batch(
            images=torch.stack([view.image for view in views]).to(self.device),
            masks=torch.stack([view.masks for view in views]).to(self.device),
            known=None if known is None else _stacked([view.known for view in views], self.device),
            labelled=torch.tensor([view.labelled for view in views], device=self.device),
            levels=None
            if levels is None
            else _stacked([view.levels for view in views], self.device),
            progress=progress,
            boost=boost,
            strokes=known is not None,
            views=views,
            asked=_asked(views, self.device),
        )

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
        return self.encoded(torch.stack([view.image for view in views]).to(self.device))

    def encoded(self, images: Tensor) -> Embedding:
        """Embeddings of (B, 3, S, S) images."""
        with autocast(self.device, self.precision):
            return self.backbones[images.shape[-1]].encode(images)

    def decode(
        self,
        embedding: Embedding,
        rows: Rows,
        size: int,
        numbers: Sequence[int] | None = None,
        branch: str = MAIN,
    ) -> Decoded:
        """Answers of some rows on views of `size` pixels a side.

        Args:
            embedding: Of the views.
            rows: What is asked.
            size: Of the views.
            numbers: Of the views, to name the labels in changing words; None for their names.
            branch: Which decoder answers.
        """
        backbone = self.backbones[size]
        batch = PromptBatch.collate(rows.prompts, size, backbone.spec.mask_size).to(self.device)
        drawn = None if numbers is None else [numbers[n] for n in rows.views]
        token = self.learner.named(rows.places, drawn) if rows.tokens else None
        with self._decoder(branch), autocast(self.device, self.precision):
            return backbone.decode(embedding[rows.views], batch, rows.ambiguous, token)

    @contextmanager
    def _decoder(self, branch: str) -> Iterator[None]:
        """One branch's mask decoder in the network, meanwhile."""
        module = self.learner.backbone.module
        kept = module.get_submodule("mask_decoder")
        module.mask_decoder = kept if branch == MAIN else self._decoders[branch]
        try:
            yield
        finally:
            module.mask_decoder = kept

    def coarse(self, embedding: Embedding) -> Tensor:
        """The coarsest map with as many channels as a token."""
        channels = self.learner.tokens.shape[1]
        maps = [one for one in embedding.features if one.shape[1] == channels]
        if not maps:
            raise FormatError("dense is given, but this network has no map to compare tokens with")
        return min(maps, key=lambda one: one.shape[-1])


class AdapterSeen(Seen):
    """What an adapter's network answers: tokens give classes, prompts give masks.

    Args:
        network: Answers.
        batch: Of views.
        embedding: Of their images.
    """

    def __init__(self, network: AdapterNetwork, batch: Batch, embedding: Embedding) -> None:
        super().__init__(batch)
        self.network, self.embedding = network, embedding
        self.count = batch.masks.shape[1]
        self.size = batch.views[0].size
        self.numbers = [view.number for view in batch.views]
        self._named: dict[str, Decoded] = {}

    def named(self, branch: str = MAIN) -> Decoded:
        """Answers of a branch to all labels' tokens: rows view by view, label by label."""
        if branch not in self._named:
            pairs = [(n, p) for n in range(len(self.batch)) for p in range(self.count)]
            views, places = [n for n, _ in pairs], [p for _, p in pairs]
            rows = Rows(views, places, [PixelPrompts()] * len(pairs), True, prompted=False)
            embedding = dropped(self.embedding) if branch == AUXILIARY else self.embedding
            self._named[branch] = self.network.decode(
                embedding, rows, self.size, self.numbers, branch
            )
        return self._named[branch]

    def _classes(self, branch: str) -> Tensor:
        return against_none(self._by_view(self.named(branch).logits[:, 0].float()))

    def levels(self) -> Tensor:
        logits = self._by_view(self.named(LEVELS).logits[:, 0].float())
        return -torch.tanh(logits / LEVEL_LOGITS)

    def supervised(self) -> Loss:
        """Each view's loss is the weighted mean of its rows; prompts and tokens are rows."""
        network, masks, shown = self.network, self.batch.masks, self.batch.known
        if shown is not None:
            masks = masks * (shown >= 0.5)[:, None]
        counts = self._prompt_counts()
        total = masks.new_zeros(())
        parts: dict[str, float] = {}
        for rows in rows_of(self.batch.views, self.count, named=network.unprompted > 0):
            share = 1 - network.unprompted if rows.prompted else network.unprompted
            if share == 0:
                continue
            decoded = self._answer(rows)
            target = masks[rows.views, rows.places]
            part = None if shown is None else shown[rows.views]
            losses, overlap = row_losses(decoded, target, network.loss, part)
            known = self.batch.labelled[rows.views]
            if self.batch.asked is not None:
                known = known & self.batch.asked[rows.views, rows.places]
            losses = losses * known
            each = counts[rows.views] if rows.prompted else min(self.count, ASKED_MOST)
            total = total + (losses * share / each).sum()
            parts[kind_of(rows)] = float(overlap[known].mean()) if known.any() else 0.0
            if network.dense and not rows.prompted:
                # The rows of a view follow each other.
                by_view = (len(self.batch), -1)
                logits = decoded.logits[:, 0].float().unflatten(0, by_view)
                apart = apart_loss(
                    logits, target.unflatten(0, by_view), shown, known.unflatten(0, by_view)
                )
                apart = apart * self.batch.labelled
                total = total + network.dense * apart.sum()
        if network.dense:
            tokens = network.learner.named(range(self.count))
            coarse = network.coarse(self.embedding)
            apart = dense_loss(coarse, tokens, masks, shown, self.batch.asked)
            apart = apart * self.batch.labelled
            total = total + network.dense * apart.sum()
            parts["dense_loss"] = float(apart.mean().detach())
        return total, parts

    def extras(self) -> Loss:
        """Answers to prompts at the strokes, presence, and the encoder's map, from strokes."""
        network = self.network
        prompted, parts = self._prompted()
        total = prompted * (1 - network.unprompted) / network.unprompted
        presence = self.named().presence
        if presence is not None:
            losses = functional.binary_cross_entropy(
                presence.float(), self._shown().flatten(), reduction="none"
            )
            total = total + PRESENCE * losses.sum() / self.count
        if network.dense:
            tokens = network.learner.named(range(self.count))
            coarse = network.coarse(self.embedding)
            scores = concept_scores(coarse, tokens.expand(len(coarse), -1, -1))
            size = (scores.shape[-2], scores.shape[-1])
            shares = functional.adaptive_avg_pool2d(self.batch.shares, size)
            apart = partial_cross_entropy(against_none(scores), shares)
            total = total + network.dense * apart.sum()
            parts["dense_loss"] = float(apart.mean().detach())
        return total, parts

    def _prompted(self) -> Loss:
        """Partial cross-entropy of answers to prompts; summed over the views."""
        masks, known = self.batch.masks, self.batch.shares.sum(1)
        counts, total = self._prompt_counts(), self.batch.masks.new_zeros(())
        parts: dict[str, float] = {}
        for rows in rows_of(self.batch.views, self.count, named=True):
            if not rows.prompted or self.network.unprompted == 1:
                continue
            logits = self._answer(rows).logits.float()
            losses = stroke_losses(logits, masks[rows.views, rows.places], known[rows.views])
            total = total + (losses / counts[rows.views]).sum()
            parts[kind_of(rows).replace("_iou", "_strokes")] = float(losses.mean().detach())
        return total, parts

    def _shown(self) -> Tensor:
        """(B, L) 1 for labels that strokes or the network's own answer show in a view."""
        drawn = self.batch.masks.flatten(2).amax(2) > 0.5
        answer = self.probabilities().detach().argmax(1).flatten(1)
        places = torch.arange(1, self.count + 1, device=answer.device)
        return (drawn | (answer[:, None] == places[:, None]).any(2)).float()

    def _answer(self, rows: Rows) -> Decoded:
        """Answers of the main branch; those to all tokens are kept."""
        if not rows.prompted and self.count <= ASKED_MOST:
            return self.named()
        return self.network.decode(self.embedding, rows, self.size, self.numbers)

    def _prompt_counts(self) -> Tensor:
        counts = [max(1, len(view.prompts)) for view in self.batch.views]
        return torch.tensor(counts, device=self.network.device)

    def _by_view(self, rows: Tensor) -> Tensor:
        return rows.unflatten(0, (len(self.batch), self.count))


def dropped(embedding: Embedding) -> Embedding:
    """The same with half of the numbers of its coarsest map set to 0."""
    smallest = min(one.shape[-1] for one in embedding.features)
    return Embedding(
        tuple(
            functional.dropout(one, AUXILIARY_DROPOUT) if one.shape[-1] == smallest else one
            for one in embedding.features
        )
    )


def _asked(views: Sequence[View], device: torch.device) -> Tensor | None:
    """(B, L) False for labels that nobody annotated in a view; None where all are."""
    if not any(view.missing for view in views):
        return None
    labels = range(len(views[0].masks))
    rows = [[place not in view.missing for place in labels] for view in views]
    return torch.tensor(rows, device=device)


def _stacked(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
    return torch.stack([one for one in tensors if one is not None]).to(device)
