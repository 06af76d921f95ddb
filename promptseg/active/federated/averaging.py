"""Federated averaging (McMahan et al., AISTATS 2017): the mean weighted by cases.

Low-rank matrices are averaged factor by factor. The product of two means is not the mean of the
products: sites that start every round from the same adapter keep the difference small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from promptseg.active.federated.update import Update, check_update
from promptseg.errors import AdapterError


@dataclass(frozen=True)
class Reply:
    """What a site sent after a round.

    Args:
        site: Its name.
        update: Its tensors.
        cases: How many it learned from; its weight.
    """

    site: str
    update: Update
    cases: int


@dataclass(frozen=True)
class Averaged:
    """What came of a round.

    Args:
        update: The mean; what there was before if nothing could be used.
        used: Sites in it and their cases.
        refused: Reason by site.
    """

    update: Update
    used: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def average(
    replies: Sequence[Reply], known: Update, max_norm: float | None = None, max_cases: int = 100_000
) -> Averaged:
    """The mean of what may be averaged; a bad reply is left out and named.

    Args:
        replies: Of the sites.
        known: What all of them began with.
        max_norm: As in `check_update`.
        max_cases: A site cannot weigh more by claiming more.
    """
    used: dict[str, int] = {}
    refused: dict[str, str] = {}
    total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in known.items()}
    for reply in replies:
        try:
            check_update(reply.update, known, max_norm)
            if not 1 <= reply.cases <= max_cases:
                raise AdapterError(f"it says {reply.cases} cases: from 1 to {max_cases} count")
        except AdapterError as error:
            refused[reply.site] = str(error)
            continue
        used[reply.site] = reply.cases
        for name, value in reply.update.items():
            total[name] += value.double() * reply.cases
    if not used:
        return Averaged(dict(known), used, refused)
    weight = sum(used.values())
    mean = {name: (value / weight).to(known[name].dtype) for name, value in total.items()}
    return Averaged(mean, used, refused)
