"""The projects that a server offers; which they are is said when it starts, never by a visitor."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from getpass import getuser
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from promptseg.active.loop.claims import keep_claim
from promptseg.active.loop.project import Project
from promptseg.demo.case_state import Visitor
from promptseg.demo.cases.ahead import Ahead
from promptseg.demo.cases.background import Training
from promptseg.demo.cases.drafts import drafts_of_browser
from promptseg.demo.work_file import Work, read_work
from promptseg.errors import FormatError, PromptsegError

if TYPE_CHECKING:
    from promptseg.demo.models import Models
    from promptseg.session import Segmenter


@dataclass
class Served:
    """One project that is offered.

    Args:
        folder: Of the project.
        name: What it is called on the page.
        model: Base of its adapters.
    """

    folder: Path
    name: str
    model: str
    wanted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _counting: threading.Lock = field(default_factory=threading.Lock)
    _segmenter: Segmenter | None = None

    def __post_init__(self) -> None:
        self.training = Training(self.folder)
        self.ahead = Ahead(self)

    @contextmanager
    def opened(self, who: str) -> Iterator[Project]:
        """The project for one person; its connection belongs to the thread that asks."""
        project = Project(self.folder, who)
        try:
            yield project
        finally:
            project.store.close()

    @contextmanager
    def network(self, models: Models, urgent: bool = True) -> Iterator[Segmenter]:
        """The network that predicts, for one user at a time; it is loaded when first asked for.

        Args:
            models: Load it.
            urgent: True if a person waits for it; what is predicted ahead stops for that.
        """
        with self._waiting(urgent):
            self._lock.acquire()
        try:
            if self._segmenter is None:
                self._segmenter = models.own(self.model, None)
            yield self._segmenter
        finally:
            self._lock.release()

    @contextmanager
    def _waiting(self, urgent: bool) -> Iterator[None]:
        with self._counting:
            self.wanted += urgent
        try:
            yield
        finally:
            with self._counting:
                self.wanted -= urgent


class Projects:
    """Projects by name.

    Args:
        folders: Of `promptseg loop init`.

    Raises:
        FormatError: A folder is no project, or two are called alike.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._held: dict[str, Served] = {}
        for folder in (Path(one).resolve() for one in folders):
            if folder.name in self._held:
                raise FormatError(f"two projects are called {folder.name!r}: rename a folder")
            project = Project(folder, default_name())
            try:
                model = str(project.store.setting("model"))
            finally:
                project.store.close()
            self._held[folder.name] = Served(folder, folder.name, model)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Served]:
        return iter(self._held.values())

    @property
    def names(self) -> list[str]:
        """In the order they were given."""
        return list(self._held)

    @property
    def models(self) -> tuple[str, ...]:
        """Bases of the projects."""
        return tuple(dict.fromkeys(served.model for served in self))

    def of(self, visit: Visitor) -> Served:
        """The project that a visitor looks at, the first if none was chosen.

        Raises:
            PromptsegError: The server has none.
        """
        return self.named(visit.loop.project or next(iter(self._held), ""))

    def named(self, name: str) -> Served:
        """A project by name; a path is none.

        Raises:
            PromptsegError: The server offers no such project.
        """
        served = self._held.get(name)
        if served is None:
            known = ", ".join(self._held) or "none: start it with --project DIR"
            raise PromptsegError(f"there is no project {name!r} on this server, there is {known}")
        return served

    def draft_for(self, visit: Visitor) -> tuple[Path, Work] | None:
        """The newest unfinished work of a visitor's browser on a case that is still to be done."""
        for served in self:
            for name, path in drafts_of_browser(served.folder, visit.secrets):
                with suppress(PromptsegError, sqlite3.Error):
                    work = read_work(path)
                    with served.opened(work.who) as project:
                        case = project.case(name)
                    if case["status"] == "new" or (
                        case["status"] == "open" and case["holder"] == work.who
                    ):
                        return path, replace(work, case=(served.name, name))
        return None

    def touch(self, visit: Visitor) -> None:
        """Count an action of a visitor as work on the case that is open, and renew the claim."""
        case, now = visit.case, monotonic()
        if case is None:
            return
        case.touch(now)
        if case.claim_due(now) and case.project in self._held:
            with suppress(PromptsegError, sqlite3.Error), \
                    self.named(case.project).opened(case.who) as project:  # fmt: skip
                keep_claim(project, case.name)

    def close(self) -> None:
        """Stop what runs in the background; a training goes on from where it stood next time."""
        for served in self:
            served.ahead.stop()
            served.training.stop()


def who_of(visit: Visitor) -> str:
    """Whom changes are recorded for: the name given, the login, or this machine's user."""
    return visit.loop.login or visit.loop.who or default_name()


def default_name() -> str:
    """The user that the server runs as; some containers have none."""
    try:
        return getuser()
    except (KeyError, OSError):
        return "nobody"
