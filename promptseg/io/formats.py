"""One table of file formats, chosen by name, by suffix or by how a file starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from promptseg.errors import FormatError
from promptseg.io.image import DEFAULT_MAX_BYTES, Image
from promptseg.io.needs import needed


@dataclass(frozen=True)
class Format:
    """A file format and the module that reads or writes it, imported when first needed.

    Args:
        name: What `--format` calls it.
        suffixes: File endings it is known by, in lower case.
        module: Has `read(path, max_bytes)` if `reads`, and `write(image, path)` if `writes`.
        reads: True if `module` has `read`.
        writes: True if `module` has `write`.
        overlaps: True if labels may share voxels in it.
        magics: Offset and bytes that its files start with, for files of another or no suffix.
        folders: True if it reads folders.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    reads: bool = True
    writes: bool = True
    overlaps: bool = False
    magics: tuple[tuple[int, bytes], ...] = ()
    folders: bool = False


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            "nifti",
            (".nii.gz", ".nii"),
            "promptseg.io.nifti",
            magics=((344, b"n+1\0"), (4, b"n+2\0")),
        ),
        Format(
            "nifti-pair",
            (".hdr", ".img", ".hdr.gz", ".img.gz"),
            "promptseg.io.nifti",
            writes=False,
            magics=((344, b"ni1\0"), (4, b"ni2\0")),
        ),
        Format(
            "picture",
            (".png", ".tif", ".tiff", ".bmp"),
            "promptseg.io.pictures",
            magics=((0, b"\x89PNG"), (0, b"II*\0"), (0, b"MM\0*")),
        ),
        Format(
            "jpeg",
            (".jpg", ".jpeg"),
            "promptseg.io.pictures",
            writes=False,
            magics=((0, b"\xff\xd8\xff"),),
        ),
        Format("seg.nrrd", (".seg.nrrd",), "promptseg.io.seg_nrrd", overlaps=True),
        Format("nrrd", (".nrrd", ".nhdr"), "promptseg.io.nrrd", magics=((0, b"NRRD000"),)),
        Format("metaimage", (".mha", ".mhd"), "promptseg.io.metaimage"),
        Format(
            "dicom",
            (".dcm", ".ima", ".dicom", ".zip"),
            "promptseg.io.dicom",
            writes=False,
            magics=((128, b"DICM"), (0, b"PK\x03\x04")),
            folders=True,
        ),
        Format(
            "rtstruct",
            (),
            "promptseg.io.dicom.rtstruct_writing",
            reads=False,
            overlaps=True,
        ),
        Format("seg", (), "promptseg.io.dicom.seg_writing", reads=False, overlaps=True),
        Format("labelmap", (), "promptseg.io.dicom.labelmap_writing", reads=False),
    )
}
"""Formats by name; of two that share a suffix the first is meant."""


def read_image(
    path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES, **options: Any
) -> Image:
    """Read a file or folder of any known format.

    Args:
        path: What to read.
        max_bytes: Refuse, before allocating, an image that needs more memory than this.
        options: Passed to the format's reader, such as `series` for DICOM.

    Raises:
        FormatError: it is missing, damaged, of an unknown format, or has no use for an option.
        VolumeError: it holds no usable 3D image.
    """
    path = Path(path)
    module = module_of(format_of(path))
    given = {name: value for name, value in options.items() if value is not None}
    unknown = [name for name in given if name not in getattr(module, "OPTIONS", ())]
    if unknown:
        raise FormatError(f"{path}: its format has no choice of {', '.join(unknown)}: leave it out")
    image: Image = module.read(path, max_bytes, **given)
    return image


def write_image(image: Image, path: str | os.PathLike[str], format: str | None = None) -> None:
    """Write an image or labels on their own grid; all of the file or nothing.

    Args:
        image: What to write.
        path: Output file.
        format: Name in `FORMATS`; None goes by the suffix.

    Raises:
        FormatError: the format is unknown, cannot hold this, or the file cannot be written.
    """
    path = Path(path)
    chosen = writable(path, format)
    if image.layers and not chosen.overlaps:
        shared = ", ".join(str(target) for target in sorted(image.layers))
        able = ", ".join(entry.name for entry in FORMATS.values() if entry.overlaps)
        raise FormatError(
            f"{path}: targets {shared} share voxels with others and {chosen.name} holds one label "
            f"a voxel: save each target alone{f', or as {able}' if able else ''}"
        )
    module_of(chosen).write(image, path)


def check_writable(image: Image, path: str | os.PathLike[str], format: str | None = None) -> None:
    """Refuse, before labels are made on an image, a format that cannot hold them.

    Raises:
        FormatError: The format is unknown, or refers to what the image lacks.
    """
    chosen = writable(path, format)
    module = module_of(chosen)
    if hasattr(module, "check"):
        module.check(image)


def module_of(entry: Format) -> ModuleType:
    """The module of a format.

    Raises:
        FormatError: It needs a package that is not installed.
    """
    return needed(entry.module, f"format {entry.name}")


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that a file or folder would be read as.

    Raises:
        FormatError: It is of no known format, or missing.
    """
    path = Path(path)
    able = [entry for entry in FORMATS.values() if entry.reads]
    if os.path.isdir(path):
        return next(entry for entry in able if entry.folders)
    named = next((one for one in able if path.name.lower().endswith(one.suffixes)), None)
    if named is not None and not named.folders:
        return named
    # What is called .dcm, or nothing that is known, is what it starts as.
    for entry in _by_start(path, able):
        return entry
    if named is not None:
        return named
    if not os.path.exists(path):
        raise FormatError(f"{path}: no such file")
    raise FormatError(
        f"{path}: cannot read, it is not a known format: use a folder of DICOM files or a file "
        f"ending in {_endings(able)}"
    )


def holds_dicom(folder: str | os.PathLike[str]) -> bool:
    """True for a folder with a DICOM file right in it; the first files are looked at."""
    for entry in islice((one for one in sorted(Path(folder).iterdir()) if one.is_file()), 20):
        with entry.open("rb") as stream:
            if stream.read(132)[128:] == b"DICM":
                return True
    return False


def writable(path: str | os.PathLike[str], format: str | None) -> Format:
    """The format to write a file in: the one named, or the one of its suffix.

    Raises:
        FormatError: There is none.
    """
    able = {name: entry for name, entry in FORMATS.items() if entry.writes}
    if format is not None:
        if format in able:
            return able[format]
        raise FormatError(f"format {format!r} is unknown: use one of {', '.join(able)}")
    for entry in able.values():
        if entry.suffixes and Path(path).name.lower().endswith(entry.suffixes):
            return entry
    raise FormatError(
        f"{path}: cannot write, it is not a known format: use a file ending in "
        f"{_endings(able.values())}, or name the format: {', '.join(able)}"
    )


def _endings(entries: Any) -> str:
    return ", ".join(suffix for entry in entries for suffix in entry.suffixes)


def _by_start(path: Path, able: list[Format]) -> Iterator[Format]:
    """Formats whose mark a file of unknown suffix bears."""
    if not os.path.isfile(path):
        return
    with path.open("rb") as stream:
        start = stream.read(512)
    for entry in able:
        if any(start[at : at + len(magic)] == magic for at, magic in entry.magics):
            yield entry
