"""Learning a name from a few accepted masks in seconds: a token and the decoder, nothing else.

The encoder stays as it is, so that its output for the accepted cases is computed once. First the
token alone is fitted to the coarsest map, which is a linear classifier and takes well under a
second; then the token and the decoder learn together, on small views and in the end on whole ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from promptseg.backbones.base import Backbone, Decoded, Embedding, PixelPrompts, PromptBatch
from promptseg.backbones.prompt_maps import concept_scores
from promptseg.errors import AdapterError
from promptseg.predictor.examples import Example, SeenSlice
from promptseg.propagation.carrying import box_of, shown_as

PROMPT_SIDE = ("prompt_encoder", "mask_decoder")
BATCH = 8
# Of the steps; what is learned at half the input alone does not hold at the whole one.
SMALL_SHARE = 0.5
CLASSIFIER_STEPS = 150
PRESENCE, QUALITY = 0.4, 1.0
# Shares of the rows that show nothing, a neighbour's mask, and a box.
NAMED, CARRIED = 0.6, 0.85
WARMUP = 5
CLIP = 1.0
RARE = 0.01
OTHERS = 0.1


@dataclass(frozen=True)
class Effort:
    """How long to learn.

    Args:
        steps: Of the decoder.
        seconds: Never longer than this.
        rate: Learning rate of the decoder.
        token_rate: Of the tokens.
        seed: Decides every random choice.
    """

    steps: int = 90
    seconds: float = 24.0
    rate: float = 2e-3
    token_rate: float = 5e-3
    seed: int = 0


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Args:
        tokens: (C,) by label.
        deltas: What to add to a parameter of the decoder, by its name.
        steps: Done.
        seconds: They took.
    """

    tokens: dict[int, Tensor]
    deltas: dict[str, Tensor]
    steps: int
    seconds: float


def learn(backbones: Sequence[Backbone], examples: Sequence[Example], effort: Effort) -> Learned:
    """Fit tokens and decoder to accepted cases; the network is as it was afterwards.

    Args:
        backbones: The same network by the size of its input.
        examples: At least one.
        effort: How long.

    Raises:
        AdapterError: There is no example, or the network takes no token.
    """
    spec = backbones[0].spec
    if not examples:
        raise AdapterError("there is no accepted case to learn from")
    if spec.concept == 0:
        raise AdapterError(f"{spec.name} takes no token that names a target")
    began = time.monotonic()
    labels = sorted({label for example in examples for label in example.labels})
    learning = _learning(backbones[0].module, spec.own_token)
    with torch.random.fork_rng(devices=[]), learning as heads:
        torch.manual_seed(effort.seed)
        tokens = _first_tokens(backbones[0], labels)
        fit_classifier(tokens, labels, examples)
        before = {name: p.detach().clone() for name, p in heads.items()}
        fit = _Fit(backbones, tokens, labels, heads, examples, effort, began)
        steps = fit.run()
        deltas = {name: (p.detach() - before[name]).cpu() for name, p in heads.items()}
    named = {label: tokens[n].detach().cpu().clone() for n, label in enumerate(labels)}
    return Learned(named, deltas, steps, time.monotonic() - began)


@contextmanager
def _learning(module: nn.Module, own_token: str | None) -> Iterator[dict[str, nn.Parameter]]:
    """The parameters that learn, by name; values and flags come back afterwards."""
    # Where adapters with low-rank matrices are loaded, the base's layers are one level deeper.
    every = {n.replace(".base_layer.", "."): p for n, p in module.named_parameters()}
    flags = {name: p.requires_grad for name, p in every.items()}
    heads = {
        name: p
        for name, p in every.items()
        if name.startswith(PROMPT_SIDE) and name != own_token and ".lora_" not in name
    }
    kept = {name: p.detach().clone() for name, p in heads.items()}
    try:
        for name, parameter in every.items():
            parameter.requires_grad_(name in heads)
        yield heads
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                heads[name].copy_(value)
        for name, parameter in every.items():
            parameter.requires_grad_(flags[name])
            parameter.grad = None


def _first_tokens(backbone: Backbone, labels: Sequence[int]) -> nn.Parameter:
    module, channels = backbone.module, backbone.spec.concept
    noise = torch.randn(len(labels), channels) * 0.02
    device = next(module.parameters()).device
    if backbone.spec.own_token is not None:
        noise = noise + module.get_parameter(backbone.spec.own_token).detach().cpu()
    return nn.Parameter(noise.to(device))


def fit_classifier(
    tokens: nn.Parameter, labels: Sequence[int], examples: Sequence[Example]
) -> float:
    """Fit tokens to the coarsest map of the examples; gives the last loss.

    Logistic regression of every place of the map between the labels and what is none of them,
    labels the heavier the rarer. Networks without a map as wide as a token are left as they are.
    """
    places: list[tuple[Tensor, Tensor]] = []
    for seen in (one for example in examples for one in example.seen):
        wide = [f for f in seen.embedding.features if f.shape[1] == tokens.shape[1]]
        if not wide:
            return float("nan")
        coarse = min(wide, key=lambda one: one.shape[-1])
        masks = torch.stack([_mask_of(seen, label) for label in labels])[None]
        size = (coarse.shape[-2], coarse.shape[-1])
        shares = functional.adaptive_avg_pool2d(masks, size)[0].flatten(1)
        places.append((coarse[0].flatten(1), shares))
    maps = torch.cat([p[0] for p in places], 1).to(tokens.device)
    shares = torch.cat([p[1] for p in places], 1).to(tokens.device)
    targets = torch.cat([(1 - shares.sum(0, keepdim=True)).clamp(min=0), shares])
    weights = targets * (targets.mean(1, keepdim=True) + RARE) ** -0.5
    optimiser = torch.optim.Adam([tokens], 0.05)
    loss = torch.zeros(())
    for _ in range(CLASSIFIER_STEPS):
        scores = concept_scores(maps[None, :, :, None], tokens[None])[0, :, :, 0]
        scores = torch.cat([torch.zeros_like(scores[:1]), scores])
        loss = -(weights * scores.log_softmax(0)).sum() / weights.sum()
        optimiser.zero_grad()
        (loss + 1e-4 * tokens.square().mean()).backward()
        optimiser.step()
    return float(loss.detach())


def _mask_of(seen: SeenSlice, label: int) -> Tensor:
    known = seen.masks.get(label)
    return torch.zeros_like(next(iter(seen.masks.values()))) if known is None else known


class _Fit:
    """The steps of the decoder."""

    def __init__(
        self,
        backbones: Sequence[Backbone],
        tokens: nn.Parameter,
        labels: Sequence[int],
        heads: Mapping[str, nn.Parameter],
        examples: Sequence[Example],
        effort: Effort,
        began: float,
    ) -> None:
        self.backbones = {backbone.spec.input_size: backbone for backbone in backbones}
        self.tokens, self.labels, self.effort, self.began = tokens, list(labels), effort, began
        self.examples = list(examples)
        self.rng = np.random.default_rng(effort.seed)
        self.parameters = [*heads.values(), tokens]
        groups = [
            {"params": list(heads.values()), "peak": effort.rate},
            {"params": [tokens], "peak": effort.token_rate},
        ]
        self.optimiser = torch.optim.AdamW(groups, effort.rate, (0.9, 0.99), weight_decay=0.01)
        self.sizes = sorted(self.backbones)

    def run(self) -> int:
        """Steps done, of those wanted, in the time there is."""
        done = 0
        while (progress := self._progress(done)) < 1:
            self._set_rate(done, progress)
            loss = self._loss(self.sizes[0] if progress < SMALL_SHARE else self.sizes[-1])
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, CLIP)
            self.optimiser.step()
            done += 1
        return done

    def _progress(self, done: int) -> float:
        """By steps, so that a run is repeatable, unless the time will not do for all of them."""
        spent = (time.monotonic() - self.began) / self.effort.seconds
        share = done / self.effort.steps
        return share if spent <= share or (done == 0 and spent < 1) else spent

    def _set_rate(self, done: int, progress: float) -> None:
        shape = min(1.0, (done + 1) / WARMUP) * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * progress)))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * shape

    def _loss(self, size: int) -> Tensor:
        """Mean over a batch of rows: the token alone, with a neighbour's mask, or a box alone."""
        backbone = self.backbones[size]
        rows = [self._row(size, backbone) for _ in range(BATCH)]
        total = torch.zeros((), device=self.tokens.device)
        for named in (True, False):
            chosen = [row for row in rows if row[3] == named]
            if not chosen:
                continue
            seen, places, prompts, _ = (list(column) for column in zip(*chosen, strict=True))
            target = torch.stack([_mask_of(s, self.labels[p]) for s, p in zip(seen, places,
                                  strict=True)]).to(self.tokens.device)  # fmt: skip
            spec = backbone.spec
            batch = PromptBatch.collate(prompts, spec.input_size, spec.mask_size)
            embedding = Embedding.cat([s.embedding for s in seen]).to(self.tokens.device)
            token = self.tokens[places] if named else None
            decoded = backbone.decode(embedding, batch.to(self.tokens.device), False, token)
            total = total + row_losses(decoded, target).sum()
        return total / BATCH

    def _row(self, size: int, backbone: Backbone) -> tuple[SeenSlice, int, PixelPrompts, bool]:
        example = self.examples[int(self.rng.integers(len(self.examples)))]
        slices = [s for s in example.seen if s.size == size]
        seen = slices[int(self.rng.integers(len(slices)))]
        place = self.labels.index(example.labels[int(self.rng.integers(len(example.labels)))])
        draw = self.rng.random()
        if draw >= NAMED:
            prompt = self._shown(seen, self.labels[place], backbone, draw < CARRIED)
            if prompt is not None:
                return seen, place, prompt, False
        return seen, place, PixelPrompts(), True

    def _shown(
        self, seen: SeenSlice, label: int, backbone: Backbone, carried: bool
    ) -> PixelPrompts | None:
        """A neighbour's mask as a track hands it on, or a jittered box; None where none is."""
        mask = (seen.beside if carried else seen.masks)[label]
        if not bool((mask > 0.5).any()):
            return None
        logits = (mask * 2 - 1) * 6
        if carried and shown_as(backbone.spec) == "mask":
            return PixelPrompts(mask=logits)
        box = box_of(logits, backbone.spec.input_size)
        sides = (box[2:] - box[:2]).repeat(2)
        jitter = torch.from_numpy(self.rng.normal(0, 0.05, 4)).float()
        return PixelPrompts(box=box + jitter * sides)


def row_losses(decoded: Decoded, target: Tensor) -> Tensor:
    """(B,) soft Dice + 3 cross-entropy of the mask, its predicted overlap, and presence.

    Args:
        decoded: B rows.
        target: (B, m, m) in [0, 1].
    """
    logits = decoded.logits[:, 0].float()
    share = logits.sigmoid()
    both, total = (share * target).sum((1, 2)), share.sum((1, 2)) + target.sum((1, 2))
    losses = 1 - (2 * both + 1) / (total + 1)
    losses = losses + 3 * functional.binary_cross_entropy_with_logits(
        logits, target, reduction="none"
    ).mean((1, 2))
    inside, truth = logits.detach() > 0, target > 0.5
    union = (inside | truth).sum((1, 2))
    overlap = torch.where(union > 0, (inside & truth).sum((1, 2)) / union.clamp(min=1), 1.0)
    losses = losses + QUALITY * (decoded.quality[:, 0].float() - overlap).square()
    if decoded.presence is None:
        return losses
    present = truth.flatten(1).any(1).float()
    return losses + PRESENCE * functional.binary_cross_entropy(
        decoded.presence.float(), present, reduction="none"
    )
