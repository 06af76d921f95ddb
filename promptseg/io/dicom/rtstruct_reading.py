"""RTSTRUCT in: contours of any planning system onto the grid of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset

from promptseg.errors import FormatError, VolumeError
from promptseg.io.dicom.boxed import Boxed, labelled
from promptseg.io.dicom.contours import fill
from promptseg.io.dicom.headers import number, numbers, text
from promptseg.io.dicom.source import DicomSource, lps
from promptseg.io.image import Image

_FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# Part of a voxel within which the points of a contour lie in one plane, and two planes are one.
_FLAT, _SAME = 0.25, 0.05


@dataclass(frozen=True, eq=False)
class Contour:
    """One contour on the grid of an image.

    Args:
        kind: ContourGeometricType.
        points: (N, 3) voxel coordinates.
    """

    kind: str
    points: np.ndarray


@dataclass
class Region:
    """One region of interest.

    Args:
        number: ROINumber.
        name: ROIName.
        contours: All of them.
        notes: What was left out or mended.
    """

    number: int
    name: str
    contours: list[Contour]
    notes: list[str] = field(default_factory=list)


def is_structure_set(header: Dataset) -> bool:
    """True for an RTSTRUCT."""
    return text(header, "Modality") == "RTSTRUCT" or "StructureSetROISequence" in header


def labels_on(dataset: Dataset, grid: Image, name: str) -> Image:
    """The regions of a structure set as labels on the grid of an image, numbered as in the file.

    On each slice the contours of the nearest plane are filled by even-odd, so that a contour
    inside another is a hole. A plane stands for half the way to the next one, as drawn: contours
    on every second slice fill the slices between. Points, and open contours whose ends do not
    meet, are no region and are named in the notes.

    Args:
        dataset: The RTSTRUCT.
        grid: Image whose shape and affine are taken.
        name: Of the file, for messages.

    Raises:
        FormatError: It has no region, or refers to another patient's space.
        VolumeError: None of its contours lies on the image.
    """
    _check_space(dataset, grid, name)
    shape = grid.data.shape
    masks: dict[int, Boxed] = {}
    names: dict[int, str] = {}
    notes: list[str] = []
    regions = _regions(dataset, np.linalg.inv(lps(grid.affine)))
    if not regions:
        raise FormatError(f"{name}: the structure set has no region with contours")
    for region in regions:
        mask = _filled(region, shape)
        notes += [f"{region.name or region.number}: {note}" for note in region.notes]
        if mask is not None:
            masks[region.number], names[region.number] = mask, region.name
    if not any(boxed.mask.any() for boxed in masks.values()):
        told = f" ({'; '.join(notes)})" if notes else ""
        raise VolumeError(f"{name}: no contour lies on the image: it belongs to another{told}")
    return labelled(masks, names, shape, grid.affine, notes)


def _check_space(dataset: Dataset, grid: Image, name: str) -> None:
    """Refuse contours that say they are in the space of another image."""
    if not isinstance(grid.header, DicomSource):
        return
    here = text(grid.header.first, "FrameOfReferenceUID")
    said = {text(one, "ReferencedFrameOfReferenceUID") for one in
            dataset.get("StructureSetROISequence") or ()} - {""}  # fmt: skip
    series = text(grid.header.first, "SeriesInstanceUID")
    if here and said and here not in said and series not in _referenced_series(dataset):
        raise FormatError(
            f"{name}: its contours are in another frame of reference than the image: they were "
            "drawn on another series; give the image they belong to"
        )


def _referenced_series(dataset: Dataset) -> set[str]:
    return {
        text(series, "SeriesInstanceUID")
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }


def _regions(dataset: Dataset, to_voxels: np.ndarray) -> list[Region]:
    names = {
        int(number(one, "ROINumber") or 0): text(one, "ROIName")
        for one in dataset.get("StructureSetROISequence") or ()
    }
    found: dict[int, Region] = {}
    for drawn in dataset.get("ROIContourSequence") or ():
        label = int(number(drawn, "ReferencedROINumber") or 0)
        if label < 1 or not drawn.get("ContourSequence"):
            continue
        region = found.setdefault(label, Region(label, names.get(label, ""), []))
        for item in drawn.ContourSequence:
            _add_contour(region, item, to_voxels)
    return [region for _, region in sorted(found.items())]


def _add_contour(region: Region, item: Dataset, to_voxels: np.ndarray) -> None:
    data = numbers(item, "ContourData")
    if data is None or len(data) % 3:
        _note(region, "a contour without usable coordinates passed over")
        return
    points = np.array(data).reshape(-1, 3) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    region.contours.append(Contour(text(item, "ContourGeometricType").upper(), points))


def _note(region: Region, said: str) -> None:
    if said not in region.notes:
        region.notes.append(said)


def _filled(region: Region, shape: Sequence[int]) -> Boxed | None:
    """Its mask, None where nothing of it is a closed contour."""
    closed = [one.points for one in region.contours if _is_region(region, one)]
    axis = _axis(closed)
    if axis is None:
        if closed:
            _note(region, "its contours lie across the voxels' planes: passed over")
        return None
    planes = _planes(closed, axis)
    heights = [height for height, _ in planes]
    reach = _reach(heights)
    taken = _nearest(heights, shape[axis], reach)
    _tell_left_out(region, heights, set(taken.values()), shape[axis], reach)
    return _painted(region, closed, axis, {at: planes[n][1] for at, n in taken.items()}, shape)


def _painted(
    region: Region,
    closed: Sequence[np.ndarray],
    axis: int,
    drawn: dict[int, list[np.ndarray]],
    shape: Sequence[int],
) -> Boxed:
    """The mask of the contours that each slice takes."""
    points = np.concatenate(closed)
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0)) + 1
    low[axis], high[axis] = min(drawn, default=0), max(drawn, default=-1) + 1
    found = Boxed.around(low, high, shape)
    others = [one for one in range(3) if one != axis]
    turned = np.moveaxis(found.mask, axis, 2)
    for place, contours in drawn.items():
        flat = [one[:, others] - found.low[others] for one in contours]
        turned[:, :, place - found.low[axis]] = _drawn(region, flat, turned.shape[:2])
    return found


def _tell_left_out(
    region: Region, heights: Sequence[float], taken: set[int], slices: int, reach: float
) -> None:
    left = [height for plane, height in enumerate(heights) if plane not in taken]
    past = sum(not -reach <= height <= slices - 1 + reach for height in left)
    if past:
        _note(region, f"contours on {past} planes outside the image left out")
    if len(left) > past:
        _note(region, f"{len(left) - past} planes between slices left out, nearer ones were taken")


def _is_region(region: Region, contour: Contour) -> bool:
    points, kind = contour.points, contour.kind
    if kind in _FILLED or (not kind and len(points) > 2):
        return True
    if kind == "OPEN_PLANAR" and len(points) > 2:
        gap = float(np.linalg.norm(points[0] - points[-1]))
        around = float(np.linalg.norm(np.diff(points, axis=0), axis=1).max())
        if gap <= max(1.0, around):
            _note(region, "an open contour whose ends meet taken as closed")
            return True
    _note(region, f"a contour of type {kind or 'not said'} encloses nothing: passed over")
    return False


def _axis(contours: Sequence[np.ndarray]) -> int | None:
    """The voxel axis across which every contour is flat."""
    if not contours:
        return None
    spread = np.max([np.ptp(points, axis=0) for points in contours], axis=0)
    # The slice axis first: a contour of one point is flat in all directions.
    for axis in (2, 1, 0):
        if spread[axis] <= _FLAT:
            return axis
    return None


def _planes(contours: Sequence[np.ndarray], axis: int) -> list[tuple[float, list[np.ndarray]]]:
    """Contours by plane, in order."""
    planes: list[tuple[float, list[np.ndarray]]] = []
    for points in sorted(contours, key=lambda one: float(one[:, axis].mean())):
        height = float(points[:, axis].mean())
        if planes and height - planes[-1][0] <= _SAME:
            planes[-1][1].append(points)
        else:
            planes.append((height, [points]))
    return planes


def _reach(heights: Sequence[float]) -> float:
    """How far from its plane a contour still stands for the region, in slices."""
    if len(heights) < 2:
        return 0.5
    return max(0.5, float(np.median(np.diff(heights))) / 2)


def _nearest(heights: Sequence[float], slices: int, reach: float) -> dict[int, int]:
    """The plane that each slice takes its contours from."""
    found = {}
    held = np.array(heights)
    # A little more than half, so that rounding leaves no slice without; the lower plane wins.
    for place in range(slices):
        off = np.abs(held - place)
        plane = int(off.argmin())
        if off[plane] <= reach + 1e-3:
            found[place] = plane
    return found


def _drawn(region: Region, contours: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    mask = fill(contours, shape)
    if mask.any():
        return mask
    middle = np.rint(np.concatenate(contours).mean(axis=0)).astype(int)
    if np.all(middle >= 0) and np.all(middle < shape):
        mask[tuple(middle)] = True
        _note(region, "a contour smaller than a voxel taken as the voxel it lies in")
    return mask
