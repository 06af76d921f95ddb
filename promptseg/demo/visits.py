"""All visits of one server: bounded in number and memory, dropped when idle."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from hmac import compare_digest
from secrets import token_hex
from time import monotonic

from promptseg.demo.heap import give_back_memory
from promptseg.demo.visit import Visit
from promptseg.errors import VolumeError

LEAST_SECRET, MOST_SECRET = 16, 128
"""Characters of a browser tab's secret; `crypto.randomUUID` writes 36."""

logger = logging.getLogger(__name__)


class Visits:
    """Visits by the key of the browser tab; the least recently used goes first.

    Args:
        most: Visits held at once.
        max_bytes: Memory that their images and what is computed from them may take.
        idle_seconds: A visit unused for longer is dropped.
        model: Model that a visit starts with.
        adapter: Adapter that a visit starts with.
    """

    def __init__(
        self,
        most: int = 32,
        max_bytes: int = 8 << 30,
        idle_seconds: float = 1800.0,
        model: str = "default",
        adapter: str | None = None,
    ) -> None:
        self.most, self.max_bytes, self.idle_seconds = most, max_bytes, idle_seconds
        self.model, self.adapter = model, adapter
        self._held: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()
        self._ended = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """Memory of all visits."""
        return sum(visit.nbytes for visit in list(self._held.values()))

    def of(self, key: str | None) -> Visit:
        """The visit of that key, a new one if there is none."""
        if not key:
            raise VolumeError("the request has no session: reload the page")
        with self._lock:
            visit = self._held.get(key)
            if visit is None:
                visit = self._held[key] = Visit(key, model=self.model, adapter=self.adapter)
            visit.last_used = monotonic()
            self._held.move_to_end(key)
            dropped = [self._held.popitem(last=False)[1] for _ in range(len(self) - self.most)]
        self._end(dropped)
        return visit

    def begin(self, key: str | None, secrets: Sequence[str] = ()) -> Visit:
        """The visit of a page that was just loaded, with the secrets of its browser, its own first.

        Raises:
            VolumeError: The request has no session.
        """
        visit = self.of(key)
        visit.ended = False
        visit.secrets = tuple(one for one in secrets if LEAST_SECRET <= len(one) <= MOST_SECRET)
        visit.secret = visit.secrets[0] if visit.secrets else ""
        self._inherit(visit)
        return visit

    def _inherit(self, visit: Visit) -> None:
        """Go on with what the visit of the same tab had learned before it was loaded again."""
        before = [one for one in self.held() if one is not visit and one.left and visit.secret
                  and one.secret == visit.secret]  # fmt: skip
        for other in before:
            visit.loop = other.loop
            if not other.worked:
                self.drop(other.key)

    def held(self) -> list[Visit]:
        """All visits."""
        return list(self._held.values())

    def known(self, key: str | None) -> Visit:
        """The visit of a page that has one; where that is gone, a new one that says so."""
        with self._lock:
            gone = key not in self._held
        visit = self.of(key)
        if gone:
            visit.ended = True
            visit.refuse("ended")
        return visit

    def alive(self, ident: str) -> bool:
        """True if a visit is still held for its page."""
        return self.called(ident) is not None

    def called(self, ident: str) -> Visit | None:
        """The visit of that unguessable name, unless its page was left."""
        found = (v for v in self.held() if compare_digest(v.ident, ident) and not v.left)
        return next(found, None)

    def leave(self, key: str | None) -> None:
        """A tab was closed or reloaded: a visit with work stays as long as an idle one."""
        with self._lock:
            visit = self._held.get(key or "")
            if visit is not None and (visit.worked or visit.loop.remembers) and visit.secret:
                visit.left = True
                visit.cancel.set()
                self._held.move_to_end(visit.key, last=False)
                return
        self.drop(key)

    def left_by(self, visit: Visit) -> Visit | None:
        """The visit with work of the same browser tab, or of a closed one of the same browser."""
        for secret in visit.secrets:
            for other in list(self._held.values()):
                own = other.left or secret == visit.secret
                if other is not visit and other.secret == secret and own and other.worked:
                    return other
        return None

    def take_over(self, visit: Visit) -> Visit:
        """Let a page go on with the visit that `left_by` gives, instead of its own.

        Raises:
            VolumeError: It is gone.
        """
        with self._lock:
            other = self.left_by(visit)
            if other is None or self._held.pop(other.key, None) is None:
                raise VolumeError(visit.say("nothing_kept"))
            self._held[visit.key] = other
            other.key, other.ident, other.left = visit.key, token_hex(16), False
            other.secret, other.secrets = visit.secret, visit.secrets
            other.last_used = monotonic()
        other.speak(visit.language)
        other.tell("taken_up", name=other.name, seconds=0.0)
        self._end([visit])
        return other

    def make_room(self, visit: Visit, nbytes: int) -> None:
        """Drop idle visits until `nbytes` more fit.

        Raises:
            VolumeError: They fit into no server of this size, or others are computing; nobody is
                dropped then.
        """
        if nbytes > self.max_bytes:
            raise VolumeError(
                f"the image needs {nbytes / 1e9:.1f} GB here, this server has "
                f"{self.max_bytes / 1e9:.1f} GB for all: crop it"
            )
        with self._lock:
            going = self._making_room(visit, nbytes)
            visit.reserved = nbytes
            dropped = [self._held.pop(key) for key in going]
        self._end(dropped)

    def _making_room(self, visit: Visit, nbytes: int) -> list[str]:
        """Keys of the visits that have to end."""
        held = sum(one.nbytes for one in self._held.values() if one is not visit)
        going = []
        for key, other in self._held.items():
            if held + nbytes <= self.max_bytes:
                break
            if other is not visit and other.volume is not None and not other.long_running:
                going.append(key)
                held -= other.nbytes
        if held + nbytes > self.max_bytes:
            raise VolumeError("the server is full and others are computing: try again soon")
        return going

    def drop(self, key: str | None) -> None:
        """End a visit, as when the tab is closed."""
        with self._lock:
            dropped = [self._held.pop(known) for known in (key or "",) if known in self._held]
        self._end(dropped)

    def sweep(self) -> None:
        """End visits that nobody used for `idle_seconds`."""
        oldest = monotonic() - self.idle_seconds
        with self._lock:
            idle = [
                key
                for key, visit in self._held.items()
                if visit.last_used < oldest and not visit.long_running
            ]
            dropped = [self._held.pop(key) for key in idle]
        self._end(dropped)

    def keep_sweeping(
        self, every: float = 30.0, also: Callable[[], None] | None = None
    ) -> threading.Thread:
        """Sweep from a thread that ends with the process, and do `also`.

        After visits have ended memory is given back once more: a request may still have held some.
        """

        def loop() -> None:
            while True:
                threading.Event().wait(every)
                with suppress(Exception):
                    self.sweep()
                    if also is not None:
                        also()
                if self._ended:
                    self._ended = False
                    give_back_memory()

        thread = threading.Thread(target=loop, name="promptseg-demo-sweep", daemon=True)
        thread.start()
        return thread

    def _end(self, dropped: list[Visit]) -> None:
        """End visits that are held no more; `dropped` is emptied, so that nothing holds them."""
        if not dropped:
            return
        while dropped:
            _close(dropped.pop())
            logger.info("visit ended; %d are left", len(self))
        give_back_memory()
        self._ended = True


def _close(visit: Visit) -> None:
    visit.cancel.set()
    for path in () if visit.waiting is None else visit.waiting.paths:
        path.unlink(missing_ok=True)
    for folder in visit.folders:
        shutil.rmtree(folder, ignore_errors=True)
