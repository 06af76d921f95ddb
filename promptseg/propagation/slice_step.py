"""The slice step: answers the next slices of tracks with a network that knows where they are from.

A promptable network takes the mask of a neighbour for a rough mask of the slice itself: it moves
half as far as a target that moves, and follows one into what looks like it. The step sees both
slices and the prompted one, and was trained on its own answers; the mean of both is an answer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptseg.backbones.base import Embedding
from promptseg.backbones.network import PromptsegConfig
from promptseg.inference.decoder import SliceMask
from promptseg.inference.device import autocast
from promptseg.propagation.step_network import StepNetwork, step_maps
from promptseg.weights.described import Described
from promptseg.weights.registry import sha256_file
from promptseg.weights.shipped import shipped_or

NAME = "step"
FILE = Described("promptseg-step", 1, "slice step")
# Logits beyond this say no more: the step's answer and the decoder's then count alike.
SURE = 4.0


@dataclass(frozen=True)
class Place:
    """A slice of a track, and the two that it is told of.

    Args:
        grey: (m, m) in [0, 1].
        neighbour: (m, m) logits and greys of the slice that hands its mask on.
        key: The same of the prompted slice.
        away: Distances of both in sides of the view.
    """

    grey: Tensor
    neighbour: tuple[Tensor, Tensor]
    key: tuple[Tensor, Tensor]
    away: tuple[float, float]


class SliceStep:
    """Answers slices of tracks.

    Args:
        network: Trained by weights/train_step.py.
        base: Digest of the model whose features it reads.
        sha256: Digest of its file, None if it has none.
    """

    def __init__(self, network: StepNetwork, base: str | None, sha256: str | None = None) -> None:
        self.network, self.base, self.sha256 = network.eval(), base, sha256

    def to(self, device: torch.device) -> SliceStep:
        """The same on a device."""
        return SliceStep(copy.deepcopy(self.network).to(device), self.base, self.sha256)

    @torch.inference_mode()
    def answers(
        self, embedding: Embedding, places: Sequence[Place], precision: Any, batch_size: int = 16
    ) -> list[SliceMask]:
        """Masks of N slices.

        Args:
            embedding: Of N slices, from the model that the step belongs to.
            places: Where they are.
            precision: As in `autocast`.
            batch_size: Slices at once.
        """
        found: list[SliceMask] = []
        for start in range(0, len(places), batch_size):
            rows = list(range(start, min(start + batch_size, len(places))))
            features = embedding[rows].features
            maps = told([places[n] for n in rows]).to(features[0].device)
            with autocast(features[0].device, precision):
                logits, quality, presence = self.network(features, maps)  # type: ignore[arg-type]
            for n in range(len(rows)):
                found.append(
                    SliceMask(
                        logits[n, 0].float().cpu().clone(),
                        float(quality[n, 0].float().sigmoid()),
                        float(presence[n].float().sigmoid()),
                    )
                )
        return found


def told(places: Sequence[Place]) -> Tensor:
    """(N, CHANNELS, m, m): what the network is told of N slices."""

    def pairs(held: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return torch.stack([a for a, _ in held]), torch.stack([b for _, b in held])

    return step_maps(
        torch.stack([place.grey for place in places]),
        pairs([place.neighbour for place in places]),
        pairs([place.key for place in places]),
        [place.away for place in places],
    )


def together(stepped: SliceMask, decoded: SliceMask) -> SliceMask:
    """The mean of the step's mask and of the decoder's own; the step says whether it is there."""
    logits = (stepped.logits.clamp(-SURE, SURE) + decoded.logits.clamp(-SURE, SURE)) / 2
    return replace(stepped, logits=logits)


def save_step(network: StepNetwork, base: str, path: Path, about: dict[str, str]) -> None:
    """Write one safetensors file in half precision that carries its own configuration."""
    FILE.save(network, network.config.to_diff_dict(), path, {"base": base, **about})


def load_step(path: Path | None = None) -> SliceStep:
    """Read a file of `save_step`; the one that ships if None, once a process.

    Raises:
        WeightsError: If the file is missing, corrupt or holds something else.
    """
    return shipped_or(path, NAME, _read)


def _read(path: Path) -> SliceStep:
    network, base = FILE.load_with_base(
        path, lambda **config: StepNetwork(PromptsegConfig(**config))
    )
    return SliceStep(network, base, sha256_file(path))
