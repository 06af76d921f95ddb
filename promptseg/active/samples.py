"""What a strategy may know of a case or a slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """A slice, or a case as the mean of its slices.

    Args:
        case: Name of the case.
        slice: Number of the slice along the axis that was looked along; None for a whole case.
        feature: (256,) of equation 6-2; None where nothing was predicted.
        least_confidence: Sum over the pixels of the smallest class probability (2-14).
        margin: Sum of the differences between the two greatest (2-15).
        entropy: Sum of the Shannon entropies in nats (2-16).
        similarity: Squared distance to the nearest reference (6-5); None without a feature.
        uncertainty: Mean calibrated uncertainty about the prediction; None if not asked for.
        path: Of the image.
    """

    case: str
    slice: int | None
    feature: Floats | None
    least_confidence: float
    margin: float
    entropy: float
    similarity: float | None = None
    uncertainty: float | None = None
    path: str = ""

    @property
    def name(self) -> str:
        """Of the case, and of the slice where it is one."""
        return self.case if self.slice is None else f"{self.case}:{self.slice}"


def case_of(slices: Sequence[Sample], uncertainty: float | None = None) -> Sample:
    """A case as the mean of its slices; the distance to the references is averaged as well.

    Args:
        slices: Of one case, at least one.
        uncertainty: Of the whole case.
    """
    features = [one.feature for one in slices if one.feature is not None]
    distances = [one.similarity for one in slices if one.similarity is not None]
    return replace(
        slices[0],
        slice=None,
        feature=np.mean(features, axis=0) if features else None,
        least_confidence=float(np.mean([one.least_confidence for one in slices])),
        margin=float(np.mean([one.margin for one in slices])),
        entropy=float(np.mean([one.entropy for one in slices])),
        similarity=float(np.mean(distances)) if distances else None,
        uncertainty=uncertainty,
    )
