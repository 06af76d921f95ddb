"""What a visit holds beside what is on the screen: uploads that wait, trials, earlier states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptseg.volume import bounding_slices, pasted
from promptseg.volume.slicing import in_plane, take_slice

if TYPE_CHECKING:
    from promptseg.session import Session
    from promptseg.volume import Segmentation, Volume

BYTES_PER_VOXEL = 14
"""Grey values in [0, 1], labels, preview and uncertainty beside the image itself."""


@dataclass(frozen=True)
class Waiting:
    """An upload that holds several series; its files are deleted once one was chosen.

    Args:
        paths: The files.
        name: What they are called.
        choices: Text and value of each volume.
    """

    paths: tuple[Path, ...]
    name: str
    choices: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Trial:
    """What Refine will do, tried on a copy of the session.

    Args:
        prompts: How many it stands for.
        session: The copy, which Refine goes on with.
        result: Its answer.
    """

    prompts: int
    session: Session
    result: Segmentation


@dataclass(frozen=True)
class Sketch:
    """Labels of a part of the volume; none lie outside.

    Args:
        start: Voxel at which the part begins.
        labels: (i, j, k) of the part.
        shape: (I, J, K) of the volume.
    """

    start: tuple[int, ...]
    labels: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray) -> Sketch:
        """What (I, J, K) labels hold."""
        where = bounding_slices(labels > 0)
        if where is None:
            return cls((0, 0, 0), np.zeros((0, 0, 0), labels.dtype), labels.shape)
        return cls(tuple(side.start for side in where), labels[where].copy(), labels.shape)

    def plane(self, axis: int, index: int) -> np.ndarray | None:
        """(rows, columns) labels of one slice of the volume; None where there are none."""
        if not self.start[axis] <= index < self.start[axis] + self.labels.shape[axis]:
            return None
        part = take_slice(self.labels, axis, index - self.start[axis])
        sides = [slice(low, low + n) for low, n in zip(self.start, self.labels.shape, strict=True)]
        rows, cols = in_plane(axis)
        return pasted(part, (sides[rows], sides[cols]), (self.shape[rows], self.shape[cols]))


@dataclass(frozen=True)
class Earlier:
    """A visit as it was.

    Args:
        state: Its attributes named in `OWN`.
        steps: Prompts of the visit right after this was set aside: Undo takes newer ones back
            first.
    """

    state: dict[str, Any]
    steps: int = 0

    @property
    def worth_keeping(self) -> bool:
        """True if there are prompts or masks in it."""
        session = self.state["session"]
        return self.state["labels"] is not None or bool(session is not None and session.prompts)

    def nbytes(self, open_now: Volume | None) -> int:
        """Memory that it takes beside the image that is open."""
        volume, labels = self.state["volume"], self.state["labels"]
        own = 0 if labels is None else labels.nbytes
        if volume is None or volume is open_now:
            return int(own)
        return int(own + volume.data.nbytes + BYTES_PER_VOXEL * volume.data.size)
