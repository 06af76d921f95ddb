"""The same volume seen another way: mirrored, larger or smaller, brighter or darker.

A mirrored view turns the voxels, the prompts and the region of interest, so that its answer,
turned back, is on exactly the same voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from promptseg.prompts.reordering import reordered
from promptseg.prompts.types import PromptSet
from promptseg.volume.orientation import Orientation
from promptseg.volume.slicing import Frame, Region, in_plane


@dataclass(frozen=True)
class View:
    """How a volume is shown to the network.

    Args:
        mirror: Sides of every slice that are turned round: 0 rows, 1 columns.
        zoom: Side of the view over its usual side; above 1 the target looks smaller.
        gamma: Exponent of the grey values in [0, 1]; above 1 they are darker.
    """

    mirror: tuple[int, ...] = ()
    zoom: float = 1.0
    gamma: float = 1.0

    def axes(self, axis: int) -> tuple[int, ...]:
        """Voxel axes that are turned round in a volume sliced along `axis`."""
        return tuple(in_plane(axis)[side] for side in self.mirror)

    def show(self, data: np.ndarray, axis: int) -> np.ndarray:
        """(I, J, K) grey values in [0, 1] as this view shows them."""
        grey = data if self.gamma == 1 else np.power(data, np.float32(self.gamma))
        return np.flip(grey, self.axes(axis))

    def back(self, data: np.ndarray, axis: int) -> np.ndarray:
        """(I, J, K) values of this view on the voxels they belong to."""
        return np.flip(data, self.axes(axis))

    def frame(self, frame: Frame) -> Frame:
        """What `frame` becomes."""
        sides = [frame.region.rows, frame.region.cols]
        for side in self.mirror:
            count = frame.shape[in_plane(frame.axis)[side]]
            sides[side] = count - sides[side][1], count - sides[side][0]
        region = Region(sides[0], sides[1])
        return replace(frame, region=region if self.zoom == 1 else region.grow(factor=self.zoom))

    def prompts(self, prompts: PromptSet, axis: int, shape: tuple[int, int, int]) -> PromptSet:
        """Prompts in voxels where this view shows them."""
        turned = self.axes(axis)
        i, j, k = (side in turned for side in range(3))
        return reordered(prompts, Orientation(flips=(i, j, k)), shape)


ROWS, COLUMNS = View(mirror=(0,)), View(mirror=(1,))
SMALLER, BRIGHTER = View(zoom=1.2), View(gamma=0.8)
VIEWS = (ROWS, COLUMNS, SMALLER, BRIGHTER)
