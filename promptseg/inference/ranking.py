"""Which of the masks that a click or a box could mean it does mean: learned on known targets.

The quality that a network predicts is of a mask in its view. Seen from too near, half of an organ
is a mask of good quality; which of eighteen masks from six views a user means is another question,
and its answer was learned from simulated clicks on training images (weights/train_ranking.py).
So was how much of what a network half believes a box means.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptseg.weights.described import Described
from promptseg.weights.registry import sha256_file
from promptseg.weights.shipped import shipped_or

NAME = "ranking"
FILE = Described("promptseg-ranking", 3, "ranking of masks")
HIDDEN, MEMBERS = 48, 5
# Features further than this many standard deviations from their mean say no more.
CLIPPED = 4.0
NEVER = -1e4


class SetScorer(nn.Module):
    """Scores a set of masks: each by itself and beside the others (deep sets, Zaheer et al. 2017).

    Args:
        features: Numbers a mask.
        hidden: Width.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.each = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.beside = nn.Sequential(
            nn.Linear(3 * hidden, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, 1)
        )

    def forward(self, scaled: Tensor, valid: Tensor) -> Tensor:
        """(B, N) scores of (B, N, F) features; `valid` as `RankingNetwork` takes it."""
        each = self.each(scaled)
        most = each.masked_fill(~valid[..., None], NEVER).amax(1, keepdim=True)
        mean = (each * valid[..., None]).sum(1, keepdim=True) / valid.sum(1)[:, None, None]
        together = torch.cat([each, most.expand_as(each), mean.expand_as(each)], -1)
        found: Tensor = self.beside(together)[..., 0]
        return found.masked_fill(~valid, NEVER)


class RankingNetwork(nn.Module):
    """Several scorers of sets of masks, trained alike from different starts.

    Args:
        features: Numbers a mask.
        hidden: Width of each.
        members: How many.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, features: int, hidden: int = HIDDEN, members: int = MEMBERS) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.members = nn.ModuleList(SetScorer(features, hidden) for _ in range(members))
        self.config = {"features": features, "hidden": hidden, "members": members}

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """(M, B, N) scores by the members; the mean of their sigmoids is the Dice to expect.

        Args:
            features: (B, N, F) of N masks.
            valid: (B, N) bool, False for masks that are not there.
        """
        scaled = ((features - self.mean) / self.spread).clamp(-CLIPPED, CLIPPED)
        return torch.stack([member(scaled, valid) for member in self.members])


class RankingNetworks(nn.Module):
    """That of clicks and that of boxes.

    Args:
        click: Arguments of the one.
        box: Arguments of the other.
    """

    def __init__(self, click: Mapping[str, int], box: Mapping[str, int]) -> None:
        super().__init__()
        self.click, self.box = RankingNetwork(**click), RankingNetwork(**box)

    @property
    def config(self) -> dict[str, dict[str, int]]:
        """What builds it."""
        return {"click": self.click.config, "box": self.box.config}


class MaskRanking:
    """Says which Dice to expect of each of some masks of one click or one box.

    Args:
        network: Trained by weights/train_ranking.py.
        base: Digest of the model whose masks it knows.
        sha256: Digest of its file, None if it has none.
    """

    def __init__(
        self, network: RankingNetworks, base: str | None, sha256: str | None = None
    ) -> None:
        self.network, self.base, self.sha256 = network.eval(), base, sha256

    def to(self, device: torch.device) -> MaskRanking:
        """The same: it is so small that it is always asked on the CPU."""
        return self

    def of_click(self, features: NDArray[np.float32]) -> list[float]:
        """Dice to expect of N masks of a click.

        Args:
            features: (N, F), see `candidate_features`.
        """
        return expected(self.network.click, features)

    def of_box(self, features: NDArray[np.float32]) -> list[float]:
        """Dice to expect of N masks of a box.

        Args:
            features: (N, F), see `box_features`.
        """
        return expected(self.network.box, features)


@torch.inference_mode()
def expected(network: RankingNetwork, features: NDArray[np.float32]) -> list[float]:
    """Dice that a network expects of N masks with (N, F) features."""
    rows = torch.from_numpy(features)[None]
    valid = torch.ones(rows.shape[:2], dtype=torch.bool)
    found: list[float] = network(rows, valid).sigmoid().mean(0)[0].tolist()
    return found


def save_ranking(network: RankingNetworks, base: str, path: Path, about: dict[str, str]) -> None:
    """Write one safetensors file in half precision."""
    FILE.save(network, network.config, path, {"base": base, **about})


def load_ranking(path: Path | None = None) -> MaskRanking:
    """Read a file of `save_ranking`; the one that ships if None, once a process.

    Raises:
        WeightsError: If the file is missing, corrupt or holds something else.
    """
    return shipped_or(path, NAME, _read)


def _read(path: Path) -> MaskRanking:
    network, base = FILE.load_with_base(path, RankingNetworks)
    return MaskRanking(network, base, sha256_file(path))
