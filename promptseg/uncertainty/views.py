"""The same volume seen another way: mirrored, larger or smaller, brighter or darker.

A mirrored view turns the voxels, the prompts and the region of interest, so that its answer,
turned back, is on exactly the same voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from promptseg.prompts.types import Box, Mask, Point, Prompt, PromptSet, Scribble
from promptseg.slicing import Frame, Region, in_plane


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
        axes = self.axes(axis)
        return PromptSet(mirrored(prompt, axes, shape) for prompt in prompts)


def mirrored(prompt: Prompt, axes: tuple[int, ...], shape: tuple[int, int, int]) -> Prompt:
    """A prompt in voxels after the volume is turned round along `axes`; words stay as they are."""
    if isinstance(prompt, Point):
        return replace(prompt, at=_turned(prompt.at, axes, shape, 1))
    if isinstance(prompt, Box):
        ends = [_turned(end, axes, shape, 0) for end in (prompt.lo, prompt.hi)]
        (i0, i1), (j0, j1), (k0, k1) = (sorted(side) for side in zip(*ends, strict=True))
        return replace(prompt, lo=(i0, j0, k0), hi=(i1, j1, k1))
    if isinstance(prompt, Scribble):
        voxels = prompt.voxels.copy()
        for axis in axes:
            voxels[:, axis] = shape[axis] - 1 - voxels[:, axis]
        return replace(prompt, voxels=voxels)
    if isinstance(prompt, Mask):
        kept = [a for a in range(3) if a != prompt.axis or prompt.index is None]
        turned = tuple(place for place, axis in enumerate(kept) if axis in axes)
        index = prompt.index
        if prompt.axis in axes and index is not None:
            index = shape[prompt.axis] - 1 - index
        return replace(prompt, data=np.flip(prompt.data, turned), index=index)
    return prompt


def _turned(
    at: tuple[float, float, float], axes: tuple[int, ...], shape: tuple[int, int, int], last: int
) -> tuple[float, float, float]:
    """A place counted from the other end; `last` is 1 for voxel centres and 0 for edges."""
    i, j, k = (shape[a] - last - at[a] if a in axes else at[a] for a in range(3))
    return i, j, k


ROWS, COLUMNS = View(mirror=(0,)), View(mirror=(1,))
SMALLER, BRIGHTER = View(zoom=1.2), View(gamma=0.8)
VIEWS = (ROWS, COLUMNS, SMALLER, BRIGHTER)
