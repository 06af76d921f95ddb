"""Opening what a visitor sends; of several DICOM series the visitor chooses one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.demo.looking import open_volume
from promptseg.demo.resuming import restore
from promptseg.demo.visit import Visit
from promptseg.demo.visit_parts import Waiting
from promptseg.demo.work_file import SUFFIX, read_work
from promptseg.errors import FormatError, PromptsegError

if TYPE_CHECKING:
    from promptseg.demo.server import Server
    from promptseg.io.dicom import Series


def open_upload(visit: Visit, server: Server, paths: Sequence[Path], name: str) -> None:
    """Open an upload of the page; one with several series waits until one is chosen.

    Raises:
        PromptsegError: It cannot be read.
    """
    from promptseg.io.dicom import SeriesChoice

    if len(paths) == 1 and name.lower().endswith(SUFFIX):
        open_work(visit, server, paths[0])
        return
    drop_waiting(visit)
    keep = False
    try:
        volume = server.read(paths)
    except SeriesChoice as error:
        choices = choices_of(error.series)
        if not choices:
            raise
        visit.waiting, keep = Waiting(tuple(paths), name, choices), True
        visit.tell("several_series", name=name, count=len(choices))
        return
    finally:
        if not keep:
            server.discard(paths)
    open_volume(visit, volume, name, server.visits)


def open_work(visit: Visit, server: Server, path: Path) -> None:
    """Take up a session file on the image that is open.

    Raises:
        PromptsegError: It is none, or of another image than the one that is open.
    """
    try:
        work = read_work(path)
    finally:
        server.discard([path])
    if visit.volume is None:
        raise FormatError(visit.say("other_image", name=work.name))
    restore(visit, server.models, work)


def open_series(visit: Visit, server: Server, series: str) -> None:
    """Open one series of the upload that waits.

    Raises:
        PromptsegError: None waits, or it cannot be read; the others can still be chosen.
    """
    waiting = visit.waiting
    if waiting is None:
        raise PromptsegError(visit.say("nothing_waits"))
    volume = server.read(waiting.paths, series)
    open_volume(visit, volume, f"{waiting.name} ({series})", server.visits)
    drop_waiting(visit)


def open_directly(
    visit: Visit, server: Server, paths: Sequence[Path], name: str, series: str | None
) -> None:
    """Open an upload of a program, which names the series itself."""
    if name.lower().endswith(SUFFIX):
        open_work(visit, server, paths[0])
        return
    try:
        volume = server.read(paths, series or None)
    finally:
        server.discard(paths)
    open_volume(visit, volume, name, server.visits)


def drop_waiting(visit: Visit) -> None:
    """Delete an upload that waits for a choice."""
    waiting, visit.waiting = visit.waiting, None
    for path in () if waiting is None else waiting.paths:
        path.unlink(missing_ok=True)


def choices_of(series: Iterable[Series]) -> tuple[tuple[str, str], ...]:
    """Text and value of every volume of some series that can be read."""
    found = []
    for one in series:
        lines = one.lines()
        if len(one.stacks) == 1 and one.stacks[0].grid is not None:
            found.append((lines[0], str(one.number)))
        elif len(one.stacks) > 1:
            found += [
                (f"{lines[0].split(',')[0]}, {line}", f"{one.number}.{place}")
                for place, (line, stack) in enumerate(
                    zip(lines[1:], one.stacks, strict=True), start=1
                )
                if stack.grid is not None
            ]
    return tuple(found)
