"""NRRD (.nrrd, .nhdr) in and out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from promptseg.errors import VolumeError
from promptseg.io.image import DEFAULT_MAX_BYTES, Image
from promptseg.io.nrrd_file import geometry_fields, provenance_fields, read_nrrd, write_nrrd
from promptseg.io.provenance import KEY, to_text


def read(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Image:
    """Read one 3D image of a NRRD file; axes of one element are left out.

    Raises:
        FormatError: Missing, no NRRD, damaged or truncated.
        VolumeError: It is no 3D image of numbers.
    """
    path = Path(path)
    found = read_nrrd(path, max_bytes)
    others = [axis for axis in range(found.data.ndim) if axis not in found.spatial]
    if any(found.data.shape[axis] != 1 for axis in others):
        shape = found.data.shape
        raise VolumeError(f"{path}: {shape} is several images, colours or layers: give one image")
    data = found.data.transpose(*found.spatial, *others).reshape(
        [found.data.shape[axis] for axis in found.spatial], order="F"
    )
    return Image(data, found.affine, header=dict(found.header), notes=found.notes)


def write(image: Image, path: str | os.PathLike[str]) -> None:
    """Write an image or labels, gzip-packed, with what made the labels in a field.

    Raises:
        FormatError: The file cannot be written.
    """
    fields = geometry_fields(image.affine)
    if image.provenance is not None:
        fields[KEY] = to_text(image.provenance)
    write_nrrd(Path(path), plain(image.data), fields)


def plain(data: np.ndarray) -> np.ndarray:
    """Values in a type that NRRD has: bool as bytes, half as single precision."""
    kinds = {"b": np.uint8, "f": np.float32 if data.itemsize < 8 else np.float64}
    return np.asfortranarray(data.astype(kinds.get(data.dtype.kind, data.dtype)))


def provenance_texts(path: Path) -> list[str]:
    """The field that says what made the labels."""
    return provenance_fields(path)
