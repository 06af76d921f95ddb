"""Grey values of slices as a track sees them."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from promptseg.volume.slicing import Frame, take_slice


class Greys:
    """Grey values of the slices in one frame.

    Args:
        data: (I, J, K) grey values in [0, 1].
        frame: The view of the volume.
        side: Of the network's masks.
    """

    def __init__(self, data: np.ndarray, frame: Frame, side: int) -> None:
        self.data, self.frame, self.side = data, frame, side
        self._held: dict[int, Tensor] = {}

    def of(self, index: int) -> Tensor:
        """(m, m) grey values of a slice in the frame, in [0, 1]."""
        if index not in self._held:
            plane = take_slice(self.data, self.frame.axis, index)
            self._held[index] = self.frame.project(plane, self.side)
        return self._held[index]
