"""DICOM: series of CT and MR in, RTSTRUCT and DICOM-SEG in and out."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from promptseg.errors import FormatError, VolumeError
from promptseg.io.dicom.labels import label_entry, provenance_texts, read_alone, read_on
from promptseg.io.dicom.pixels import values_of
from promptseg.io.dicom.series import Found, Series, SeriesChoice, choose, find_series
from promptseg.io.dicom.source import DicomSource, missing_uids
from promptseg.io.dicom.stacks import Stack
from promptseg.io.image import DEFAULT_MAX_BYTES, Image

__all__ = [
    "OPTIONS",
    "Series",
    "SeriesChoice",
    "Stack",
    "list_series",
    "provenance_texts",
    "read",
    "read_on",
    "read_stack",
]

OPTIONS = ("series",)


def read(
    path: str | os.PathLike[str],
    max_bytes: int = DEFAULT_MAX_BYTES,
    series: int | str | None = None,
) -> Image:
    """Read one volume of a DICOM folder, a zip file or the series of one file.

    Slices lie along the normal of their plane, whatever their names and numbers say; the array
    is (columns, rows, slices). A gantry tilt stays in the affine; uneven slices are refused.

    Args:
        path: Folder, zip file or file.
        max_bytes: Most memory for the image, and most that a zip file may unpack to.
        series: Number in `list_series`, `number.volume`, or SeriesInstanceUID.

    Raises:
        SeriesChoice: There are several volumes and none was chosen.
        FormatError: There is no image, or a file is damaged.
        VolumeError: The slices make no volume.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise FormatError(f"{path}: no such file or folder")
    if os.path.isfile(path) and series is None:
        labels = _labels_of(path, max_bytes)
        if labels is not None:
            return labels
    found = find_series(path, max_bytes)
    one, stack = choose(found, series)
    try:
        return read_stack(one, stack, max_bytes, found.notes)
    except (FormatError, VolumeError) as error:
        raise type(error)(f"{path}: {error}") from error


def _labels_of(path: Path, max_bytes: int) -> Image | None:
    """Labels of a file that is a DICOM-SEG; None for other files."""
    if zipfile.is_zipfile(path):
        return None
    try:
        entry = label_entry(path, max_bytes)
        return None if entry is None else read_alone(entry, max_bytes)
    except (FormatError, VolumeError) as error:
        raise type(error)(f"{path}: {error}") from error


def list_series(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Found:
    """The image series of a folder, zip file or file, and what else is there.

    Raises:
        FormatError: There is no DICOM image.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise FormatError(f"{path}: no such file or folder")
    return find_series(path, max_bytes)


def read_stack(
    series: Series, stack: Stack, max_bytes: int = DEFAULT_MAX_BYTES, notes: tuple[str, ...] = ()
) -> Image:
    """Read one volume of a series, such as one phase of several.

    Raises:
        FormatError: A file is damaged.
        VolumeError: The slices make no volume.
    """
    if stack.grid is None:
        raise VolumeError(stack.problem)
    data, remarks = values_of(stack.grid.frames, max_bytes)
    several = len(series.stacks) > 1
    chosen = f"{series.number}.{series.stacks.index(stack) + 1}" if several else str(series.number)
    source = DicomSource.of(stack.grid.frames, chosen)
    lacking = missing_uids(source.first)
    if lacking:
        notes = (*notes, f"no {', '.join(lacking)} in the files: results get made-up ones")
    return Image(
        data,
        stack.grid.affine,
        series.modality or None,
        source,
        (*stack.notes, *remarks, *notes),
    )
