"""Siemens mosaics: one file holds all slices of a volume as tiles of a sheet."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from promptseg.io.dicom.entries import Entry
from promptseg.io.dicom.frames import Frame, NoSlice, plain_frame
from promptseg.io.dicom.headers import number

_TILES = (0x0019, 0x100A)


def tiles_of(entry: Entry, header: Dataset) -> list[Frame]:
    """The slices of a mosaic.

    ImagePositionPatient is that of the sheet: it lies as far from the first tile's corner as if
    a slice of the sheet's size had the same centre.

    Raises:
        NoSlice: The number of tiles or the direction of the slices is unknown.
    """
    csa = _csa(header)
    count = _count(header, csa)
    side = math.ceil(math.sqrt(count))
    rows, columns = int(header.Rows) // side, int(header.Columns) // side
    sheet = plain_frame(entry, header)
    across = sheet.directions[0] * sheet.spacing[1] * (int(header.Columns) - columns) / 2
    down = sheet.directions[1] * sheet.spacing[0] * (int(header.Rows) - rows) / 2
    step = _normal(sheet, csa) * _gap(header)
    return [
        replace(
            sheet,
            tile=tile,
            shape=(rows, columns),
            position=sheet.position + across + down + tile * step,
        )
        for tile in range(count)
    ]


def tile_pixels(sheet: np.ndarray, tile: int, shape: tuple[int, int]) -> np.ndarray:
    """(rows, columns) pixels of one tile."""
    rows, columns = shape
    down, across = divmod(tile, sheet.shape[1] // columns)
    return sheet[down * rows : (down + 1) * rows, across * columns : (across + 1) * columns]


def _csa(header: Dataset) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom import csareader
    try:
        found = csareader.get_csa_header(header, "image")
    except Exception:  # a private header may hold anything; what is needed is checked below
        found = None
    return {} if found is None else found.get("tags", {})


def _items(csa: dict[str, Any], name: str) -> list[Any]:
    return list(csa.get(name, {}).get("items", []))


def _count(header: Dataset, csa: dict[str, Any]) -> int:
    told = _items(csa, "NumberOfImagesInMosaic")
    if not told and _TILES in header:
        told = [header[_TILES].value]
    try:
        count = int(told[0])
    except (IndexError, TypeError, ValueError):
        count = 0
    if count < 1:
        raise NoSlice("is a mosaic that does not say how many tiles it has")
    return count


def _normal(sheet: Frame, csa: dict[str, Any]) -> np.ndarray:
    told = _items(csa, "SliceNormalVector")
    if len(told) != 3:
        raise NoSlice("is a mosaic that does not say which way its slices run")
    along = float(np.dot([float(one) for one in told], sheet.normal))
    return sheet.normal * (1.0 if along > 0 else -1.0)


def _gap(header: Dataset) -> float:
    gap = number(header, "SpacingBetweenSlices") or number(header, "SliceThickness")
    if gap is None or gap <= 0:
        raise NoSlice("is a mosaic without SpacingBetweenSlices")
    return gap
