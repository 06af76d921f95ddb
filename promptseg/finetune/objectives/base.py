"""The interface of an objective: a batch, what a network sees in it, and a loss out of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptseg.finetune.objectives.terms import partial_cross_entropy, soft_dice

MAIN, AUXILIARY, LEVELS = "main", "auxiliary", "levels"
Parts = dict[str, float]
Loss = tuple[Tensor, Parts]


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one step, or of a part of it.

    Args:
        images: (B, channels, *size) grey values in [0, 1].
        masks: (B, L, *mask) share of each element that is annotated as each label.
        known: (B, *mask) share of each element that is annotated at all; None where all is.
        labelled: (B,) bool, False for samples that nobody annotated.
        levels: (B, L, *mask) signed distances in [-1, 1], negative inside; None if not asked for.
        progress: Share of the training that is done.
        boost: Samples of a step over the labelled ones among them.
        strokes: True if the annotations are strokes, False if they are whole labels.
        views: What an adapter's prompts come from; empty for plain networks.
        asked: (B, L) bool, False for labels that nobody annotated in a sample; None where all are.
    """

    images: Tensor
    masks: Tensor
    known: Tensor | None
    labelled: Tensor
    levels: Tensor | None = None
    progress: float = 0.0
    boost: float = 1.0
    strokes: bool = False
    views: Sequence[Any] = ()
    asked: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def shares(self) -> Tensor:
        """(B, 1 + L, *mask) share of each element annotated as background and as each label.

        They sum to 1 where all is known and are 0 where nobody annotated anything.
        """
        known = torch.ones_like(self.masks[:, 0]) if self.known is None else self.known
        known = known * self.labelled.view(-1, *[1] * (known.dim() - 1))
        background = (known - self.masks.sum(1)).clamp(min=0)
        return torch.cat([background[:, None], self.masks], 1)


class Seen(ABC):
    """A network's answers to a batch, each computed when it is first asked for.

    Args:
        batch: The samples.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._logits: dict[str, Tensor] = {}

    def classes(self, branch: str = MAIN) -> Tensor:
        """(B, 1 + L, *mask) logits of background and labels from one branch."""
        if branch not in self._logits:
            self._logits[branch] = self._classes(branch)
        return self._logits[branch]

    def probabilities(self, branch: str = MAIN) -> Tensor:
        """(B, 1 + L, *mask) softmax of `classes`."""
        return self.classes(branch).softmax(1)

    @abstractmethod
    def _classes(self, branch: str) -> Tensor:
        """Class logits of a branch."""

    @abstractmethod
    def levels(self) -> Tensor:
        """(B, L, *mask) predicted level sets in [-1, 1], negative inside."""

    @abstractmethod
    def supervised(self) -> Loss:
        """Loss of samples with whole labels, as this network is usually trained; summed."""

    @abstractmethod
    def extras(self) -> Loss:
        """What else this network learns from strokes, such as to follow prompts; summed."""

    def fit(self, branch: str = MAIN) -> Tensor:
        """Loss of one branch where elements are annotated; summed over the samples.

        Partial cross-entropy of strokes; cross-entropy and Dice of whole labels.
        """
        logits, shares = self.classes(branch), self.batch.shares
        losses = partial_cross_entropy(logits, shares)
        if not self.batch.strokes:
            losses = losses + soft_dice(logits.softmax(1), shares)
        return (losses * self.batch.labelled).sum() * self.batch.boost

    def annotated(self, weight: float = 1.0) -> Loss:
        """Loss of everything that is annotated; summed over the samples.

        Args:
            weight: Of the main branch's partial cross-entropy, where annotations are strokes.
        """
        if not self.batch.strokes:
            total, parts = self.supervised()
            return total * self.batch.boost, parts
        fitted = self.fit()
        total, parts = self.extras()
        return weight * fitted + total, {"strokes": float(fitted.detach()) / len(self.batch),
                                         **parts}  # fmt: skip


class Network(Protocol):
    """What objectives ask of whatever learns."""

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What learns and is kept, by name; branches that are dropped afterwards are not in it."""
        ...

    def add_branch(self, name: str) -> Mapping[str, nn.Parameter]:
        """Put a branch beside the main one and give what learns in it."""
        ...

    def see(self, batch: Batch, images: Tensor | None = None) -> Seen:
        """Look at a batch; at other `images` of the same samples if they are given."""
        ...

    def stochastic(self) -> AbstractContextManager[None]:
        """Dropout on meanwhile, where the network has any."""
        ...


class Objective(ABC):
    """One loss out of a batch.

    Args:
        network: What learns; branches that the objective needs are put into it.
    """

    branches: ClassVar[tuple[str, ...]] = ()
    takes_strokes: ClassVar[bool] = True
    needs_strokes: ClassVar[bool] = False
    needs_unlabelled: ClassVar[bool] = False
    uses_unlabelled: ClassVar[bool] = True
    needs_levels: ClassVar[bool] = False
    answers_strokes: ClassVar[bool] = False

    def __init__(self, network: Network) -> None:
        self.network = network
        self.parameters: dict[str, nn.Parameter] = {}
        for branch in self.branches:
            added = network.add_branch(branch)
            self.parameters |= {f"{branch} {name}": p for name, p in added.items()}

    @abstractmethod
    def losses(self, batch: Batch) -> Loss:
        """Loss summed over the samples of a batch, and parts to log."""

    def __call__(self, batch: Batch) -> Loss:
        return self.losses(batch)

    @property
    def state(self) -> Mapping[str, Tensor]:
        """What must be kept beside the parameters to go on later."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Take up what `state` gave."""

    def stepped(self, step: int) -> None:  # noqa: B027
        """Called after every optimiser step, with the number of steps done."""

    @classmethod
    def completed(
        cls, image: NDArray[np.floating], strokes: NDArray[np.integer]
    ) -> NDArray[np.integer]:
        """Strokes of a case as the objective learns from them, computed once before training.

        Args:
            image: (N, H, W) grey values in [0, 1], slices first.
            strokes: (N, H, W) 0 background, 1 + place of a label, -1 not annotated.
        """
        return strokes


@contextmanager
def swapped(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Other values in parameters of the same names, meanwhile and without copying."""
    kept = {name: parameters[name].data for name in values}
    for name, value in values.items():
        parameters[name].data = value
    try:
        yield
    finally:
        for name, value in kept.items():
            parameters[name].data = value
