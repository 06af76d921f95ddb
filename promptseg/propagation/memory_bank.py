"""What one track remembers: the prompted slices, and the last of those that it has answered."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from promptseg.backbones.memory import Memory, MemorySpan, Recollection


@dataclass(frozen=True)
class Bank:
    """The memories of one track, of one target each; adding gives another bank.

    Slices that the track did not trust are not in it, and leave their places empty.

    Args:
        span: How much the network remembers.
        step: Direction of the track, 1 or -1.
        count: Slices of the volume.
        key_slices: Slice and memory of prompted slices, on either side.
        tracked: The same of slices of the track, the earliest first.
        pointers: Slice and pointer of slices of the track, further back.
    """

    span: MemorySpan
    step: int
    count: int
    key_slices: tuple[tuple[int, Memory], ...]
    tracked: tuple[tuple[int, Memory], ...] = ()
    pointers: tuple[tuple[int, Tensor], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        memories = sum(memory.nbytes for _, memory in (*self.key_slices, *self.tracked))
        return memories + sum(pointer.nbytes for _, pointer in self.pointers)

    @property
    def horizon(self) -> int:
        """Most slices back from which a pointer is recalled."""
        return max(min(self.count, self.span.pointers) - 1, 1)

    def added(self, index: int, memory: Memory) -> Bank:
        """The bank after a slice was answered, without what no later slice will recall."""
        tracked = (*self.tracked, (index, memory))
        pointers = (*self.pointers, (index, memory.pointers))
        after = index + self.step
        return replace(
            self,
            tracked=tuple(w for w in tracked if self._back(after, w[0]) <= self.span.maps),
            pointers=tuple(p for p in pointers if self._back(after, p[0]) <= self.horizon),
        )

    def recalled(self, index: int) -> Recollection:
        """What the network is told on the next slice.

        Of prompted slices that are still to come only the maps are recalled, as SAM 2 does.
        """
        near = [(i, m) for i, m in self.tracked if self._back(index, i) <= self.span.maps]
        behind = [(i, m.pointers) for i, m in self.key_slices if self._back(index, i) >= 0]
        later = [(i, p) for i, p in self.pointers if self._back(index, i) <= self.horizon]
        return Recollection(
            (
                *((memory.maps, 0) for _, memory in self.key_slices),
                *((memory.maps, self._back(index, i)) for i, memory in near),
            ),
            tuple((pointer, self._back(index, i)) for i, pointer in (*behind, *later)),
            self.horizon,
        )

    def _back(self, index: int, place: int) -> int:
        return (index - place) * self.step
