"""MetaImage (.mha, .mhd) in and .mha out, through SimpleITK."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.errors import FormatError, VolumeError
from promptseg.io.atomic import atomic_path
from promptseg.io.image import DEFAULT_MAX_BYTES, Image
from promptseg.io.needs import needed
from promptseg.io.provenance import KEY, to_text

_LPS = np.array([-1.0, -1.0, 1.0])
_MOST_HEADER = 2**16
_SQUARE = 1e-4
"""How far directions may be from a right angle; ITK refuses or straightens others."""


def read(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Image:
    """Read a 3D image; a .mhd file with its data beside it.

    Raises:
        FormatError: Missing, no MetaImage, damaged or truncated.
        VolumeError: It is no 3D image of one value a voxel, or needs more than `max_bytes`.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise FormatError(f"{path}: no such file")
    reader = _opened(path)
    _check_data_file(path)
    sizes = reader.GetSize()
    if len(sizes) != 3 or reader.GetNumberOfComponents() != 1:
        raise VolumeError(
            f"{path}: is {len(sizes)}D with {reader.GetNumberOfComponents()} values a voxel: a 3D "
            "image of one is needed"
        )
    # The largest type of ITK has 8 bytes; what is smaller passes the limit all the sooner.
    if math.prod(sizes) > max_bytes:
        raise VolumeError(f"{path}: {sizes} voxels are more than the limit of {max_bytes} bytes")
    sitk = needed("SimpleITK", "reading MetaImage")
    try:
        image = reader.Execute()
        data = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    except RuntimeError as error:
        raise FormatError(f"{path}: damaged or truncated: {_last(error)}") from error
    return Image(data, _affine(image))


def write(image: Image, path: str | os.PathLike[str]) -> None:
    """Write an image or labels as one packed .mha file.

    Raises:
        FormatError: The name ends in .mhd, the grid is sheared, or the file cannot be written.
    """
    path = Path(path)
    if path.name.lower().endswith(".mhd"):
        raise FormatError(f"{path}: .mhd is two files: end it in .mha")
    sitk = needed("SimpleITK", "writing MetaImage")
    spacing = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    directions = (image.affine[:3, :3] / spacing) * _LPS[:, None]
    if np.abs(directions.T @ directions - np.eye(3)).max() > _SQUARE:
        raise FormatError(f"{path}: MetaImage has no sheared grids (gantry tilt): save as nrrd")
    data = image.data.astype(np.uint8) if image.data.dtype.kind == "b" else image.data
    made = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    made.SetSpacing(spacing.tolist())
    made.SetDirection(directions.ravel().tolist())
    made.SetOrigin((image.affine[:3, 3] * _LPS).tolist())
    if image.provenance is not None:
        made.SetMetaData(KEY, to_text(image.provenance))
    try:
        with atomic_path(path) as temporary:
            target = temporary if temporary.suffix.lower() == ".mha" else None
            sitk.WriteImage(made, str(target or f"{temporary}.mha"), useCompression=True)
            if target is None:
                os.replace(f"{temporary}.mha", temporary)
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error
    except RuntimeError as error:
        raise FormatError(f"{path}: cannot be written: {_last(error)}") from error


def provenance_texts(path: Path) -> list[str]:
    """The header's field that says what made the labels."""
    reader = _opened(path)
    return [reader.GetMetaData(KEY)] if reader.HasMetaDataKey(KEY) else []


def _opened(path: Path) -> Any:
    sitk = needed("SimpleITK", "reading MetaImage")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise FormatError(f"{path}: not a MetaImage file: {_last(error)}") from error
    return reader


def _check_data_file(path: Path) -> None:
    """Refuse a header whose data lie elsewhere than beside it."""
    with path.open("rb") as stream:
        head = stream.read(_MOST_HEADER)
    for line in head.splitlines():
        key, found, value = line.partition(b"=")
        if found and key.strip() == b"ElementDataFile":
            name = value.strip().decode("utf-8", "replace")
            if Path(name).name != name or name.startswith("LIST"):
                raise FormatError(f"{path}: its data file {name!r} is not beside it: refused")
            return


def _affine(image: Any) -> np.ndarray:
    affine = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = directions * np.array(image.GetSpacing()) * _LPS[:, None]
    affine[:3, 3] = np.array(image.GetOrigin()) * _LPS
    return affine


def _last(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
