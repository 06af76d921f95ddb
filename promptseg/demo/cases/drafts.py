"""Unfinished work on the cases of a project, as files in the project.

One file a case, person and browser, written whole or not at all as the work is done. It is gone
once the case is accepted, and stays when the case is given back or rejected.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from promptseg.demo.work_file import SUFFIX

FOLDER = "drafts"
NAMED = re.compile(r"(?P<case>.+)\.(?P<who>[0-9a-f]{12})\.(?P<browser>[0-9a-f]{12})")


def draft_path(project: Path, case: str, who: str, secret: str) -> Path:
    """Where the work of a person and a browser on a case is kept."""
    return project / FOLDER / f"{case}.{_short(who)}.{_short(secret)}{SUFFIX}"


def drafts_of(project: Path, case: str, who: str | None = None) -> list[Path]:
    """Drafts of a case, of one person or of all, newest first."""
    person = "*" if who is None else _short(who)
    return _newest_first(project, f"{glob.escape(case)}.{person}.*{SUFFIX}")


def is_by(path: Path, who: str) -> bool:
    """True if a draft is that person's."""
    found = NAMED.fullmatch(path.name.removesuffix(SUFFIX))
    return found is not None and found["who"] == _short(who)


def drafts_of_browser(project: Path, secrets: Sequence[str]) -> list[tuple[str, Path]]:
    """Case and file of the drafts that were made in a browser, newest first."""
    own = {_short(secret) for secret in secrets}
    found = []
    for path in _newest_first(project, f"*{SUFFIX}"):
        parts = NAMED.fullmatch(path.name.removesuffix(SUFFIX))
        if parts is not None and parts["browser"] in own:
            found.append((parts["case"], path))
    return found


def drop_drafts(project: Path, case: str, who: str) -> None:
    """Remove a person's drafts of a case."""
    for path in drafts_of(project, case, who):
        path.unlink(missing_ok=True)


def written_at(path: Path) -> float:
    """When a file was written, 0 for one that is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _newest_first(project: Path, pattern: str) -> list[Path]:
    return sorted((project / FOLDER).glob(pattern), key=written_at, reverse=True)


def _short(text: str) -> str:
    """What a person or a browser is called in a file name: any name does, and gives no secret."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
