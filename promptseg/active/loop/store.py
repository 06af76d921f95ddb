"""The project's database: SQLite with a write-ahead log, one transaction a change.

Every change is whole or not there, whenever the program is killed; several people and programs may
use it at once on one machine. A write-ahead log does not work on network drives.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptseg.errors import FormatError

FILE = "loop.sqlite"
VERSION = 1
WAIT_S = 30.0
TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE cases (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'new'
        CHECK (status IN ('new', 'open', 'accepted', 'rejected')),
    held INTEGER NOT NULL DEFAULT 0,
    holder TEXT,
    opened_at REAL,
    priority REAL,
    reason TEXT
);
CREATE TABLE predictions (
    name TEXT NOT NULL REFERENCES cases (name),
    version INTEGER NOT NULL,
    mask TEXT NOT NULL,
    score REAL NOT NULL,
    axis INTEGER,
    slice INTEGER,
    reason TEXT,
    PRIMARY KEY (name, version)
);
CREATE TABLE accepted (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL REFERENCES cases (name),
    who TEXT NOT NULL,
    at REAL NOT NULL,
    mask TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    labels TEXT NOT NULL,
    version INTEGER,
    revision REAL,
    seconds REAL
);
CREATE TABLE trainings (
    version INTEGER PRIMARY KEY,
    parent INTEGER,
    who TEXT NOT NULL,
    at REAL NOT NULL,
    cases TEXT NOT NULL,
    held TEXT NOT NULL,
    options TEXT NOT NULL
);
CREATE TABLE versions (
    number INTEGER PRIMARY KEY,
    parent INTEGER,
    folder TEXT NOT NULL,
    at REAL NOT NULL,
    cases TEXT NOT NULL,
    dice REAL,
    dice_before REAL,
    kept INTEGER NOT NULL
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    name TEXT,
    detail TEXT NOT NULL
);
"""
Row = sqlite3.Row


class Store:
    """One connection to a project's database.

    Args:
        folder: Of the project.

    Raises:
        FormatError: There is no project, or it is of another version or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / FILE
        if not path.is_file():
            raise FormatError(f"{folder} is no loop project: make one with `promptseg loop init`")
        self._connection = _connect(path)
        try:
            found = self.run("PRAGMA user_version")[0][0]
        except sqlite3.DatabaseError as error:
            raise FormatError(f"{path} is damaged: {error}") from error
        if found != VERSION:
            raise FormatError(f"{path} has version {found}, this promptseg reads {VERSION}")

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of one statement."""
        return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def change(self) -> Iterator[None]:
        """One transaction: all of it or nothing; others wait for their turn."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK")
            raise
        self.run("COMMIT")

    def setting(self, name: str, default: Any = None) -> Any:
        """A setting as it was put."""
        rows = self.run("SELECT value FROM settings WHERE name = ?", (name,))
        return json.loads(rows[0]["value"]) if rows else default

    def put(self, name: str, value: Any) -> None:
        """Change a setting, within a transaction."""
        self.run("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))

    def note(self, who: str, what: str, name: str | None = None, **detail: Any) -> None:
        """Add a line to the history, within a transaction."""
        values = (time.time(), who, what, name, json.dumps(detail, ensure_ascii=False))
        self.run("INSERT INTO events (at, who, what, name, detail) VALUES (?, ?, ?, ?, ?)", values)

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()


def create_store(folder: Path, settings: dict[str, Any], images: dict[str, Path], who: str) -> None:
    """Make the database of a new project; a kill leaves none.

    Raises:
        FormatError: There is one already, or the folder cannot be written.
    """
    path = folder / FILE
    if path.exists():
        raise FormatError(f"{folder} is a loop project already: give another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Under another name until it is whole; the name is this process's own.
        fresh = folder / f".{FILE}.{time.time_ns()}"
        connection = sqlite3.connect(fresh, isolation_level=None)
        connection.executescript(f"{TABLES}PRAGMA user_version = {VERSION};")
        connection.execute("BEGIN")
        rows = [(name, json.dumps(value)) for name, value in settings.items()]
        connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
        cases = [(name, str(image.resolve())) for name, image in sorted(images.items())]
        connection.executemany("INSERT INTO cases (name, image) VALUES (?, ?)", cases)
        connection.execute(
            "INSERT INTO events (at, who, what, detail) VALUES (?, ?, 'init', '{}')",
            (time.time(), who),
        )
        connection.execute("COMMIT")
        connection.close()
        fresh.rename(path)
    except (OSError, sqlite3.OperationalError) as error:
        raise FormatError(f"{folder} cannot be written: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: what was accepted outlives a power cut, not only a kill.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        raise FormatError(f"{path} cannot be opened: {error}") from error
    return connection
