"""NRRD headers and data, checked before memory is taken."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptseg.errors import FormatError, VolumeError
from promptseg.io.atomic import atomic_path
from promptseg.io.needs import needed

_MAX_RATIO = 1032
"""Most that deflate can pack: what asks for more is damaged or a bomb."""
_TYPES = {
    "signed char": "i1", "int8": "i1", "int8_t": "i1", "uchar": "u1", "unsigned char": "u1",
    "uint8": "u1", "uint8_t": "u1", "short": "i2", "short int": "i2", "signed short": "i2",
    "int16": "i2", "int16_t": "i2", "ushort": "u2", "unsigned short": "u2", "uint16": "u2",
    "uint16_t": "u2", "int": "i4", "signed int": "i4", "int32": "i4", "int32_t": "i4",
    "uint": "u4", "unsigned int": "u4", "uint32": "u4", "uint32_t": "u4", "longlong": "i8",
    "long long": "i8", "int64": "i8", "int64_t": "i8", "ulonglong": "u8", "uint64": "u8",
    "unsigned long long": "u8", "uint64_t": "u8", "float": "f4", "double": "f8",
}  # fmt: skip
# First letters of a space's axes; each other than these stays unknown.
_SPACES = {
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Nrrd:
    """What a NRRD file holds.

    Args:
        data: Values with their axes as the file has them.
        header: Fields as pynrrd reads them.
        affine: (4, 4) of its three spatial axes to RAS.
        spatial: Which axes are spatial.
        notes: What is unusual.
    """

    data: np.ndarray
    header: Mapping[str, Any]
    affine: np.ndarray
    spatial: tuple[int, ...]
    notes: tuple[str, ...]


def read_nrrd(path: Path, max_bytes: int) -> Nrrd:
    """Read a NRRD file, attached or with its data in a file beside it.

    Raises:
        FormatError: Missing, no NRRD, damaged or truncated.
        VolumeError: It needs more than `max_bytes`, or is no grid of numbers in space.
    """
    header, start = _header(path)
    dtype = _dtype(path, header)
    sizes = tuple(int(size) for size in header["sizes"])
    if min(sizes) < 1:
        raise FormatError(f"{path}: NRRD sizes are {sizes}: damaged header")
    count = math.prod(sizes)
    if count * dtype.itemsize > max_bytes:
        raise VolumeError(
            f"{path}: needs {count * dtype.itemsize} bytes (sizes {sizes}), the limit is "
            f"{max_bytes}: crop it or raise max_bytes"
        )
    data = _data(path, header, start, dtype, count).reshape(sizes, order="F")
    affine, spatial, notes = _geometry(path, header, len(sizes))
    return Nrrd(data, header, affine, spatial, notes)


def write_nrrd(path: Path, data: np.ndarray, header: Mapping[str, Any]) -> None:
    """Write an attached NRRD file, all of it or nothing.

    Raises:
        FormatError: It cannot be written.
    """
    nrrd = needed("nrrd", "writing NRRD")
    try:
        with atomic_path(path) as temporary:
            nrrd.write(
                str(temporary), data, dict(header), compression_level=6, detached_header=False
            )
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def geometry_fields(affine: np.ndarray) -> dict[str, Any]:
    """Header fields of an affine, in LPS as Slicer and ITK write it."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return {
        "space": "left-posterior-superior",
        "space directions": lps[:3, :3].T,
        "space origin": lps[:3, 3],
        "encoding": "gzip",
    }


def provenance_fields(path: Path) -> list[str]:
    """The field in which promptseg says what made the labels, if it is there."""
    header, _ = _header(path)
    return [str(header["promptseg"])] if "promptseg" in header else []


def _header(path: Path) -> tuple[Any, int]:
    nrrd = needed("nrrd", "reading NRRD")
    try:
        with path.open("rb") as stream:
            return nrrd.read_header(stream), stream.tell()
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except Exception as error:  # pynrrd lets what its parsers meet come through
        raise FormatError(f"{path}: not a NRRD file, or its header is damaged: {error}") from error


def _dtype(path: Path, header: Mapping[str, Any]) -> np.dtype:
    kind = _TYPES.get(str(header.get("type", "")).lower())
    if kind is None:
        raise VolumeError(f"{path}: values are {header.get('type')!r}, not numbers")
    for field in ("sizes", "encoding"):
        if field not in header:
            raise FormatError(f"{path}: the NRRD header has no {field}")
    order = ">" if str(header.get("endian", "little")).lower() == "big" else "<"
    return np.dtype(f"{order}{kind}")


def _data(
    path: Path, header: Mapping[str, Any], start: int, dtype: np.dtype, count: int
) -> np.ndarray:
    held, start = _data_file(path, header, start)
    encoding = str(header["encoding"]).lower()
    expected = count * dtype.itemsize
    with held.open("rb") as stream:
        stream.seek(start)
        packed = stream.read()
    if encoding in ("gzip", "gz"):
        raw = _unpacked(path, packed, expected)
    elif encoding == "raw":
        # byte skip -1 means that the data are the last bytes of the file.
        raw = packed[-expected:] if int(header.get("byte skip", 0)) == -1 else packed
    else:
        raise FormatError(f"{path}: NRRD encoding {encoding!r}: save it as gzip or raw")
    if len(raw) < expected:
        raise FormatError(f"{path}: truncated, {len(raw)} of {expected} bytes of image data")
    return np.frombuffer(raw, dtype, count).astype(dtype.newbyteorder("="))


def _data_file(path: Path, header: Mapping[str, Any], start: int) -> tuple[Path, int]:
    name = header.get("data file", header.get("datafile"))
    if name is None:
        return path, start
    if Path(str(name)).name != str(name) or not isinstance(name, str):
        raise FormatError(f"{path}: its data file {name!r} is not a file beside it: refused")
    held = path.with_name(name)
    if not held.is_file():
        raise FormatError(f"{path}: its data file {name} is missing")
    return held, 0


def _unpacked(path: Path, packed: bytes, expected: int) -> bytes:
    if expected > max(len(packed), 1) * _MAX_RATIO:
        raise FormatError(f"{path}: truncated, the data cannot hold {expected} bytes")
    try:
        return zlib.decompressobj(wbits=31).decompress(packed, expected)
    except zlib.error as error:
        raise FormatError(f"{path}: damaged gzip data: {error}") from error


def _geometry(
    path: Path, header: Mapping[str, Any], dimensions: int
) -> tuple[np.ndarray, tuple[int, ...], tuple[str, ...]]:
    told = header.get("space directions")
    if told is None:
        return _without_space(path, header, dimensions)
    rows = [np.full(3, np.nan) if row is None else np.asarray(row, float) for row in told]
    spatial = tuple(axis for axis, row in enumerate(rows) if not np.isnan(row).any())
    if len(spatial) != 3 or any(rows[axis].shape != (3,) for axis in spatial):
        raise VolumeError(f"{path}: has {len(spatial)} axes in space, not 3")
    signs = _SPACES.get(str(header.get("space", "")).lower())
    notes: tuple[str, ...] = ()
    if signs is None:
        signs, notes = (1, 1, 1), (f"space {header.get('space')!r} is taken as RAS",)
    affine = np.eye(4)
    affine[:3, :3] = np.array([rows[axis] for axis in spatial]).T * np.array(signs)[:, None]
    origin = header.get("space origin")
    affine[:3, 3] = (np.zeros(3) if origin is None else np.asarray(origin, float)) * signs
    return affine, spatial, notes


def _without_space(
    path: Path, header: Mapping[str, Any], dimensions: int
) -> tuple[np.ndarray, tuple[int, ...], tuple[str, ...]]:
    if dimensions != 3:
        raise VolumeError(
            f"{path}: is {dimensions}D and says nothing of space: a 3D image is needed"
        )
    spacings = np.asarray(header.get("spacings", (1.0, 1.0, 1.0)), float)
    affine = np.diag([*np.where(np.isfinite(spacings), spacings, 1.0), 1.0])
    return affine, (0, 1, 2), ("the file does not say how the image lies in space: RAS is assumed",)
