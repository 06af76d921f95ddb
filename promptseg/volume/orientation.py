"""The order and directions of a grid's axes: a volume as a network sees it, and back to its file.

The same image can be stored in 48 ways. A network must not see which: it is shown every volume with
its axes along right, anterior and superior, as far as the affine says, or as its adapter was
trained. Axes are put in another order and turned round; nothing is resampled, so that what comes
back is on the file's own voxels exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from promptseg.errors import VolumeError
from promptseg.volume.grid import anatomical_axes
from promptseg.volume.volume import Volume

CANONICAL = "RAS"
_WORLD = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
Values = TypeVar("Values", bound=np.generic)


def check_codes(codes: str) -> str:
    """Three letters such as `RAS`: where each axis runs to.

    Raises:
        VolumeError: They are none, or two name the same direction.
    """
    known = isinstance(codes, str) and all(letter in _WORLD for letter in codes)
    if not known or len({_WORLD[letter][0] for letter in codes}) != 3 or len(codes) != 3:
        raise VolumeError(f"orientation is {codes!r}: give three letters such as RAS or LPS")
    return codes


@dataclass(frozen=True)
class Orientation:
    """How the axes of a file become those that a network sees.

    Args:
        axes: File axis that becomes axis 0, 1 and 2.
        flips: True for each of the new axes that runs against the file's.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @classmethod
    def of(cls, affine: NDArray[np.floating], codes: str = CANONICAL) -> Orientation:
        """From the voxel axes of a (4, 4) affine to axes that run to `codes`.

        On an oblique grid the closest, decided by the directions in the world alone, so that
        equal images in different orders are seen alike.
        """
        along = anatomical_axes(affine)
        axes, flips = [], []
        for letter in check_codes(codes):
            row, sign = _WORLD[letter]
            axes.append(along[row])
            flips.append(_runs_backwards(affine[:3, along[row]], row) == (sign > 0))
        return cls((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    @property
    def plain(self) -> bool:
        """True if nothing changes."""
        return self == Orientation()

    @property
    def inverse(self) -> Orientation:
        """From what the network sees to the file."""
        i, j, k = (self.axes.index(axis) for axis in range(3))
        return Orientation((i, j, k), (self.flips[i], self.flips[j], self.flips[k]))

    def apply(self, data: NDArray[Values]) -> NDArray[Values]:
        """View (I, J, K) values of the file as the network sees them."""
        flipped = tuple(axis for axis, flip in enumerate(self.flips) if flip)
        return np.flip(data.transpose(self.axes), flipped)

    def undo(self, data: NDArray[Values]) -> NDArray[Values]:
        """Values that the network gave, (I, J, K) on the file's own voxels."""
        return self.inverse.apply(data)

    def volume(self, volume: Volume) -> Volume:
        """A volume as the network sees it; the volume itself if nothing changes."""
        if self.plain:
            return volume
        step = np.zeros((4, 4))
        step[3, 3] = 1
        for axis, (source, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            step[source, axis] = -1 if flip else 1
            step[source, 3] = volume.shape[source] - 1 if flip else 0
        return replace(volume, data=self.apply(volume.data), affine=volume.affine @ step)

    def axis(self, axis: int) -> int:
        """The new axis of a file axis."""
        return self.axes.index(axis)

    def file_axis(self, axis: int) -> int:
        """The file axis of a new axis."""
        return self.axes[axis]

    def index(self, axis: int, index: int, shape: Sequence[int]) -> int:
        """New number of slice `index` along file axis `axis` of a file of `shape`."""
        return int(shape[axis]) - 1 - index if self.flips[self.axis(axis)] else index

    def places(self, places: NDArray[Any], shape: Sequence[int], last: int = 1) -> NDArray[Any]:
        """(..., 3) coordinates of a file of `shape`, as the network counts them.

        Args:
            places: Voxel coordinates; their kind of number stays.
            shape: (I, J, K) of the file.
            last: 1 for voxel centres, 0 for edges of half-open boxes, which change places.
        """
        seen = np.array(places)[..., list(self.axes)]
        sides = np.array(shape)[list(self.axes)]
        return np.where(np.array(self.flips), sides - last - seen, seen)


def axis_codes(affine: NDArray[np.floating]) -> str:
    """Where the voxel axes of a (4, 4) affine run to, such as `LPS`."""
    orientation, backwards = Orientation.of(affine), backward_axes(affine)
    return "".join(
        ("LPI" if back else "RAS")[orientation.axis(axis)] for axis, back in enumerate(backwards)
    )


def backward_axes(affine: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(3,) True for each voxel axis of a (4, 4) affine that runs left, posterior or inferior."""
    orientation = Orientation.of(affine)
    return np.array([orientation.flips[orientation.axis(axis)] for axis in range(3)])


def _runs_backwards(direction: NDArray[np.floating], row: int) -> bool:
    """True if an axis runs against a world axis; by what it mostly runs along if across it."""
    length = float(np.linalg.norm(direction))
    along = np.round(direction / length, 4)
    others = sorted(along.tolist(), key=abs, reverse=True)
    return bool(next(part for part in (along[row], *others) if part) < 0)
