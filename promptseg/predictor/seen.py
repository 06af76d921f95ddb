"""A volume as a network sees it, whatever order its file stores the voxels in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from promptseg.prompts.reordering import reordered, reordered_prompt
from promptseg.prompts.slice_axis import choose_axis
from promptseg.prompts.types import Mask, PromptSet
from promptseg.volume import Volume
from promptseg.volume.orientation import CANONICAL, Orientation
from promptseg.volume.slicing import resolve_axis

Values = TypeVar("Values", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Seen:
    """A file's volume and the same as a network sees it.

    Args:
        file: As it is stored.
        orientation: From the file to the network.
        volume: As the network sees it.
        codes: Where the axes that it sees run to, such as `RAS`.
    """

    file: Volume
    orientation: Orientation
    volume: Volume
    codes: str = CANONICAL

    @classmethod
    def of(cls, file: Volume, codes: str = CANONICAL) -> Seen:
        """By a network that was trained on axes that run to `codes`."""
        orientation = Orientation.of(file.affine, codes)
        return cls(file, orientation, orientation.volume(file), codes)

    def prompts(self, prompts: PromptSet) -> PromptSet:
        """Prompts in voxels of the file, as the network sees them."""
        return reordered(prompts, self.orientation, self.file.shape)

    def axis(self, prompts: PromptSet, wanted: int | str = "auto") -> int:
        """The axis that the network slices along.

        Args:
            prompts: As the network sees them.
            wanted: An axis of the file, a name, or `auto`, which is the same for every order.

        Raises:
            PromptError: The axis is unknown.
        """
        if str(wanted).strip().lower() == "auto":
            return choose_axis(self.volume, prompts)
        return self.orientation.axis(resolve_axis(wanted, self.file.affine))

    def file_slice(self, axis: int, index: int) -> tuple[int, int]:
        """Axis and number in the file of a slice that the network sees."""
        place = self.orientation.inverse.index(axis, index, self.volume.shape)
        return self.orientation.file_axis(axis), place

    def network_slice(self, axis: int, index: int) -> tuple[int, int]:
        """Axis and number as the network sees it of a slice in the file."""
        place = self.orientation.index(axis, index, self.file.shape)
        return self.orientation.axis(axis), place

    def in_file(self, data: NDArray[Values]) -> NDArray[Values]:
        """(I, J, K) of the file from what the network gave."""
        return data if self.orientation.plain else np.ascontiguousarray(self.orientation.undo(data))

    def mask_in_file(self, mask: Mask) -> Mask:
        """A mask prompt on what the network sees, in the file."""
        return reordered_prompt(mask, self.orientation.inverse, self.volume.shape)

    def slices_in_file(self, item: Any) -> Any:
        """A dataclass with `axis` and `index` of a slice that the network sees, in the file."""
        axis, index = self.file_slice(item.axis, item.index)
        return replace(item, axis=axis, index=index)
