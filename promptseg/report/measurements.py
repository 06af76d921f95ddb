"""What people measure beside a mask: volume, diameters, bounding box, grey values."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist, squareform

from promptseg.errors import FormatError, VolumeError
from promptseg.volume import Segmentation, Volume, bounding_slices
from promptseg.volume.slicing import in_plane, resolve_axis

COLUMNS = (
    "target", "name", "voxels", "volume_ml", "largest_axial_diameter_mm", "recist_long_mm",
    "recist_short_mm", "recist_slice", "box_lo_i", "box_lo_j", "box_lo_k", "box_hi_i", "box_hi_j",
    "box_hi_k", "box_mm_i", "box_mm_j", "box_mm_k", "mean", "sd", "median", "min", "max", "unit",
)  # fmt: skip
"""Columns of the CSV, in order."""


@dataclass(frozen=True)
class Diameters:
    """The longest diameter of an outline and the longest chord across it at a right angle.

    Eisenhauer et al., New response evaluation criteria in solid tumours: revised RECIST guideline
    (version 1.1), Eur. J. Cancer 2009, on the convex outline.

    Args:
        long_mm: Millimetres.
        short_mm: Millimetres; 0 for what is no wider than a line.
        long_ends: Two (row, column) positions in pixels.
        short_ends: Two (row, column) positions in pixels.
    """

    long_mm: float
    short_mm: float
    long_ends: tuple[tuple[float, float], tuple[float, float]]
    short_ends: tuple[tuple[float, float], tuple[float, float]]


def measure(result: Segmentation, volume: Volume) -> dict[str, dict[str, Any]]:
    """Measure every target.

    Args:
        result: Labels.
        volume: The image on the same grid.

    Returns:
        By target as text: `name`, `voxels`, `volume_ml`, `bounding_box` (`lo`, `hi` half-open
        voxels and `mm`), `recist` (`axis`, `slice`, `long_mm`, `short_mm` and their ends in
        voxels), `largest_axial_diameter_mm`, `intensity` (`mean`, `sd`, `median`, `min`, `max`,
        `unit`); the last four None for an empty target.

    Raises:
        VolumeError: The grids differ.
    """
    if result.data.shape != volume.shape:
        raise VolumeError(f"labels have shape {result.data.shape}, the image {volume.shape}")
    return {str(target): _one(result, volume, target) for target in result.targets}


def write_csv(measured: Mapping[str, Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write measurements as a table, one row a target, all of it or nothing.

    Raises:
        FormatError: The file cannot be written.
    """
    from promptseg.io.atomic import atomic_path

    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    writer.writerows(_row(target, one) for target, one in measured.items())
    try:
        with atomic_path(path) as temporary:
            # The mark at the start lets spreadsheet programs read names of other alphabets.
            temporary.write_text(buffer.getvalue(), encoding="utf-8-sig", newline="")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def diameters(mask: np.ndarray, spans: np.ndarray) -> Diameters | None:
    """Diameters of the part of a flat mask that has the longest one.

    The outline runs through the middles of pixel edges, as marching squares draws it: a disc of
    ten pixels across measures ten pixels.

    Args:
        mask: (rows, columns) bool.
        spans: (3, 2) millimetres from a pixel to the next along rows and columns.

    Returns:
        None for an empty mask.
    """
    # Not cc3d, which loses pixels of flat masks with 8 neighbours.
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    best: Diameters | None = None
    for part in range(1, count + 1):
        found = _of_outline(edge_middles(parts == part), spans)
        if best is None or found.long_mm > best.long_mm:
            best = found
    return best


def edge_middles(mask: np.ndarray) -> np.ndarray:
    """(N, 2) row and column of the middle of every pixel edge between a mask and its outside."""
    padded = np.pad(mask, 1)
    found = []
    for axis in (0, 1):
        for step in (-1, 1):
            edge = padded & ~np.roll(padded, -step, axis)
            places = np.argwhere(edge) - 1.0
            places[:, axis] += step / 2
            found.append(places)
    return np.concatenate(found)


def _of_outline(points: np.ndarray, spans: np.ndarray) -> Diameters:
    flat = np.linalg.qr(spans)[1]
    world = points @ flat.T
    hull = _hull(world)
    corners, places = world[hull], points[hull]
    apart = squareform(pdist(corners))
    one, other = np.unravel_index(apart.argmax(), apart.shape)
    length = float(apart[one, other])
    along = (corners[other] - corners[one]) / length
    start, end = _longest_chord(corners, along)
    inverse = np.linalg.inv(flat)
    ends = (start @ inverse.T, end @ inverse.T)
    return Diameters(
        length,
        float(np.linalg.norm(end - start)),
        (_pair(places[one]), _pair(places[other])),
        (_pair(ends[0]), _pair(ends[1])),
    )


def _hull(world: np.ndarray) -> np.ndarray:
    """Indices of the corners of the convex hull, in order around it."""
    try:
        return np.asarray(ConvexHull(world).vertices)
    except QhullError:
        return np.arange(len(world))


def _longest_chord(corners: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the longest chord of a convex polygon at a right angle to a direction.

    Its length is linear between the corners, so that the longest starts at one of them.
    """
    across = np.array([-along[1], along[0]])
    place, height = corners @ along, corners @ across
    following = np.roll(np.arange(len(corners)), -1)
    best = corners[0], corners[0]
    widest = -1.0
    for at in place:
        # A chord at the very place of a corner touches both edges of it, which is harmless.
        low = np.minimum(place, place[following]) <= at + 1e-9
        meets = low & (np.maximum(place, place[following]) >= at - 1e-9)
        run = place[following] - place
        share = np.where(np.abs(run) > 1e-9, (at - place) / np.where(run == 0, 1, run), 0)
        heights = (height + np.clip(share, 0, 1) * (height[following] - height))[meets]
        if np.ptp(heights) > widest:
            widest = float(np.ptp(heights))
            best = (at * along + heights.min() * across, at * along + heights.max() * across)
    return best


def _pair(place: np.ndarray) -> tuple[float, float]:
    return round(float(place[0]), 3), round(float(place[1]), 3)


def _one(result: Segmentation, volume: Volume, target: int) -> dict[str, Any]:
    mask = result.mask(target)
    where = bounding_slices(mask)
    found: dict[str, Any] = {
        "name": result.labels.get(target, ""),
        "voxels": int(mask.sum()),
        "volume_ml": result.volume_ml(target),
        "bounding_box": None,
        "recist": None,
        "largest_axial_diameter_mm": None,
        "intensity": None,
    }
    if where is None:
        return found
    found["bounding_box"] = _box(where, volume.spacing)
    found["recist"] = recist = _recist(mask, where, volume.affine)
    found["largest_axial_diameter_mm"] = recist["long_mm"]
    found["intensity"] = _intensity(volume.data[where][mask[where]], volume.modality)
    return found


def _box(where: tuple[slice, ...], spacing: np.ndarray) -> dict[str, Any]:
    lo, hi = [part.start for part in where], [part.stop for part in where]
    return {"lo": lo, "hi": hi, "mm": (np.subtract(hi, lo) * spacing).tolist()}


def _recist(mask: np.ndarray, where: tuple[slice, ...], affine: np.ndarray) -> dict[str, Any]:
    """The axial slice with the longest diameter."""
    axis = resolve_axis("axial", affine)
    rows, cols = in_plane(axis)
    spans = affine[:3, [rows, cols]]
    inside = [where[rows], where[cols]]
    best: tuple[Diameters, int] | None = None
    for index in range(where[axis].start, where[axis].stop):
        found = diameters(np.moveaxis(mask, axis, 0)[index][tuple(inside)], spans)
        if found is not None and (best is None or found.long_mm > best[0].long_mm + 1e-6):
            best = found, index
    if best is None:
        raise VolumeError("a target with voxels has no slice with any")
    found, index = best
    corner = inside[0].start, inside[1].start

    def voxels(ends: tuple[tuple[float, float], ...]) -> list[list[float]]:
        placed = []
        for end in ends:
            place = [0.0, 0.0, 0.0]
            place[axis], place[rows], place[cols] = index, end[0] + corner[0], end[1] + corner[1]
            placed.append(place)
        return placed

    return {
        "axis": axis,
        "slice": index,
        "long_mm": found.long_mm,
        "short_mm": found.short_mm,
        "long_ends": voxels(found.long_ends),
        "short_ends": voxels(found.short_ends),
    }


def _intensity(values: np.ndarray, modality: str | None) -> dict[str, Any]:
    wide = values.astype(np.float64)
    return {
        "mean": float(wide.mean()),
        "sd": float(wide.std(ddof=1)) if len(wide) > 1 else 0.0,
        "median": float(np.median(wide)),
        "min": float(wide.min()),
        "max": float(wide.max()),
        "unit": "HU" if modality == "CT" else "",
    }


def _row(target: str, one: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"target": target}
    row |= {key: one[key] for key in ("name", "voxels", "volume_ml", "largest_axial_diameter_mm")}
    if one["bounding_box"]:
        for side in ("lo", "hi", "mm"):
            values = zip("ijk", one["bounding_box"][side], strict=True)
            row |= {f"box_{side}_{axis}": value for axis, value in values}
        row |= {f"recist_{key}": one["recist"][key] for key in ("long_mm", "short_mm", "slice")}
        row |= one["intensity"]
    return {key: _cell(row.get(key)) for key in COLUMNS}


def _cell(value: Any) -> Any:
    """Numbers to six digits; text that a spreadsheet would run as a formula made plain."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and value[:1] in "=+-@\t\r" and value:
        return f"'{value}"
    return "" if value is None else value
