"""NIfTI-1 and NIfTI-2 files (.nii, .nii.gz), checked layer by layer before memory is taken."""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import struct
import zlib
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from promptseg.errors import FormatError, VolumeError
from promptseg.io.atomic import atomic_path
from promptseg.io.image import DEFAULT_MAX_BYTES, Image
from promptseg.io.provenance import to_text

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = 540
# By header size: class, place of the magic, and the magic of a header with its data.
_HEADERS = {348: (nib.Nifti1Header, 344, b"n+1"), 540: (nib.Nifti2Header, 4, b"n+2")}
_MAX_GZIP_RATIO = 1032
_CHUNK = 16 * 2**20
_MAX_NIFTI1_SIDE = 32767
_MAX_EXTENSIONS = 2**20
_COMMENT = 6
_BROKEN_STREAM = (EOFError, gzip.BadGzipFile, zlib.error)
_QUIET = logging.Logger("promptseg.nifti", level=logging.CRITICAL + 1)


def read(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Image:
    """Read a NIfTI file with values, affine and header as nibabel gives them.

    Args:
        path: `.nii` or `.nii.gz` file.
        max_bytes: Refuse an image whose header asks for more memory than this.

    Raises:
        FormatError: missing, empty, not NIfTI, damaged or truncated.
        VolumeError: not one 3D image of real numbers, or its spacing is no number.
    """
    path = Path(path)
    try:
        compressed = _check_file(path)
        with gzip.open(path) if compressed else path.open("rb") as stream:
            opened = cast("IO[bytes]", stream)
            header = _read_header(path, opened)
            _check_header(path, header, compressed, max_bytes)
            data = _read_data(path, opened, header)
        return Image(data, _affine(path, header), header=header)
    except FormatError:
        raise
    except _BROKEN_STREAM as error:
        raise FormatError(f"{path}: damaged or truncated gzip data: {error}") from error
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error
    except MemoryError as error:
        raise VolumeError(f"{path}: the image does not fit into memory") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error


def write(item: Image, path: str | os.PathLike[str]) -> None:
    """Write labels or an image on its own grid, with the header's codes and units.

    Integers take the smallest type that holds them, other numbers float32. The same input
    gives the same bytes. A header extension (a comment) names what made the labels.

    Raises:
        FormatError: the file cannot be written.
    """
    path = Path(path)
    payload = _image(item).to_bytes()
    if path.name.lower().endswith(".gz"):
        payload = gzip.compress(payload, compresslevel=6, mtime=0)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(payload)
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def provenance_texts(path: Path) -> list[str]:
    """Texts of the header's extensions, among which a mask's provenance may be.

    Raises:
        FormatError: the file is no NIfTI.
    """
    compressed = _check_file(path)
    try:
        with gzip.open(path) if compressed else path.open("rb") as stream:
            header = _read_header(path, cast("IO[bytes]", stream))
            start = int(header["sizeof_hdr"])
            stream.seek(start)
            block = stream.read(min(int(header["vox_offset"]) - start, _MAX_EXTENSIONS))
    except (*_BROKEN_STREAM, OSError, ValueError, OverflowError) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    return _extension_texts(block, header.endianness)


def _extension_texts(block: bytes, endianness: str) -> list[str]:
    """Contents of the extensions between a header and its voxels; nothing of damaged ones."""
    texts: list[str] = []
    at = 4
    while block[:1] not in (b"", b"\0") and at + 8 <= len(block):
        size = struct.unpack(f"{endianness}i", block[at : at + 4])[0]
        if size < 8:
            break
        texts.append(block[at + 8 : at + size].decode("utf-8", "replace").rstrip("\0"))
        at += size
    return texts


def _check_file(path: Path) -> bool:
    """True for gzip; FormatError unless the file has content that fits its name."""
    if not os.path.exists(path):
        raise FormatError(f"{path}: no such file")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise FormatError(f"{path}: {kind}: give a NIfTI file")
    with path.open("rb") as stream:
        start = stream.read(8)
    if not start:
        raise FormatError(f"{path}: the file is empty (0 bytes)")
    is_gzip, named_gzip = start.startswith(_GZIP_MAGIC), path.name.lower().endswith(".gz")
    if named_gzip and not is_gzip:
        raise FormatError(f"{path}: named .nii.gz but not gzip data, it starts with {start!r}")
    if is_gzip and not named_gzip:
        raise FormatError(f"{path}: holds gzip data: rename it to .nii.gz")
    return is_gzip


def _read_header(path: Path, stream: IO[bytes]) -> Any:
    block = stream.read(_HEADER_BYTES)
    for endianness in ("<", ">"):
        size = struct.unpack(f"{endianness}i", block[:4])[0] if len(block) >= 4 else 0
        if size in _HEADERS:
            kind, at, magic = _HEADERS[size]
            if len(block) < size:
                raise FormatError(f"{path}: truncated, {len(block)} of {size} header bytes")
            if block[at : at + 3] != magic:
                found = block[at : at + 4]
                raise FormatError(f"{path}: NIfTI magic is {found!r}, not {magic!r}")
            return kind(block[:size], endianness=endianness, check=False)
    raise FormatError(f"{path}: not a NIfTI file, it starts with {block[:8]!r}")


def _check_header(path: Path, header: Any, compressed: bool, max_bytes: int) -> None:
    shape = _shape(path, header)
    spacing = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not np.all(np.isfinite(spacing)) or np.any(spacing == 0):
        shown = ", ".join(f"{value:g}" for value in spacing)
        raise VolumeError(f"the header's spacing is ({shown}) mm: set it to the true one")
    try:
        with np.errstate(all="ignore"):
            dtype = header.get_data_dtype()
            header.check_fix(logger=_QUIET, error_level=40)
            offset = header.get_data_offset()
    except (HeaderDataError, KeyError, ValueError, OverflowError) as error:
        raise FormatError(f"{path}: NIfTI header is damaged: {error}") from error
    if dtype.kind not in "biuf":
        raise VolumeError(f"voxels are {dtype}, not real numbers: convert them to one channel")
    needed = offset + math.prod(shape) * dtype.itemsize
    _check_size(path, shape, needed, compressed, max_bytes)


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
    dims = int(header["dim"][0])
    sides = tuple(int(side) for side in header["dim"][1 : 1 + max(0, min(dims, 7))])
    if not 1 <= dims <= 7 or min(sides) < 1:
        raise FormatError(f"{path}: NIfTI dimensions are {header['dim'].tolist()}: damaged header")
    if dims != 3:
        advice = "split it into 3D files" if dims > 3 else "a 3D image is needed"
        raise VolumeError(f"the image is {dims}D with shape {sides}, not 3D: {advice}")
    return sides[0], sides[1], sides[2]


def _check_size(
    path: Path, shape: tuple[int, ...], needed: int, compressed: bool, max_bytes: int
) -> None:
    asks = f"the header asks for {needed} bytes (shape {shape})"
    held = path.stat().st_size
    possible = held * _MAX_GZIP_RATIO if compressed else held
    if needed > possible:
        raise FormatError(
            f"{path}: {asks}, the file holds at most {possible}: truncated or damaged"
        )
    if needed > max_bytes:
        raise VolumeError(f"{asks}, the limit is {max_bytes}: crop it or raise max_bytes")


def _read_data(path: Path, stream: IO[bytes], header: Any) -> np.ndarray:
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    stream.seek(header.get_data_offset())
    raw = np.empty(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    filled, view = 0, memoryview(raw.data)
    while filled < len(raw):
        count = cast("io.BufferedIOBase", stream).readinto(view[filled : filled + _CHUNK])
        if not count:
            raise FormatError(f"{path}: truncated, {filled} of {len(raw)} bytes of image data")
        filled += count
    # Reading to the end makes gzip compare its checksum.
    stream.read(_CHUNK)
    values = raw.view(dtype).reshape(shape, order="F")
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        raise FormatError(f"{path}: NIfTI header is damaged: {error}") from error
    with np.errstate(all="ignore"):
        return np.asarray(
            apply_read_scaling(
                values,
                None if slope is None else np.float64(slope),
                None if inter is None else np.float64(inter),
            )
        )


def _affine(path: Path, header: Any) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):
            return np.asarray(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        raise FormatError(f"{path}: NIfTI orientation is damaged: {error}") from error


def _image(item: Image) -> Any:
    data = item.data.astype(_smallest_type(item.data))
    wide = max(data.shape) > _MAX_NIFTI1_SIDE or isinstance(item.header, nib.Nifti2Header)
    kind = nib.Nifti2Image if wide else nib.Nifti1Image
    if not isinstance(item.header, nib.Nifti1Header):
        image = kind(data, item.affine)
        image.header.set_xyzt_units("mm")
        return _signed(image, item)
    header = kind.header_class.from_header(item.header, check=False)
    header.extensions.clear()
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    header.set_data_offset(0)
    header["cal_min"] = header["cal_max"] = 0
    return _signed(kind(data, item.affine, header), item)


def _signed(image: Any, item: Image) -> Any:
    """The image with a comment that says who made its labels."""
    if item.provenance is not None:
        comment = to_text(item.provenance).encode()
        image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, comment))
    return image


def _smallest_type(data: np.ndarray) -> np.dtype:
    if data.dtype.kind == "f":
        return np.dtype(np.float32)
    low, high = int(data.min()), int(data.max())
    for kind in (np.uint8, np.uint16, np.int16, np.int32, np.uint32):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return np.dtype(kind)
    return np.dtype(np.int64)
