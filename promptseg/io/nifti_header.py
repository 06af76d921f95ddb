"""What NIfTI and Analyze headers say: shape, kind of numbers, units, orientation, modality."""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from promptseg.errors import FormatError, VolumeError

_HEADER_BYTES = 540
# By header size: class, place of the magic, and the magics of a header with and without its data.
_HEADERS: dict[int, tuple[Any, int, tuple[bytes, bytes]]] = {
    348: (nib.Nifti1Header, 344, (b"n+1", b"ni1")),
    540: (nib.Nifti2Header, 4, (b"n+2", b"ni2")),
}
_QUIET = logging.Logger("promptseg.nifti", level=logging.CRITICAL + 1)
_UNITS = {1: (1000.0, "metres"), 3: (0.001, "micrometres")}
# No scanner is this wide: the unit in the header is wrong, or the spacing.
_WIDEST_MM = 5000.0
_MAX_JSON = 1 << 20


def read_header(path: Path, stream: IO[bytes], alone: bool = False) -> Any:
    """Read a header.

    Args:
        path: Named in errors.
        stream: At the start of the header.
        alone: True for the .hdr of a pair, which may be Analyze 7.5 too.
    """
    block = stream.read(_HEADER_BYTES)
    for endianness in ("<", ">"):
        size = struct.unpack(f"{endianness}i", block[:4])[0] if len(block) >= 4 else 0
        if size in _HEADERS:
            kind, at, magics = _HEADERS[size]
            if len(block) < size:
                raise FormatError(f"{path}: truncated, {len(block)} of {size} header bytes")
            magic = block[at : at + 3]
            if alone and size == 348 and magic not in magics:
                return nib.Spm99AnalyzeHeader(block[:size], endianness=endianness, check=False)
            if magic != magics[alone]:
                raise FormatError(
                    f"{path}: NIfTI magic is {block[at : at + 4]!r}, not {magics[alone]!r}"
                )
            return kind(block[:size], endianness=endianness, check=False)
    raise FormatError(f"{path}: not a NIfTI file, it starts with {block[:8]!r}")


def check_header(path: Path, header: Any) -> tuple[tuple[int, int, int], np.dtype, int]:
    """Shape, type and place of the voxels.

    Raises:
        FormatError: the header is damaged.
        VolumeError: it is of no 3D image of real numbers, or its spacing is no number.
    """
    shape = _shape(path, header)
    sides = 2 if int(header["dim"][0]) == 2 else 3
    spacing = np.asarray(header["pixdim"][1 : 1 + sides], dtype=np.float64)
    if not np.all(np.isfinite(spacing)) or np.any(spacing == 0):
        shown = ", ".join(f"{value:g}" for value in spacing)
        raise VolumeError(f"the header's spacing is ({shown}) mm: set it to the true one")
    if sides == 2 and not header["pixdim"][3] > 0:
        header["pixdim"][3] = 1
    try:
        with np.errstate(all="ignore"):
            dtype = header.get_data_dtype()
            header.check_fix(logger=_QUIET, error_level=40)
            offset = header.get_data_offset()
    except (HeaderDataError, KeyError, ValueError, OverflowError) as error:
        raise FormatError(f"{path}: NIfTI header is damaged: {error}") from error
    _check_numbers(dtype)
    return shape, dtype, int(offset)


def _check_numbers(dtype: np.dtype) -> None:
    if dtype.names is not None:
        raise VolumeError(
            "the image is RGB: voxels are colours, not real numbers: export the grey image itself, "
            "or average the channels with numpy and save them as one"
        )
    if dtype.kind == "c":
        raise VolumeError(f"voxels are {dtype}, not real numbers: save the magnitude (numpy.abs)")
    if dtype.kind not in "biuf":
        raise VolumeError(f"voxels are {dtype}, not real numbers: convert them to one channel")


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
    """Sides of the one volume or slice; further axes of length 1 are dropped."""
    dims = int(header["dim"][0])
    sides = tuple(int(side) for side in header["dim"][1 : 1 + max(0, min(dims, 7))])
    if not 1 <= dims <= 7 or min(sides) < 1:
        raise FormatError(f"{path}: NIfTI dimensions are {header['dim'].tolist()}: damaged header")
    kept = (*sides, 1) if dims == 2 else sides
    if dims == 1 or any(side > 1 for side in kept[3:]):
        many = int(np.prod(kept[3:]))
        advice = f"{many} images in one: split it into 3D files and give one" if dims > 3 else (
            "a 2D or 3D image is needed")  # fmt: skip
        raise VolumeError(f"the image is {dims}D with shape {sides}, not 3D: {advice}")
    return kept[0], kept[1], kept[2]


def millimetres(header: Any) -> float:
    """Millimetres of one unit of length in a header."""
    return _unit(header)[0]


def _unit(header: Any) -> tuple[float, str]:
    if not isinstance(header, nib.Nifti1Header):
        return 1.0, "millimetres"
    return _UNITS.get(int(header["xyzt_units"]) & 7, (1.0, "millimetres"))


def read_affine(path: Path, header: Any) -> np.ndarray:
    """(4, 4) voxel index to RAS+ millimetres, whatever the header's unit of length."""
    try:
        with np.errstate(all="ignore"):
            affine = np.array(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        raise FormatError(f"{path}: NIfTI orientation is damaged: {error}") from error
    if int(header["dim"][0]) == 2 and not affine[:3, 2].any():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / max(float(np.linalg.norm(normal)), 1e-12)
    affine[:3] *= millimetres(header)
    return affine


def header_notes(header: Any, shape: tuple[int, int, int], affine: np.ndarray) -> tuple[str, ...]:
    """What a user should know before trusting the header."""
    factor, unit = _unit(header)
    found = []
    if factor != 1:
        found.append(f"the file's lengths are in {unit}: converted to millimetres")
    with np.errstate(all="ignore"):
        spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
        widest = float(np.nanmax(spacing * shape))
    if widest > _WIDEST_MM:
        found.append(f"the image is {widest / 1000:.3g} m wide: check the spacing and its unit")
    if int(header["dim"][0]) == 2:
        found.append(f"a 2D image: taken as one slice, {spacing[2]:.3g} mm thick")
    if not isinstance(header, nib.Nifti1Header):
        found.append("Analyze does not say left from right: the first axis is taken to run left")
    elif not (int(header["qform_code"]) or int(header["sform_code"])):
        found.append("the header has no orientation: the first axis is taken to run left, "
                     "the second to the front, the third up")  # fmt: skip
    return tuple(found)


def told_modality(path: Path, header: Any) -> str | None:
    """`CT` or `MR` where the file beside it or the description says so, as dcm2niix writes both."""
    name = path.name.lower()
    end = next((end for end in (".nii.gz", ".nii", ".hdr", ".img") if name.endswith(end)), "")
    beside = path.with_name(path.name[: len(name) - len(end)] + ".json")
    try:
        if beside.is_file() and beside.stat().st_size < _MAX_JSON:
            content = json.loads(beside.read_text(encoding="utf-8"))
            told = content.get("Modality") if isinstance(content, dict) else None
            if told in ("CT", "MR"):
                return str(told)
    except (OSError, ValueError, RecursionError):
        pass
    text = bytes(header["descrip"]).decode("latin-1")
    return "MR" if text.startswith("TE=") else None
