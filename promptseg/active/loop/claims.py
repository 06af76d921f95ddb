"""Who has a case open: claims that last as long as somebody works, and go back afterwards."""

from __future__ import annotations

import time
from typing import Protocol

from promptseg.active.loop.store import Row, Store

CLAIM_MINUTES = 120.0
BEFORE = {"accept": "accepted", "reject": "rejected"}


class Holder(Protocol):
    """Somebody at a project."""

    @property
    def store(self) -> Store: ...

    @property
    def who(self) -> str: ...

    def case(self, name: str) -> Row: ...


def expire_claims(store: Store, who: str) -> None:
    """Give back what others opened long ago, within a transaction."""
    oldest = time.time() - 60 * float(store.setting("claim_minutes", CLAIM_MINUTES))
    late = store.run(
        "SELECT name FROM cases WHERE status = 'open' AND opened_at < ? AND holder != ?",
        (oldest, who),
    )
    for row in late:
        _give_back(store, row["name"])


def release(project: Holder, name: str) -> bool:
    """Give a case back to the others; it is again what it was before it was opened.

    Returns:
        False if it was not open with this person.
    """
    with project.store.change():
        if not _is_mine(project, name):
            return False
        _give_back(project.store, name)
        project.store.note(project.who, "release", name)
    return True


def keep_claim(project: Holder, name: str) -> bool:
    """Say that a case is still worked on; False if it is open with this person no more."""
    with project.store.change():
        if not _is_mine(project, name):
            return False
        project.store.run("UPDATE cases SET opened_at = ? WHERE name = ?", (time.time(), name))
    return True


def status_before(store: Store, name: str) -> str:
    """What became of a case when it was last decided on: `accepted`, `rejected`, or `new`."""
    rows = store.run(
        "SELECT what FROM events WHERE name = ? AND what IN ('accept', 'reject') "
        "ORDER BY id DESC LIMIT 1",
        (name,),
    )
    return BEFORE[rows[0]["what"]] if rows else "new"


def _is_mine(project: Holder, name: str) -> bool:
    case: Row = project.case(name)
    return bool(case["status"] == "open" and case["holder"] == project.who)


def _give_back(store: Store, name: str) -> None:
    status = status_before(store, name)
    store.run("UPDATE cases SET status = ?, holder = NULL WHERE name = ?", (status, name))
