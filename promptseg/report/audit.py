"""The audit trail: one line of JSON a run, each with the digest of the line before.

A line that was changed or removed breaks the chain at that place. The digest of the newest line
is kept beside the log (`LOG.head`), so that removed last lines show too; somebody who may rewrite
both files can forge both, so note the digest that `promptseg audit verify` prints where they
cannot.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from promptseg.errors import FormatError
from promptseg.io.atomic import atomic_path

VARIABLE = "PROMPTSEG_AUDIT"
FORMAT, VERSION = "promptseg-audit", 1
START = "0" * 64
"""What the first line gives as the digest of the line before it."""

_WAIT_S = 60.0
_TAIL = 1 << 16


@dataclass(frozen=True)
class Verdict:
    """What became of a log.

    Args:
        entries: Lines read before a fault, or all.
        head: Digest of the last of them.
        faults: What is wrong, with the line; empty for a sound log.
        remarks: What is unusual and harmless.
    """

    entries: int
    head: str
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def audit_log() -> Path | None:
    """The log that `PROMPTSEG_AUDIT` names, None without."""
    named = os.environ.get(VARIABLE, "").strip()
    return Path(named).expanduser() if named else None


def check_log() -> None:
    """Refuse, before any work, a log that cannot be written to.

    Raises:
        FormatError: Its folder or file cannot be written.
    """
    log = audit_log()
    if log is None:
        return
    if log.is_dir():
        raise FormatError(f"{log}: {VARIABLE} names a folder: give a file such as audit.jsonl")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab"):
            pass
    except OSError as error:
        raise _unwritable(log, error) from error


def record(manifest: Mapping[str, Any], keep_identifiers: bool = False) -> str | None:
    """Append a run to the log that `PROMPTSEG_AUDIT` names.

    Args:
        manifest: Of `run_manifest`.
        keep_identifiers: True to keep paths and what says whose image it is.

    Returns:
        The digest of the new line; None where no log is named.

    Raises:
        FormatError: The log cannot be written, or it is broken already.
    """
    log = audit_log()
    return None if log is None else append(log, _entry(manifest, keep_identifiers))


def append(log: Path, entry: Mapping[str, Any]) -> str:
    """Append an entry; several processes may do so at once.

    Raises:
        FormatError: The log cannot be written, or its end is not what was last written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{log}.lock", timeout=_WAIT_S), log.open("a+b") as stream:
            number, before = _end(log, stream)
            line = json.dumps(
                {"format": FORMAT, "version": VERSION, "number": number + 1, "previous": before,
                 "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **entry},
                ensure_ascii=True, allow_nan=False,
            ).encode()  # fmt: skip
            stream.write(line + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            digest = hashlib.sha256(line).hexdigest()
            with atomic_path(_head_of(log)) as temporary:
                temporary.write_text(f"{number + 1} {digest}\n", encoding="ascii")
    except Timeout as error:
        raise FormatError(f"{log}: locked by another process for {_WAIT_S:g} s") from error
    except OSError as error:
        if isinstance(error, FormatError):
            raise
        raise _unwritable(log, error) from error
    return digest


def verify(log: str | os.PathLike[str], noted: str | None = None) -> Verdict:
    """Follow the chain from the first line to the last.

    Args:
        log: File.
        noted: Digest that the log must hold, noted somewhere else at an earlier time; it also
            stands in for a missing `LOG.head`.

    Raises:
        FormatError: The file cannot be read.
    """
    log = Path(log)
    before, number = START, 0
    digests: list[str] = []
    try:
        with log.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                fault = _fault(line, number, before)
                if fault:
                    return Verdict(number - 1, before, (f"line {number}: {fault}",))
                before = hashlib.sha256(line.rstrip(b"\n")).hexdigest()
                digests.append(before)
    except OSError as error:
        raise FormatError(f"{log}: cannot be read: {error.strerror or error}") from error
    if noted is not None and noted not in digests:
        lost = f"no line has the digest {noted}: lines were removed since it was noted"
        return Verdict(number, before, (lost,))
    return _verdict(log, digests, noted is not None)


def _verdict(log: Path, digests: list[str], noted: bool) -> Verdict:
    """What the digest of the newest line, kept beside the log, says of its end."""
    head, number = _read_head(log), len(digests)
    last = digests[-1] if digests else START
    if head is None:
        why = f"{_head_of(log).name} is missing: removed last lines would not show"
        return Verdict(number, last, () if noted or not number else (why,))
    if head[0] > number:
        lost = f"{head[0] - number} lines were removed from the end, {number} are there"
        return Verdict(number, last, (lost,))
    if digests[head[0] - 1] != head[1]:
        return Verdict(number, last, (f"line {head[0]} is not the one that was written",))
    if head[0] < number:
        remark = f"{number - head[0]} lines after the recorded end: a run was interrupted there"
        return Verdict(number, last, (), (remark,))
    return Verdict(number, last)


def _fault(line: bytes, number: int, before: str) -> str:
    """What is wrong with one line, empty if nothing is."""
    if not line.endswith(b"\n"):
        return "cut off in the middle"
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON: it was changed or damaged"
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        return "not an entry of an audit log"
    if entry.get("version") != VERSION:
        return f"version {entry.get('version')!r}, this promptseg reads {VERSION}"
    if entry.get("previous") != before:
        missing = entry.get("number")
        if isinstance(missing, int) and missing > number:
            return f"{missing - number} lines before it were removed"
        return "the line before it was changed, or lines were moved"
    if entry.get("number") != number:
        return f"it says to be number {entry.get('number')}"
    return ""


def _end(log: Path, stream: BinaryIO) -> tuple[int, str]:
    """Number and digest of the last line; half a line that a crash left is dropped."""
    head = _read_head(log)
    size = stream.seek(0, os.SEEK_END)
    if size == 0:
        if head is not None:
            raise FormatError(
                f"{log}: emptied since entry {head[0]}: keep it and start another log"
            )
        return 0, START
    line, end = _last_line(stream, size)
    digest, number = hashlib.sha256(line).hexdigest(), _number(line)
    if head is None or digest == head[1]:
        # Half a line that a crash left was never promised to anybody.
        stream.truncate(end)
        stream.seek(0, os.SEEK_END)
        return number, digest
    if number > head[0]:
        # Written whole, and then the run was stopped before it could say so.
        return number, digest
    raise FormatError(
        f"{log}: its end is not what was last written: run `promptseg audit verify {log}`"
    )


def _last_line(stream: BinaryIO, size: int) -> tuple[bytes, int]:
    """The last whole line and the offset of its end."""
    reach = _TAIL
    while True:
        start = max(0, size - reach)
        stream.seek(start)
        block = stream.read(size - start)
        end = block.rfind(b"\n")
        begin = block.rfind(b"\n", 0, end) if end >= 0 else -1
        if begin >= 0 or start == 0:
            return block[begin + 1 : max(end, 0)], start + end + 1
        reach *= 4


def _number(line: bytes) -> int:
    try:
        return int(json.loads(line)["number"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return -1


def _head_of(log: Path) -> Path:
    return log.with_name(f"{log.name}.head")


def _read_head(log: Path) -> tuple[int, str] | None:
    """Number and digest of the newest line as it was written."""
    try:
        number, digest = _head_of(log).read_text(encoding="ascii").split()
        return int(number), digest
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FormatError(f"{_head_of(log)}: damaged: {error}") from error


def _entry(manifest: Mapping[str, Any], keep_identifiers: bool) -> dict[str, Any]:
    """What of a manifest goes into the log: digests, never a path or a name unless asked."""
    kept = {key: value for key, value in manifest.items() if key not in _OTHERWISE}
    given, made = dict(manifest["input"]), manifest["outputs"]
    outputs = {
        role: {"sha256": one["sha256"], "suffix": "".join(Path(one["path"]).suffixes[-2:])}
        for role, one in made.items()
    }
    result = {key: manifest["result"][key] for key in ("sha256", "targets")}
    if keep_identifiers:
        outputs = {role: dict(one) for role, one in made.items()}
        kept |= {"patient": manifest["patient"]} if "patient" in manifest else {}
    else:
        given.pop("path", None)
        given.pop("notes", None)
    return {
        "operator": _operator(),
        "run": {**kept, "input": given, "outputs": outputs, "result": result},
    }


_OTHERWISE = ("format", "version", "input", "outputs", "result", "patient", "quality")


def _operator() -> str | None:
    """Who is logged in; a trail says who did it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None


def _unwritable(log: Path, error: OSError) -> FormatError:
    return FormatError(f"{log}: the audit log cannot be written: {error.strerror or error}")
