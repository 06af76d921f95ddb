"""A plain segmentation network, as objectives see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from promptseg.finetune.objectives.base import AUXILIARY, LEVELS, MAIN, Batch, Loss, Seen
from promptseg.finetune.yardsticks.networks import Body

AUXILIARY_DROPOUT = 0.5


class PlainNetwork:
    """A network without prompts: its channels are background and labels.

    Args:
        make: Builds a fresh body with so many output channels.
        labels: How many.
        seed: Decides the first weights.
    """

    def __init__(self, make: Callable[[int], Body], labels: int, seed: int = 0) -> None:
        self.make, self.labels, self.seed = make, labels, seed
        self.body = self._fresh(1 + labels, seed)
        self.branches = nn.ModuleDict()

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Of the main branch."""
        return dict(self.body.named_parameters())

    def add_branch(self, name: str) -> Mapping[str, nn.Parameter]:
        """A decoder and head of its own, or for level sets a head on the main decoder's map."""
        outputs = self.labels if name == LEVELS else 1 + self.labels
        fresh = self._fresh(outputs, self.seed + 1)
        added = {"head": fresh.head}
        if name == AUXILIARY:
            added["decoder"] = fresh.decoder
        self.branches[name] = nn.ModuleDict(added)
        return dict(self.branches[name].named_parameters())

    def see(self, batch: Batch, images: Tensor | None = None) -> PlainSeen:
        """Look at a batch, or at other images of its samples."""
        return PlainSeen(self, batch, batch.images if images is None else images)

    def stochastic(self) -> AbstractContextManager[None]:
        """Dropout is on while training anyway."""
        return nullcontext()

    def _fresh(self, outputs: int, seed: int) -> Body:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(outputs)


class PlainSeen(Seen):
    """What a plain network answers.

    Args:
        network: Answers.
        batch: The samples.
        images: Of them.
    """

    def __init__(self, network: PlainNetwork, batch: Batch, images: Tensor) -> None:
        super().__init__(batch)
        self.network = network
        self.maps = network.body.encoder(images)
        self._last: Tensor | None = None

    def _main(self) -> Tensor:
        """The main decoder's finest map."""
        if self._last is None:
            self._last = self.network.body.decoder(self.maps)
        return self._last

    def _classes(self, branch: str) -> Tensor:
        if branch == MAIN:
            logits: Tensor = self.network.body.head(self._main())
            return logits
        part = self.network.branches[branch]
        coarse = functional.dropout(self.maps[-1], AUXILIARY_DROPOUT)
        other: Tensor = part.get_submodule("head")(
            part.get_submodule("decoder")([*self.maps[:-1], coarse])
        )
        return other

    def levels(self) -> Tensor:
        head = self.network.branches[LEVELS].get_submodule("head")
        return torch.tanh(head(self._main()))

    def supervised(self) -> Loss:
        """Cross-entropy and Dice; summed over labelled samples, for `annotated` to boost."""
        fitted = self.fit() / self.batch.boost
        return fitted, {"fit": float(fitted.detach()) / max(1, int(self.batch.labelled.sum()))}

    def extras(self) -> Loss:
        return self.batch.masks.new_zeros(()), {}
