"""What takes the steps: Muon for matrices that are trained whole, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from promptseg.finetune.muon import Muon

BETAS = (0.9, 0.99)
# Compared at equal time on left atria (docs/few_labels.md).
MUON_RATIO = 25.0
# A matrix with fewer rows or columns has hardly any directions to balance.
LEAST_SIDE = 8
# Tables of vectors, each of which is looked up by itself, are no matrices that something passes.
TABLES = ("names.", "embed", "rel_pos")


class Optimiser:
    """Steps of named parameters, with the face of a torch optimiser that a training loop uses.

    Muon took a decoder to the same loss in fewer steps than AdamW. Low-rank matrices stay with
    AdamW: the product of two balanced factors is not balanced.

    Args:
        parameters: What learns, by name.
        naming: Those among them that learn `token_rate` times as fast.
        low_rank: Those that are factors of an update.
        kind: `muon` or `adamw`.
        rate: Learning rate of AdamW; Muon's step is `MUON_RATIO` times as long.
        token_rate: Of `naming`, in multiples of `rate`.
        weight_decay: Of both.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        naming: Sequence[nn.Parameter],
        low_rank: Sequence[nn.Parameter],
        kind: str,
        rate: float,
        token_rate: float,
        weight_decay: float,
    ) -> None:
        left_out = {id(p) for p in (*naming, *low_rank)}
        whole = [p for name, p in parameters.items()
                 if kind == "muon" and id(p) not in left_out and is_matrix(name, p)]  # fmt: skip
        placed = {id(p) for p in (*naming, *whole)}
        rest = [p for p in parameters.values() if id(p) not in placed]
        groups: list[dict[str, Any]] = [
            {"params": rest, "factor": 1.0},
            {"params": list(naming), "factor": token_rate},
        ]
        adamw = torch.optim.AdamW(groups, rate, BETAS, weight_decay=weight_decay)
        self.parts: dict[str, torch.optim.Optimizer] = {"adamw": adamw}
        if whole:
            muon = Muon(whole, rate * MUON_RATIO, weight_decay)
            muon.param_groups[0]["factor"] = MUON_RATIO
            self.parts["muon"] = muon

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of both; each has a `factor` of the rate."""
        return [group for part in self.parts.values() for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.parts.values():
            part.zero_grad(set_to_none)

    def step(self) -> None:
        """Update what has a gradient."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """States by part."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave, or AdamW alone in runs from before there was Muon."""
        given = {"adamw": state} if "param_groups" in state else state
        for name, part in self.parts.items():
            part.load_state_dict(dict(given[name]))


def stepped_by(asked: str, family: str, strokes: bool) -> str:
    """`muon` or `adamw`; `auto` is Muon where it measured better.

    That is the default model and whole labels. Where strokes say little, what keeps an answer in
    shape is what the network knew, and Muon forgets that sooner (docs/few_labels.md).
    """
    if asked != "auto":
        return asked
    return "muon" if family == "promptseg" and not strokes else "adamw"


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """True for weights of linear layers and convolutions with enough rows and columns."""
    if parameter.dim() < 2 or any(part in name for part in TABLES):
        return False
    return min(len(parameter), parameter[0].numel()) >= LEAST_SIDE
