"""The network of the slice step: from one slice's mask to the next one's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from promptseg.backbones.network import MaskDecoder, PromptEncoder, PromptsegConfig, PromptsegModel
from promptseg.backbones.prompt_maps import MASK

CHANNELS = 7
NEIGHBOUR, NEIGHBOUR_GREY, GREY, KEY, KEY_GREY, AWAY, KEY_AWAY = range(CHANNELS)
LOGIT_SCALE = 4.0
# Distances in sides of the view: a slice is a few hundredths away, a key slice up to a half.
NEAR, FAR = 10.0, 2.0


class StepNetwork(nn.Module):
    """A second decoder on the default network's features that knows where a mask came from.

    The promptable decoder takes a neighbour's mask for a rough mask of the slice itself, and moves
    half as far as a target that moves. This one sees the neighbour's picture too.

    Args:
        config: Of the default network whose features it reads.
    """

    def __init__(self, config: PromptsegConfig) -> None:
        super().__init__()
        self.config = without_names(config)
        self.prompt_encoder = PromptEncoder(self.config, CHANNELS)
        self.mask_decoder = MaskDecoder(self.config)

    @classmethod
    def begun(cls, model: PromptsegModel) -> StepNetwork:
        """With the weights of a default network; what is new begins at zero."""
        network = cls(PromptsegConfig(**model.config.to_diff_dict()))
        own = network.state_dict()
        given = {**model.state_dict()}
        first = "prompt_encoder.stride2.0.weight"
        weight = torch.zeros_like(own[first])
        weight[:, NEIGHBOUR] = given[first][:, MASK]
        given[first] = weight
        network.load_state_dict({name: given[name] for name in own})
        return network

    def forward(
        self, features: tuple[Tensor, Tensor, Tensor, Tensor], maps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Answers on B slices.

        Args:
            features: Of the default network's `encode`, each (B, C, H, W).
            maps: (B, CHANNELS, m, m) of `step_maps`.

        Returns:
            Logits (B, masks, m, m), quality logits (B, masks), presence logits (B,).
        """
        answered: tuple[Tensor, Tensor, Tensor] = self.mask_decoder(
            features, self.prompt_encoder(maps), None
        )
        return answered


def without_names(config: PromptsegConfig) -> PromptsegConfig:
    """The same shape with no named token."""
    return PromptsegConfig(**{**config.to_diff_dict(), "names": []})


def step_maps(
    greys: Tensor,
    neighbour: tuple[Tensor, Tensor],
    key: tuple[Tensor, Tensor],
    away: Sequence[tuple[float, float]],
) -> Tensor:
    """(B, CHANNELS, m, m): what the network is told beside the features of the slice.

    Args:
        greys: (B, m, m) of the slice, in [0, 1].
        neighbour: (B, m, m) logits and greys of the slice that hands its mask on.
        key: The same of the prompted slice.
        away: Distances of both in sides of the view.
    """
    distances = torch.tensor(away, dtype=greys.dtype, device=greys.device)
    near, far = (
        (distances[:, n] * scale).clamp(0, 2)[:, None, None].expand_as(greys)
        for n, scale in ((0, NEAR), (1, FAR))
    )
    shown = [
        torch.tanh(neighbour[0] / LOGIT_SCALE), neighbour[1] * 2 - 1, greys * 2 - 1,
        torch.tanh(key[0] / LOGIT_SCALE), key[1] * 2 - 1, near, far,
    ]  # fmt: skip
    return torch.stack(shown, 1)


def greys_of(images: Tensor) -> Tensor:
    """(B, m, m) greys of the middle slice of (B, 3, S, S) inputs."""
    return functional.avg_pool2d(images[:, 1:2], 2)[:, 0]
