"""Work is kept on disk as it is done, so that an ended visit, a crash or a restart loses none.

Prompts and masks are kept, never the image; who has the secret of the browser that made them can
take them up again, on the same image. Work on a project's case is kept in the project.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from contextlib import suppress
from pathlib import Path

from promptseg.demo.visit import Visit
from promptseg.demo.work_file import SUFFIX, Work, read_work, work_of, write_work
from promptseg.errors import PromptsegError

MOST_WORKS = 24
"""Works kept for one browser tab; the oldest goes first."""

logger = logging.getLogger(__name__)


class Keeper:
    """Works on disk by the secret of a browser tab, the image and the time it was opened.

    Args:
        folder: Where; made for this user alone. None keeps nothing.
        hours: Works that were not touched for longer are removed.
    """

    def __init__(self, folder: Path | None = None, hours: float = 24.0) -> None:
        self.folder, self.hours = folder, hours
        self._waiting: dict[Path, Work] = {}
        self._lock, self._writing = threading.Lock(), threading.Lock()

    def keep(self, visit: Visit) -> None:
        """Write the work of a visit soon, from another thread; nothing if there is none."""
        path = self._path(visit)
        if path is None or not visit.worked or mark(visit) == visit.kept:
            return
        work, visit.kept = work_of(visit), mark(visit)
        with self._lock:
            idle = not self._waiting
            self._waiting[path] = work
        if idle:
            threading.Thread(target=self.flush, name="promptseg-demo-keep", daemon=True).start()

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            while self._waiting:
                with self._lock:
                    path, work = next(iter(self._waiting.items()))
                try:
                    self._write(path, work)
                except (OSError, PromptsegError):
                    logger.exception("work could not be kept")
                with self._lock:
                    if self._waiting[path] is work:
                        del self._waiting[path]

    def latest(self, visit: Visit) -> tuple[Path, Work] | None:
        """The newest work of the visitor's browser but the present one, and where it is.

        With an image open, the newest on that image.
        """
        self.flush()
        digest = "*" if visit.volume is None else _hashed(visit.volume.sha256)
        found = {path for secret in visit.secrets for path in self._of(secret, digest)}
        for path in sorted(found - {self._path(visit)}, key=_age):
            with suppress(PromptsegError):
                return path, read_work(path)
        return None

    def forget(self, visit: Visit) -> None:
        """Remove the present work of a visit."""
        self.flush()
        path = self._path(visit)
        if path is not None:
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove works that are too old."""
        for path in [] if self.folder is None else self.folder.glob(f"*{SUFFIX}"):
            if _age(path) > 3600 * self.hours:
                path.unlink(missing_ok=True)

    def _write(self, path: Path, work: Work) -> None:
        if path.parent != self.folder:
            write_work(work, path)
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_work(work, path)
        path.chmod(0o600)
        mine = path.name.split("-")[0]
        held = sorted(path.parent.glob(f"{mine}-*{SUFFIX}"), key=_age)
        for old in held[MOST_WORKS:]:
            old.unlink(missing_ok=True)

    def _of(self, secret: str, digest: str) -> list[Path]:
        if self.folder is None:
            return []
        return list(self.folder.glob(f"{_hashed(secret)}-{digest}-*{SUFFIX}"))

    def _path(self, visit: Visit) -> Path | None:
        if visit.case is not None:
            return visit.case.draft
        if self.folder is None or not visit.secret or visit.volume is None:
            return None
        image = _hashed(visit.volume.sha256)
        return self.folder / f"{_hashed(visit.secret)}-{image}-{visit.work_id}{SUFFIX}"


def works_folder() -> Path:
    """Where works are kept for this user of the machine."""
    from platformdirs import user_state_dir

    return Path(user_state_dir("promptseg")) / "demo"


def mark(visit: Visit) -> tuple[object, ...]:
    """What differs between two works of a visit."""
    shown = [(label, t.name, t.colour) for label, t in visit.targets.items()]
    return (visit.work_id, visit.secret, visit.model, visit.adapter, visit.model_window,
            visit.answered, id(visit.labels), *map(id, visit.prompts), *shown)  # fmt: skip


def _age(path: Path) -> float:
    """Seconds since a file was written; one that is gone is infinitely old."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _hashed(text: str) -> str:
    """What a secret is called on disk: a name that gives nothing away and leads nowhere."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]
