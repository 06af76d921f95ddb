"""What a network is asked about one volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from promptseg.prompts.types import PromptSet
from promptseg.volume import Segmentation


@dataclass(frozen=True)
class Question:
    """What was asked.

    Args:
        prompts: In voxels and checked.
        propagate: As in `Session.answer`.
        tokens: (C,) token by target; of targets without a prompt, or named beside it.
        dense: (I, J, K) map in [0, 1] by target, as `Engine.run` takes it.
        sections: Largest cross-section by target, as `segment_unprompted` takes it.
    """

    prompts: PromptSet
    propagate: bool = True
    tokens: Mapping[int, Tensor] = field(default_factory=dict)
    dense: Mapping[int, np.ndarray] = field(default_factory=dict)
    sections: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Reply:
    """The answer to a question.

    Args:
        result: Labels and scores for the user.
        network: (I, J, K) labels that the network gave.
        labels: The same after graph cut on clicks, else the same array.
    """

    result: Segmentation
    network: np.ndarray
    labels: np.ndarray
