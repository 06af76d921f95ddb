"""What is segmented in one go: a label on a slice, or a label in a volume."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.datasets.cohort import Case
from promptseg.datasets.strokes import Strokes
from promptseg.evaluate.settings import Settings
from promptseg.prompts.slice_axis import choose_axis
from promptseg.prompts.types import PromptSet
from promptseg.volume import Volume
from promptseg.volume.intensity import choose_window
from promptseg.volume.slicing import in_plane, take_slice


@dataclass(frozen=True, eq=False)
class Task:
    """One target in one view.

    A slice comes with its two neighbours, which networks see too, and with the window of its
    whole volume; so it is answered as it would be within the volume, without the volume's cost.

    Args:
        volume: The image, in 2D at most three slices of it.
        truth: (I, J, K) bool on its grid.
        axis: Slice axis.
        window: `WIDTH,LEVEL`.
        label: Value of the target in the case's labels.
        seed: Where this task's random numbers start.
        index: Slice of `volume` that is segmented; None for all of it.
        place: The same slice in the whole image.
        strokes: (I, J, K) bool human strokes inside and outside the target, or None.
    """

    volume: Volume
    truth: np.ndarray
    axis: int
    window: str
    label: int
    seed: tuple[int, ...]
    index: int | None = None
    place: int | None = None
    strokes: Strokes | None = None

    def view(self, data: np.ndarray) -> np.ndarray:
        """The slice of (I, J, K) data that is segmented, or all of it."""
        return data if self.index is None else take_slice(data, self.axis, self.index)

    @property
    def target(self) -> np.ndarray:
        """Truth in the view."""
        return self.view(self.truth)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres along the axes of the view."""
        sides = range(3) if self.index is None else in_plane(self.axis)
        return tuple(float(self.volume.spacing[side]) for side in sides)

    def voxel(self, at: Sequence[int]) -> tuple[int, int, int]:
        """Voxel index of an index in the view."""
        if self.index is not None:
            return on_slice(at, self.axis, self.index)
        i, j, k = at
        return i, j, k


def on_slice(at: Sequence[int], axis: int, index: int) -> tuple[int, int, int]:
    """Voxel of a (row, column) on a slice."""
    voxel = [int(value) for value in at]
    voxel.insert(axis, index)
    return voxel[0], voxel[1], voxel[2]


def slice_axis(case: Case, settings: Settings) -> int:
    """The axis that the case is sliced along."""
    return choose_axis(case.volume, PromptSet(), settings.axis)


def volume_task(case: Case, label: int, settings: Settings, strokes: Strokes | None = None) -> Task:
    """The whole volume as one task."""
    return Task(
        case.volume,
        case.labels == label,
        slice_axis(case, settings),
        fixed_window(case.volume, settings.window),
        label,
        (settings.seed, zlib.crc32(f"{case.name} {label}".encode())),
        strokes=strokes,
    )


def slice_tasks(whole: Task, settings: Settings) -> list[Task]:
    """One task for every slice on which the target is large enough; never none.

    Human strokes, where there are any, choose the slices too: those with a stroke inside.
    """
    others = in_plane(whole.axis)
    counts = whole.truth.sum(others)
    usable = counts >= min(settings.least_pixels, counts.max())
    if whole.strokes is not None:
        stroked = whole.strokes[0].any(others) & (counts > 0)
        usable = usable & stroked if (usable & stroked).any() else stroked
    chosen = np.flatnonzero(usable)
    if settings.slices is not None and settings.slices < len(chosen):
        rng = np.random.default_rng(whole.seed)
        chosen = np.sort(rng.choice(chosen, settings.slices, replace=False))
    return [slab_task(whole, int(index)) for index in chosen]


def slab_task(whole: Task, place: int) -> Task:
    """A slice with its neighbours."""
    low, high = max(0, place - 1), min(whole.volume.shape[whole.axis], place + 2)
    cut = tuple(slice(low, high) if a == whole.axis else slice(None) for a in range(3))
    affine = whole.volume.affine.copy()
    affine[:3, 3] += affine[:3, whole.axis] * low
    strokes = None if whole.strokes is None else (whole.strokes[0][cut], whole.strokes[1][cut])
    return Task(
        Volume(whole.volume.data[cut], affine, whole.volume.modality),
        whole.truth[cut],
        whole.axis,
        whole.window,
        whole.label,
        (*whole.seed, place),
        place - low,
        place,
        strokes,
    )


def fixed_window(volume: Volume, window: str | None) -> str:
    """A volume's window as `WIDTH,LEVEL`, the same for every part of it."""
    chosen = choose_window(volume, window)
    return f"{chosen.high - chosen.low!r},{(chosen.high + chosen.low) / 2!r}"
