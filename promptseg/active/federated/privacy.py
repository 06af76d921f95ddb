"""Differential privacy of a site: its update is clipped and noise is added before it leaves.

One round of one site is one Gaussian mechanism whose sensitivity is the clipping norm, since the
whole contribution of the site is bounded by it. What is protected is therefore all data of the
site at once, which is more than one patient's, and needs much noise for a small epsilon. The
accountant is that of Opacus (Renyi differential privacy, Mironov, CSF 2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from promptseg.active.federated.update import Update, distance
from promptseg.errors import FormatError

DELTA = 1e-5


@dataclass(frozen=True)
class Privacy:
    """How a site protects itself.

    Args:
        clip: Greatest L2 norm of what leaves; None clips nothing.
        noise: Standard deviation of the noise in multiples of `clip`; 0 adds none.

    Raises:
        FormatError: A value cannot be, or noise is wanted without clipping.
    """

    clip: float | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.clip is not None and not (math.isfinite(self.clip) and self.clip > 0):
            raise FormatError(f"clip is {self.clip}: give a number above 0")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise FormatError(f"noise is {self.noise}: give 0 or more")
        if self.noise and self.clip is None:
            raise FormatError("noise is given without clip: what is not bounded has no privacy")

    def protected(
        self, update: Mapping[str, Tensor], known: Mapping[str, Tensor], seed: int | None = None
    ) -> Update:
        """The update as it may leave.

        Args:
            update: After the round.
            known: Before it.
            seed: Of the noise, for tests; None draws from the system.
        """
        if self.clip is None:
            return dict(update)
        share = min(1.0, self.clip / max(distance(update, known), 1e-12))
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        found = {}
        for name, value in update.items():
            change = (value.double() - known[name].double()) * share
            if self.noise:
                drawn = torch.randn(change.shape, generator=generator, dtype=torch.float64)
                change = change + drawn * self.noise * self.clip
            found[name] = (known[name].double() + change).to(value.dtype)
        return found

    def epsilon(self, rounds: int, delta: float = DELTA) -> float:
        """What a site has spent after some rounds; infinite without noise.

        Raises:
            ModuleNotFoundError: Opacus is not installed.
        """
        if not self.noise or rounds < 1:
            return math.inf if rounds >= 1 else 0.0
        from opacus.accountants import RDPAccountant

        accountant = RDPAccountant()
        for _ in range(rounds):
            accountant.step(noise_multiplier=self.noise, sample_rate=1.0)
        return float(accountant.get_epsilon(delta))
