"""Progress bars, on stderr, only on a terminal and only for what takes time."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

DELAY_S = 2.0


class Bars:
    """One bar a stage; call it with (stage, done, total) and leave the `with` block to close it."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage or self._bar is None or total != self._bar.total:
            self._open(stage, total)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _open(self, stage: str, total: int) -> None:
        from tqdm import tqdm

        self._close()
        quiet = not sys.stderr.isatty()
        self._stage = stage
        self._bar = tqdm(total=total, desc=stage, delay=DELAY_S, leave=False, disable=quiet)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
