"""Freed memory goes back to the system.

The C library keeps what a program frees: a heap for every few threads, and blocks of up to 32 MB
within it once one of that size was freed. A server that answers on forty threads then grows with
every visitor, although their visits are gone.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

HEAPS = 2
OWN_PAGES_BYTES = 4 << 20
TRIM_BYTES = 16 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def bound_heaps() -> bool:
    """Few heaps, large blocks in pages of their own; to be called before threads start.

    Returns:
        False where the C library has no such settings.
    """
    library = _library()
    if library is None or not hasattr(library, "mallopt"):
        return False
    wanted = {
        _ARENA_MAX: HEAPS,
        _MMAP_THRESHOLD: OWN_PAGES_BYTES,
        _TRIM_THRESHOLD: TRIM_BYTES,
    }
    taken = [library.mallopt(name, value) == 1 for name, value in wanted.items()]
    return all(taken)


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can."""
    gc.collect()
    library = _library()
    if library is not None and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _library() -> ctypes.CDLL | None:
    with suppress(OSError):
        return ctypes.CDLL("libc.so.6")
    return None
