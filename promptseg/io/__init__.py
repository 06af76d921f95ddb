"""Volumes in, segmentations out: one table of formats, chosen by suffix or by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from promptseg.errors import FormatError
from promptseg.volume import Segmentation, Volume

__all__ = ["DEFAULT_MAX_BYTES", "FORMATS", "Format", "format_of", "read", "write"]

DEFAULT_MAX_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Format:
    """A file format and the module that reads or writes it, imported when first needed.

    Args:
        name: What `--format` calls it.
        suffixes: File endings it is known by, in lower case.
        module: Has `read(path, max_bytes)`, `write(item, path)` or both.
        reads: True if `module` has `read`.
        writes: True if `module` has `write`.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    reads: bool = True
    writes: bool = True


FORMATS: dict[str, Format] = {
    "nifti": Format("nifti", (".nii.gz", ".nii"), "promptseg.io.nifti"),
}


def read(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Volume:
    """Read a 3D image with its affine; nothing is reoriented.

    Args:
        path: File of a known format.
        max_bytes: Refuse, before allocating, an image that needs more memory than this.

    Raises:
        FormatError: the file is missing, damaged or of an unknown format.
        VolumeError: it is no usable 3D image.

    Example:
        >>> import promptseg as ps
        >>> ps.read("ct.nii.gz")  # doctest: +SKIP
        Volume(512 x 512 x 88 voxels of 0.7 x 0.7 x 1.25 mm, int16, CT)
    """
    path = Path(path)
    module = import_module(_by_suffix(path, "read").module)
    return module.read(path, max_bytes)


def write(
    item: Segmentation | Volume, path: str | os.PathLike[str], format: str | None = None
) -> None:
    """Write labels or an image on its own grid; all of the file or nothing.

    Args:
        item: Segmentation or volume.
        path: Output file.
        format: Name in `FORMATS`; None goes by the suffix.

    Raises:
        FormatError: the format is unknown or the file cannot be written.

    Example:
        >>> import numpy as np, tempfile
        >>> import promptseg as ps
        >>> labels = ps.Segmentation(np.ones((8, 8, 4), np.uint8), np.eye(4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ps.write(labels, f"{folder}/mask.nii.gz")
        ...     ps.read(f"{folder}/mask.nii.gz").shape
        (8, 8, 4)
    """
    path = Path(path)
    if format is None:
        chosen = _by_suffix(path, "write")
    elif format in FORMATS and FORMATS[format].writes:
        chosen = FORMATS[format]
    else:
        known = ", ".join(name for name, entry in FORMATS.items() if entry.writes)
        raise FormatError(f"format {format!r} is unknown: use one of {known}")
    import_module(chosen.module).write(item, path)


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that a file would be read as.

    Raises:
        FormatError: It is of no known format, or missing.
    """
    return _by_suffix(Path(path), "read")


def _by_suffix(path: Path, action: str) -> Format:
    able = [entry for entry in FORMATS.values() if (entry.reads, entry.writes)[action == "write"]]
    for entry in able:
        if path.name.lower().endswith(entry.suffixes):
            return entry
    known = ", ".join(suffix for entry in able for suffix in entry.suffixes)
    if action == "read" and not os.path.exists(path):
        raise FormatError(f"{path}: no such file")
    kind = "a folder" if os.path.isdir(path) else "not a known format"
    advice = f"use a file ending in {known}"
    if action == "read":
        advice += "; convert DICOM and others first, for example with dcm2niix"
    raise FormatError(f"{path}: cannot {action}, it is {kind}: {advice}")
