"""Reading what a visitor sends, which may be anything."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from promptseg.errors import FormatError, PromptsegError
from promptseg.io import FORMATS, format_of
from promptseg.volume import Volume, read

MOST_FILES = 20_000
_ABSOLUTE = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?[/\\](?:[^/\\\s'\":,;()]+[/\\])+")
"""Folders of an absolute path, of a POSIX system or of Windows; not those of a web address."""
_CHUNK = 1 << 20


def read_upload(paths: Sequence[Path], max_bytes: int, series: str | None = None) -> Volume:
    """Read one image file, a zip file that holds one image, or the files of a DICOM series.

    Args:
        paths: As the server stored them, under the names they were sent with.
        max_bytes: Most memory for the image, and most bytes unpacked.
        series: Which DICOM series of several, as `SeriesChoice` lists them.

    Raises:
        SeriesChoice: There are several series and none was chosen.
        PromptsegError: It is none of these, damaged, too large, or the zip file is unsafe; the
            message has the visitor's file name and no path of the server.
    """
    from promptseg.io.dicom import SeriesChoice

    if not paths:
        raise FormatError("no file was sent")
    try:
        if len(paths) == 1 and zipfile.is_zipfile(paths[0]):
            return _read_zip(paths[0], max_bytes, series)
        if len(paths) > 1:
            return _read_many(paths, max_bytes, series)
        return read(paths[0], max_bytes, series)
    except SeriesChoice as error:
        raise SeriesChoice(without_folders(str(error), paths), error.series) from error
    except PromptsegError as error:
        raise type(error)(without_folders(str(error), paths)) from error


def known_suffixes() -> list[str]:
    """File endings that the reader knows."""
    return [suffix for entry in FORMATS.values() if entry.reads for suffix in entry.suffixes]


def _read_zip(path: Path, max_bytes: int, series: str | None) -> Volume:
    with _folder_called(path.name) as folder:
        unpack(path, folder, max_bytes)
        return _read_folder(folder, path.name, max_bytes, series)


def _read_many(paths: Sequence[Path], max_bytes: int, series: str | None) -> Volume:
    name = f"{len(paths)} files"
    with _folder_called(name) as folder:
        for number, path in enumerate(paths):
            _free_name(folder, path.name, number).symlink_to(path.resolve())
        return _read_folder(folder, name, max_bytes, series)


@contextmanager
def _folder_called(name: str) -> Iterator[Path]:
    """A folder for the files of an upload, which is called by the upload's name in errors."""
    from promptseg.io.dicom import SeriesChoice

    folder = Path(tempfile.mkdtemp(prefix="promptseg-upload-"))
    try:
        yield folder
    except SeriesChoice as error:
        raise SeriesChoice(_named(error, folder, name), error.series) from error
    except PromptsegError as error:
        raise type(error)(_named(error, folder, name)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _named(error: PromptsegError, folder: Path, name: str) -> str:
    return str(error).replace(f"{folder}/", "").replace(str(folder), name)


def _free_name(folder: Path, name: str, number: int) -> Path:
    """Its own name, or a numbered one where another folder had a file of that name too."""
    path = folder / name
    return folder / f"{number:05d}-{name}" if path.exists() else path


def _read_folder(folder: Path, name: str, max_bytes: int, series: str | None) -> Volume:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    suffixes = tuple(known_suffixes())
    images = [path for path in files if path.name.lower().endswith(suffixes)]
    plain = [path for path in images if format_of(path).name != "dicom"]
    if len(images) == 1 or (len(plain) == 1 and len(files) == len(plain)):
        return read(images[0], max_bytes, series)
    if len(plain) > 1:
        raise FormatError(f"{name}: holds {len(plain)} images: give one, or one DICOM series")
    return read(folder, max_bytes, series)


def unpack(path: Path, folder: Path, max_bytes: int) -> None:
    """Unpack a zip file that was checked first; nothing is ever written outside `folder`.

    Raises:
        FormatError: It leads outside, holds links, too many files or more than `max_bytes`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(path.name, members, max_bytes)
            left = max_bytes
            for number, member in enumerate(members):
                target = _free_name(folder, PurePosixPath(member.filename).name, number)
                left -= _copy(archive, member, target, left, path.name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        if isinstance(error, PromptsegError):
            raise
        raise FormatError(f"{path.name}: the zip file cannot be read: {error}") from error


def _check(name: str, members: Sequence[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(members) > MOST_FILES:
        raise FormatError(f"{name}: holds {len(members)} files, the limit is {MOST_FILES}")
    for member in members:
        inner = PurePosixPath(member.filename.replace("\\", "/"))
        if inner.is_absolute() or ".." in inner.parts or ":" in inner.parts[0]:
            raise FormatError(f"{name}: {member.filename!r} leads outside the zip file: refused")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise FormatError(f"{name}: {member.filename!r} is a link: refused")
    total = sum(member.file_size for member in members)
    if total > max_bytes:
        raise FormatError(f"{name}: unpacks to {total} bytes, the limit is {max_bytes}: refused")


def _copy(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, name: str
) -> int:
    """Bytes copied; the size is counted here, since the one in the zip file may be a lie."""
    copied = 0
    with archive.open(member) as source, target.open("wb") as sink:
        while chunk := source.read(_CHUNK):
            copied += len(chunk)
            if copied > left:
                raise FormatError(f"{name}: unpacks to more than it says: refused")
            sink.write(chunk)
    return copied


def without_folders(message: str, paths: Sequence[Path] = ()) -> str:
    """A message with the names of files, but not where on the server they are.

    Args:
        message: Of an error.
        paths: Files whose folders are known; those of others are found by their slashes.
    """
    for folder in sorted({str(path.parent) for path in paths}, key=len, reverse=True):
        message = message.replace(f"{folder}/", "")
    return _ABSOLUTE.sub("", message)
