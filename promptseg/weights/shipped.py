"""Files of networks that ship with the package, each read once a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from promptseg.weights.registry import check, lookup, pull

Held = TypeVar("Held")


def shipped_or(path: Path | None, name: str, read: Callable[[Path], Held]) -> Held:
    """What a file holds; that of the one that ships under `name` if `path` is None.

    Args:
        path: File of the user's, read each time.
        name: In the registry; its size and digest are checked.
        read: Reads either.

    Raises:
        WeightsError: If the file is missing, corrupt or holds something else.
    """
    if path is not None:
        return read(path)
    held: Held = _checked(name, pull(name), read)
    return held


@lru_cache(maxsize=8)
def _checked(name: str, path: Path, read: Callable[[Path], Held]) -> Held:
    check(lookup(name), path)
    return read(path)
