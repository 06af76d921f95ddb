"""Headers of DICOM files, read as leniently as can be done without guessing."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pydicom
from pydicom import config
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    CTImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from promptseg.errors import FormatError
from promptseg.io.dicom.entries import Entry

_PREFIX = 132
# The first element of a data set without preamble: group 0002 or 0008, a low element number, and
# then letters of an explicit VR or a short implicit length.
_BARE = re.compile(rb"[\x02\x08]\x00[\x00-\x7f]\x00(?:[A-Z]{2}|.\x00\x00\x00)", re.DOTALL)

_CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}


_LOCK = threading.RLock()


@contextmanager
def lenient() -> Iterator[None]:
    """Read what does not conform without a word; what matters is checked by its user.

    pydicom and Python keep these switches for the whole process, so one thread at a time.
    """
    with _LOCK:
        before = config.settings.reading_validation_mode
        config.settings.reading_validation_mode = config.IGNORE
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            config.settings.reading_validation_mode = before


def is_dicom(stream: IO[bytes]) -> bool:
    """True for a file with the DICOM prefix, or one that starts as a bare data set does."""
    start = stream.read(_PREFIX)
    stream.seek(0)
    return start[128:] == b"DICM" or _BARE.match(start) is not None


def read_header(entry: Entry) -> FileDataset | None:
    """Everything before the pixels; None for a file that is not DICOM.

    Raises:
        FormatError: It is DICOM and damaged.
    """
    return _read(entry, stop_before_pixels=True)


def read_whole(entry: Entry) -> FileDataset:
    """The data set with its pixels.

    Raises:
        FormatError: It is not DICOM, or damaged.
    """
    found = _read(entry, stop_before_pixels=False)
    if found is None:
        raise FormatError(f"{entry.name}: not a DICOM file")
    return found


def _read(entry: Entry, **options: Any) -> FileDataset | None:
    with lenient():
        try:
            with entry.open() as stream:
                if not is_dicom(stream):
                    return None
                found = pydicom.dcmread(stream, force=True, **options)
                found.decode()
                return _with_own_identity(found)
        except (FormatError, MemoryError):
            raise
        except InvalidDicomError:
            return None
        except Exception as error:  # pydicom lets what its parsers meet come through
            raise FormatError(f"{entry.name}: damaged DICOM data: {error}") from error


def _with_own_identity(dataset: FileDataset) -> FileDataset:
    """The data set with what it is, where only the file's head says it, as after some removals."""
    meta = getattr(dataset, "file_meta", None) or Dataset()
    for name in ("SOPClassUID", "SOPInstanceUID"):
        if not dataset.get(name):
            said = meta.get(f"MediaStorage{name}") or _CLASSES.get(str(dataset.get("Modality")))
            if said and (name == "SOPClassUID" or f"MediaStorage{name}" in meta):
                setattr(dataset, name, said)
    return dataset


def numbers(dataset: Dataset, name: str, count: int | None = None) -> list[float] | None:
    """The finite numbers of an element, None if it is absent, empty or no such list.

    Args:
        dataset: Holds the element.
        name: Keyword.
        count: How many it must have.
    """
    try:
        with lenient():
            value = dataset.get(name)
            if value is None or value == "":
                return None
            listed = (
                value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            )
            found = [float(one) for one in listed]
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        return None
    if count is not None and len(found) != count:
        return None
    return found if all(abs(one) < 1e12 for one in found) else None


def number(dataset: Dataset, name: str) -> float | None:
    """The number of an element, None if it is absent or no number."""
    found = numbers(dataset, name, 1)
    return None if found is None else found[0]


def text(dataset: Dataset, name: str) -> str:
    """The text of an element, empty if it is absent; several values are joined as in the file."""
    try:
        with lenient():
            value = dataset.get(name)
    except (TypeError, ValueError, LookupError, UnicodeError):
        return ""
    if value is None:
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(str(one).strip() for one in value)
    return str(value).strip()


def kind_of(dataset: Dataset) -> str:
    """What an object is in a few words, such as `RT Structure Set`."""
    uid = text(dataset, "SOPClassUID")
    name = UID(uid).name if uid else ""
    if name and name != uid:
        return name.removesuffix(" Storage")
    return text(dataset, "Modality") or "unknown object"
