"""Predictions made before somebody asks: the next case opens at once, and efforts are known."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from promptseg.active.loop.project import NONE, Project
from promptseg.active.loop.showing import predict_case
from promptseg.errors import PromptsegError

if TYPE_CHECKING:
    from promptseg.demo.models import Models
    from promptseg.session import Segmenter

WHO = "prediction"
PAUSE_S = 0.1
logger = logging.getLogger(__name__)


class StopError(Exception):
    """A person waits for the network, or it is enough."""


class Predicted(Protocol):
    """A project that is offered, as far as predicting needs it."""

    wanted: int

    def opened(self, who: str) -> AbstractContextManager[Project]: ...

    def network(self, models: Models, urgent: bool = True) -> AbstractContextManager[Segmenter]: ...


class Ahead:
    """Predicts cases that nobody opened yet, in their order, while nobody computes.

    Args:
        served: The project.
    """

    def __init__(self, served: Predicted) -> None:
        self._served = served
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._left, self._stopped = 0, threading.Event()
        self.failed: dict[str, str] = {}

    @property
    def running(self) -> bool:
        """True while cases are predicted."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def start(self, models: Models, busy: Callable[[], bool], most: int) -> None:
        """Predict up to `most` further cases.

        Args:
            models: Load the network.
            busy: True while somebody computes: it waits for them.
            most: Cases at most, beside those that have a prediction.
        """
        with self._lock:
            self._left = max(self._left, most)
            if self.running:
                return
            self._stopped.clear()
            self._thread = threading.Thread(
                target=self._run, args=(models, busy), name="promptseg-demo-ahead", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Predict no more; waits for the slice that is computed."""
        self._stopped.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(30.0)

    def _run(self, models: Models, busy: Callable[[], bool]) -> None:
        try:
            while self._left > 0 and not self._stopped.is_set():
                if not self._one(models, busy):
                    return
        except Exception:
            logger.exception("predicting ahead failed")
        finally:
            self._left = 0

    def _one(self, models: Models, busy: Callable[[], bool]) -> bool:
        """Predict one case; False if none is left."""
        served = self._served
        while served.wanted or busy():
            if self._stopped.wait(PAUSE_S):
                return False
        with served.opened(WHO) as project:
            name = next((n for n in unpredicted(project) if n not in self.failed), None)
            if name is None:
                return False
            try:
                with served.network(models, urgent=False) as segmenter:
                    predict_case(project, segmenter, name, self._yielding(busy))
            except StopError:
                return not self._stopped.is_set()
            except PromptsegError as error:
                self.failed[name] = str(error)
            self._left -= 1
        return True

    def _yielding(self, busy: Callable[[], bool]) -> Callable[[str, int, int], None]:
        """Progress that waits while somebody computes, and ends when the network is wanted."""

        def report(stage: str, done: int, total: int) -> None:
            while True:
                if self._served.wanted or self._stopped.is_set():
                    raise StopError
                if not busy():
                    return
                time.sleep(PAUSE_S)

        return report


def unpredicted(project: Project) -> list[str]:
    """Cases that nobody looked at and the current version has not predicted, in their order."""
    version = project.current
    if version == NONE:
        return []
    rows = project.store.run(
        "SELECT name FROM cases WHERE status = 'new' AND name NOT IN "
        "(SELECT name FROM predictions WHERE version = ?) "
        "ORDER BY priority IS NULL, priority, name",
        (version,),
    )
    return [str(row["name"]) for row in rows]
