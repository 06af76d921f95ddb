"""NIfTI-1, NIfTI-2 and Analyze files, alone or as pairs, checked before memory is taken."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from promptseg.errors import FormatError, VolumeError
from promptseg.io.atomic import atomic_path
from promptseg.io.image import DEFAULT_MAX_BYTES, Image
from promptseg.io.nifti_header import (
    check_header,
    header_notes,
    millimetres,
    read_affine,
    read_header,
    told_modality,
)
from promptseg.io.provenance import to_text

_GZIP_MAGIC = b"\x1f\x8b"
_MAX_GZIP_RATIO = 1032
_CHUNK = 16 * 2**20
_MAX_NIFTI1_SIDE = 32767
_MAX_EXTENSIONS = 2**20
_COMMENT = 6
_BROKEN_STREAM = (EOFError, gzip.BadGzipFile, zlib.error)
# Of a pair by its other half, in the order in which they are looked for.
_HEADER_ENDS, _DATA_ENDS = (".hdr", ".hdr.gz"), (".img", ".img.gz")


def read(path: str | os.PathLike[str], max_bytes: int = DEFAULT_MAX_BYTES) -> Image:
    """Read a NIfTI file with values, affine and header as nibabel gives them.

    Args:
        path: `.nii` or `.nii.gz` file, or either half of a `.hdr` and `.img` pair.
        max_bytes: Refuse an image whose header asks for more memory than this.

    Raises:
        FormatError: missing, empty, not NIfTI, damaged or truncated.
        VolumeError: not one 3D image of real numbers, or its spacing is no number.
    """
    path = Path(path)
    try:
        header_file, data_file = _pair(path)
        with _opened(header_file) as stream:
            header = read_header(header_file, stream, alone=header_file != data_file)
            shape, dtype, offset = check_header(path, header)
            needed = offset + math.prod(shape) * dtype.itemsize
            _check_size(data_file, shape, needed, max_bytes)
            if header_file == data_file:
                data = _read_data(path, stream, header, shape)
        if header_file != data_file:
            with _opened(data_file) as stream:
                data = _read_data(data_file, stream, header, shape)
        affine = read_affine(path, header)
        notes = header_notes(header, shape, affine)
        return Image(data, affine, told_modality(path, header), header, notes)
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
    try:
        with _opened(path) as stream:
            header = read_header(path, stream)
            start = int(header["sizeof_hdr"])
            stream.seek(start)
            block = stream.read(min(int(header["vox_offset"]) - start, _MAX_EXTENSIONS))
    except FormatError:
        raise
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


def _pair(path: Path) -> tuple[Path, Path]:
    """The files with the header and with the voxels; the same one twice unless it is a pair."""
    name = path.name.lower()
    for own, others in ((_HEADER_ENDS, _DATA_ENDS), (_DATA_ENDS, _HEADER_ENDS)):
        end = next((end for end in own if name.endswith(end)), None)
        if end is None:
            continue
        stem = path.name[: len(name) - len(end)]
        known = [path.with_name(stem + one) for end in others for one in (end, end.upper())]
        other = next((one for one in known if one.exists()), None)
        if other is None and path.exists():
            raise FormatError(f"{path}: its other half is missing, {known[0].name}: put it beside")
        return (path, other or path) if own is _HEADER_ENDS else (other or path, path)
    return path, path


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with gzip.open(path) if _check_file(path) else path.open("rb") as stream:
        yield cast("IO[bytes]", stream)


def forms_apart(header: Any, shape: Sequence[int], affine: np.ndarray) -> float:
    """How far the qform puts a corner of the image from where the sform puts it.

    Args:
        header: Of a NIfTI file; of anything else the answer is 0.
        shape: (I, J, K).
        affine: (4, 4) that is used, in millimetres.

    Returns:
        Millimetres; 0 unless the header has both.
    """
    if not isinstance(header, nib.Nifti1Header):
        return 0.0
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if sform is None or qform is None:
        return 0.0
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(shape) - 1)
    apart = corners @ (qform - sform)[:3, :3].T + (qform - sform)[:3, 3]
    unit = np.linalg.norm(affine[:3, 0]) / np.linalg.norm(sform[:3, 0])
    return float(np.linalg.norm(apart, axis=1).max() * unit)


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
        raise FormatError(f"{path}: named .gz but not gzip data, it starts with {start!r}")
    if is_gzip and not named_gzip:
        raise FormatError(f"{path}: holds gzip data: rename it to end in .gz")
    return is_gzip


def _check_size(path: Path, shape: tuple[int, ...], needed: int, max_bytes: int) -> None:
    asks = f"the header asks for {needed} bytes (shape {shape})"
    held = path.stat().st_size
    possible = held * _MAX_GZIP_RATIO if path.name.lower().endswith(".gz") else held
    if needed > possible:
        raise FormatError(
            f"{path}: {asks}, the file holds at most {possible}: truncated or damaged"
        )
    if needed > max_bytes:
        raise VolumeError(f"{asks}, the limit is {max_bytes}: crop it or raise max_bytes")


def _read_data(
    path: Path, stream: IO[bytes], header: Any, shape: tuple[int, int, int]
) -> np.ndarray:
    dtype = header.get_data_dtype()
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
    affine = item.affine.copy()
    affine[:3] /= millimetres(header)
    return _signed(kind(data, affine, header), item)


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
