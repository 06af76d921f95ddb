"""Stored pixels, and the values that they stand for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import pixel_array

from promptseg.errors import FormatError, VolumeError
from promptseg.io.dicom.entries import Entry
from promptseg.io.dicom.frames import Frame
from promptseg.io.dicom.headers import lenient, number, read_whole, text
from promptseg.io.dicom.mosaic import tile_pixels

_MOST_HU = 32767
"""No CT has a value above; a stored one there is a negative number that is called unsigned."""


def values_of(frames: Sequence[Frame], max_bytes: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """(columns, rows, slices) values of slices of one shape, and what is unusual about them.

    Values are the stored ones with slope and intercept of each slice. Whole numbers stay so, in
    the stored type or the smallest that holds them.

    Raises:
        FormatError: Pixels are missing, truncated or cannot be decoded.
        VolumeError: They need more than `max_bytes`.
    """
    rows, columns = frames[0].shape
    needed = 2 * rows * columns * len(frames)
    if needed > max_bytes:
        raise VolumeError(
            f"the series needs {needed} bytes ({columns} x {rows} x {len(frames)} voxels), the "
            f"limit is {max_bytes}: crop it or raise max_bytes"
        )
    planes = _planes(frames)
    stored = np.stack(planes)
    return _rescaled(stored, frames).transpose(2, 1, 0), tuple(_remarks(frames, stored))


def _planes(frames: Sequence[Frame]) -> list[np.ndarray]:
    held: tuple[Entry | None, np.ndarray] = (None, np.empty(0))
    planes: list[np.ndarray] = []
    for frame in frames:
        if held[0] is not frame.entry:
            held = frame.entry, stored_pixels(read_whole(frame.entry), frame.entry.name)
        plane = held[1][frame.index]
        if frame.tile is not None:
            plane = tile_pixels(plane, frame.tile, frame.shape)
        if plane.shape != frame.shape:
            raise FormatError(
                f"{frame.entry.name}: its pixels are {plane.shape[1]} x {plane.shape[0]}, its "
                f"header says {frame.shape[1]} x {frame.shape[0]}"
            )
        planes.append(plane)
    return planes


def stored_pixels(dataset: FileDataset, name: str) -> np.ndarray:
    """(frames, rows, columns) stored values of one grey image.

    Raises:
        FormatError: They are missing, truncated or cannot be decoded.
    """
    if "PixelData" not in dataset:
        kind = next((k for k in ("FloatPixelData", "DoubleFloatPixelData") if k in dataset), None)
        lacks = f"has {kind}, which is no image of a scanner" if kind else "has no pixel data"
        raise FormatError(f"{name}: {lacks}")
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", ()):
        raise FormatError(f"{name}: does not say how its pixels are coded (no TransferSyntaxUID)")
    try:
        with lenient(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: np.ndarray = pixel_array(dataset)
    except (MemoryError, FormatError):
        raise
    except Exception as error:  # each decoder has errors of its own
        raise FormatError(f"{name}: its pixels cannot be decoded: {_short(error)}") from error
    found = found[None] if found.ndim == 2 else found
    if found.ndim != 3:
        raise FormatError(f"{name}: its pixels have shape {found.shape}, not one grey value each")
    return _significant(found, dataset)


def _significant(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Values from the bits that hold them: overlays in the others go, short signs are extended."""
    allocated, stored = number(header, "BitsAllocated"), number(header, "BitsStored")
    high = number(header, "HighBit")
    if allocated not in (8, 16, 32) or stored is None or not 0 < stored < allocated:
        return values
    wide, bits = int(allocated), int(stored)
    shift = 0 if high is None else max(0, int(high) + 1 - bits)
    raw = values.view(f"u{wide // 8}") if values.itemsize * 8 == wide else values
    upper = raw >> (bits + shift)
    extended = values.dtype.kind == "i" and bool(
        np.any(upper == np.iinfo(raw.dtype).max >> (bits + shift))
    )
    plain = not upper.any()
    if shift == 0 and ((plain and values.dtype.kind == "u") or (extended and not plain)):
        return values
    if not plain and not extended and not _has_overlay(header):
        return values
    return _cut(raw, bits, shift, wide, values.dtype)


def _has_overlay(header: Dataset) -> bool:
    places = (header.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2))
    return any(place is not None and place.value for place in places)


def _cut(raw: np.ndarray, bits: int, shift: int, wide: int, dtype: np.dtype) -> np.ndarray:
    top = wide - bits - shift
    if dtype.kind == "i":
        return (raw << top).view(dtype) >> (wide - bits)
    return (raw << top) >> (wide - bits)


def _rescaled(stored: np.ndarray, frames: Sequence[Frame]) -> np.ndarray:
    slopes = np.array([frame.slope for frame in frames])
    intercepts = np.array([frame.intercept for frame in frames])
    if np.all(slopes == 1) and np.all(intercepts == 0):
        return stored
    whole = bool(np.all(slopes == np.rint(slopes)) and np.all(intercepts == np.rint(intercepts)))
    if not whole:
        return stored * slopes[:, None, None] + intercepts[:, None, None]
    wide: np.ndarray = stored.astype(np.int32) if stored.itemsize <= 2 else stored.astype(np.int64)
    most = float(np.abs(slopes).max()) * float(np.abs(wide).max()) + float(np.abs(intercepts).max())
    if most >= 2**31:
        wide = wide.astype(np.int64)
    wide *= slopes.astype(wide.dtype)[:, None, None]
    wide += intercepts.astype(wide.dtype)[:, None, None]
    return _narrowed(wide)


def _narrowed(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    for kind in (np.int16, np.uint16, np.int32):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return values.astype(kind)
    return values


def _remarks(frames: Sequence[Frame], stored: np.ndarray) -> list[str]:
    header = frames[0].header
    shown = {text(frame.header, "PhotometricInterpretation") for frame in frames}
    modality = text(header, "Modality")
    said = []
    if len(shown) > 1:
        raise VolumeError(f"its slices are drawn in different ways ({', '.join(sorted(shown))})")
    if shown == {"MONOCHROME1"}:
        said.append("MONOCHROME1: low values are drawn bright; the values are kept as stored")
    if modality == "CT":
        said += _ct_remarks(frames, stored)
    return said


def _ct_remarks(frames: Sequence[Frame], stored: np.ndarray) -> list[str]:
    highest = float(stored.max()) * frames[0].slope + frames[0].intercept
    if highest > _MOST_HU and math.isclose(frames[0].slope, 1):
        raise VolumeError(
            f"values go up to {highest:g} HU, which no CT has: PixelRepresentation says unsigned "
            "and the numbers are signed; correct it in the files"
        )
    rescaled = [frame.rescaled for frame in frames]
    if any(rescaled) and not all(rescaled):
        raise VolumeError(
            f"{rescaled.count(False)} of {len(frames)} slices lack RescaleSlope and "
            "RescaleIntercept: their values are not on the scale of the others"
        )
    if not any(rescaled):
        return ["no RescaleSlope and RescaleIntercept: values are as stored, perhaps not HU"]
    return []


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300] or type(error).__name__
