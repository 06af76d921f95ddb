"""What was computed before, kept within a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Values by key, the least recently used dropped first.

    Args:
        most: Bound on the sum of sizes.
        size: Of one value.
    """

    def __init__(self, most: int, size: Callable[[V], int]) -> None:
        self.most, self._size = most, size
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.total = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        """The value of a key, None if it was never put or was dropped."""
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: K, value: V, spared: Collection[K] = ()) -> None:
        """Keep a value and drop others beyond the bound, but none of `spared`."""
        self._drop(key)
        size = self._size(value)
        self._held[key] = value, size
        self.total += size
        for old in list(self._held):
            if self.total <= self.most:
                break
            if old != key and old not in spared:
                self._drop(old)

    def _drop(self, key: K) -> None:
        if key in self._held:
            self.total -= self._held.pop(key)[1]
