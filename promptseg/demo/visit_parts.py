"""What a visit holds beside what is on the screen: uploads that wait, trials, earlier states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptseg.volume.slicing import take_slice

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
        found = np.nonzero(labels)
        if not len(found[0]):
            return cls((0, 0, 0), np.zeros((0, 0, 0), labels.dtype), labels.shape)
        ends = [(int(places.min()), int(places.max()) + 1) for places in found]
        part = labels[tuple(slice(low, high) for low, high in ends)].copy()
        return cls(tuple(low for low, _ in ends), part, labels.shape)

    def plane(self, axis: int, index: int) -> np.ndarray | None:
        """(rows, columns) labels of one slice of the volume; None where there are none."""
        if not self.start[axis] <= index < self.start[axis] + self.labels.shape[axis]:
            return None
        part = take_slice(self.labels, axis, index - self.start[axis])
        others = [n for n in range(3) if n != axis]
        plane = np.zeros([self.shape[n] for n in others], self.labels.dtype)
        low = [self.start[n] for n in others]
        plane[low[0] : low[0] + part.shape[0], low[1] : low[1] + part.shape[1]] = part
        return plane


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
