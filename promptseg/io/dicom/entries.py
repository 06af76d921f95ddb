"""The files of a DICOM folder, a zip file or one file, opened without being unpacked."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from promptseg.errors import FormatError

MOST_FILES = 200_000
"""More than any study has; a folder such as / given by mistake stops here."""


@dataclass(frozen=True)
class Entry:
    """One file.

    Args:
        name: Path below the folder or inside the zip file.
        path: The file, or the zip file.
        member: What to take out of the zip file; None for a plain file.
        size: Bytes.
    """

    name: str
    path: Path
    member: zipfile.ZipInfo | None
    size: int

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The content as a seekable stream."""
        if self.member is None:
            with self.path.open("rb") as stream:
                yield stream
        else:
            yield io.BytesIO(_unzipped(self.path, self.member))


def entries_of(path: Path, max_bytes: int) -> list[Entry]:
    """Every file below a folder or in a zip file, in order of name; a file alone is one.

    Links to folders are not followed, and nothing named in a DICOMDIR is.

    Raises:
        FormatError: There are too many, or the zip file is unsafe or damaged.
    """
    if path.is_dir():
        return _in_folder(path)
    if zipfile.is_zipfile(path):
        return _in_zip(path, max_bytes)
    return [Entry(path.name, path, None, path.stat().st_size)]


def siblings_of(path: Path) -> list[Entry]:
    """The files of the folder that holds a file, without what lies deeper."""
    files = sorted(one for one in path.parent.iterdir() if one.is_file())
    return [Entry(one.name, one, None, one.stat().st_size) for one in files]


def _in_folder(folder: Path) -> list[Entry]:
    found: list[Entry] = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file():
                inner = path.relative_to(folder).as_posix()
                found.append(Entry(inner, path, None, path.stat().st_size))
        if len(found) > MOST_FILES:
            raise FormatError(f"{folder}: holds more than {MOST_FILES} files: give the series")
    return found


def _in_zip(path: Path, max_bytes: int) -> list[Entry]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise FormatError(f"{path}: the zip file cannot be read: {error}") from error
    _check_members(path, members, max_bytes)
    members.sort(key=lambda member: member.filename)
    return [Entry(member.filename, path, member, member.file_size) for member in members]


def _check_members(path: Path, members: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(members) > MOST_FILES:
        raise FormatError(f"{path}: holds {len(members)} files, the limit is {MOST_FILES}")
    for member in members:
        inner = PurePosixPath(member.filename.replace("\\", "/"))
        if inner.is_absolute() or ".." in inner.parts or ":" in (inner.parts or ("",))[0]:
            raise FormatError(f"{path}: {member.filename!r} leads outside the zip file: refused")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise FormatError(f"{path}: {member.filename!r} is a link: refused")
        if member.flag_bits & 1:
            raise FormatError(f"{path}: is encrypted: unpack it first")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise FormatError(f"{path}: unpacks to {total} bytes, the limit is {max_bytes}: refused")


def _unzipped(path: Path, member: zipfile.ZipInfo) -> bytes:
    """The bytes of one member; not one more than it was said to have."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            content = stream.read(member.file_size + 1)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise FormatError(f"{path}: {member.filename} is damaged: {error}") from error
    except Exception as error:  # zlib.error, lzma.LZMAError: each codec has its own
        raise FormatError(f"{path}: {member.filename} is damaged: {error}") from error
    if len(content) > member.file_size:
        raise FormatError(f"{path}: {member.filename} unpacks to more than it says: refused")
    return content
