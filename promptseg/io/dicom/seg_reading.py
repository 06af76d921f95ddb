"""DICOM-SEG in: of highdicom, dcmqi, Slicer and others; binary, fractional and label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from promptseg.errors import FormatError, VolumeError
from promptseg.io.dicom.boxed import Boxed, labelled
from promptseg.io.dicom.entries import Entry
from promptseg.io.dicom.frames import Frame, NoSlice, whole_frames
from promptseg.io.dicom.geometry import NoGrid, by_position, grid_of, same_place, same_plane
from promptseg.io.dicom.headers import number, text
from promptseg.io.dicom.pixels import stored_pixels
from promptseg.io.image import Image

_LABEL_MAP = "LABELMAP"
_BACKGROUND = ("125040", "DCM")


@dataclass(frozen=True, eq=False)
class Segments:
    """What a segmentation object holds.

    Args:
        names: Label by segment number; the background of a label map is none.
        frames: Slices, several at one position for several segments.
        masks: (rows, columns) bool of each slice by segment number.
        notes: What was made of fractions.
    """

    names: dict[int, str]
    frames: list[Frame]
    masks: list[dict[int, np.ndarray]]
    notes: tuple[str, ...] = ()


def is_segmentation(header: Dataset) -> bool:
    """True for a DICOM-SEG, with or without its class named right."""
    return text(header, "Modality") == "SEG" or "SegmentSequence" in header


def read_segments(entry: Entry, dataset: FileDataset) -> Segments:
    """The segments of an object with the slices that hold them.

    Raises:
        FormatError: It is damaged, or says nothing of where its frames lie.
    """
    try:
        frames = whole_frames(entry, dataset)
    except NoSlice as reason:
        raise FormatError(f"{entry.name}: the segmentation {reason}") from reason
    pixels = stored_pixels(dataset, entry.name)
    if len(pixels) != len(frames):
        raise FormatError(
            f"{entry.name}: has {len(pixels)} frames of pixels and describes {len(frames)}"
        )
    names = _names(dataset)
    kind = text(dataset, "SegmentationType").upper()
    if kind == _LABEL_MAP:
        masks = [_of_label_map(plane, names, dataset) for plane in pixels]
        return Segments(names, frames, masks)
    numbers = _numbers(entry, dataset, names, len(frames))
    most = (number(dataset, "MaximumFractionalValue") or 255) if kind == "FRACTIONAL" else 1
    masks = [
        {n: 2 * plane.astype(np.int32) >= most} for n, plane in zip(numbers, pixels, strict=True)
    ]
    notes = ("fractions of at least a half are taken as inside",) if kind == "FRACTIONAL" else ()
    return Segments(names, frames, masks, notes)


def segments_alone(segments: Segments, max_bytes: int) -> Image:
    """Labels on the grid of the object's own frames; slices left out as empty are put back.

    Raises:
        VolumeError: The frames lie on no grid.
    """
    first = segments.frames[0]
    if not all(same_plane(first, frame) for frame in segments.frames):
        raise VolumeError("its frames lie in different planes: give the image that it belongs to")
    places = by_position(segments.frames)
    slots, whole = _lattice([place[0] for place in places])
    count = slots[-1] + 1
    rows, columns = first.shape
    if rows * columns * count > max_bytes:
        raise VolumeError(f"its {count} slices need more than the limit of {max_bytes} bytes")
    slot_of = {
        id(frame): slot for slot, place in zip(slots, places, strict=True) for frame in place
    }
    held_in: dict[int, list[tuple[int, np.ndarray]]] = {}
    for frame, held in zip(segments.frames, segments.masks, strict=True):
        for segment, mask in held.items():
            if mask.any():
                held_in.setdefault(segment, []).append((slot_of[id(frame)], mask))
    masks = {segment: _stacked(held, columns, rows) for segment, held in held_in.items()}
    return labelled(masks, segments.names, (columns, rows, count), whole, segments.notes)


def _stacked(held: Sequence[tuple[int, np.ndarray]], columns: int, rows: int) -> Boxed:
    """The mask of one segment from its slices and their places."""
    first = min(place for place, _ in held)
    last = max(place for place, _ in held)
    found = np.zeros((columns, rows, last - first + 1), bool)
    for place, mask in held:
        found[:, :, place - first] |= mask.T
    return Boxed(np.array([0, 0, first]), found)


def _lattice(frames: Sequence[Frame]) -> tuple[list[int], np.ndarray]:
    """Place of each frame on an even grid of slices, and the grid's affine."""
    if len(frames) == 1:
        grid = grid_of(frames)
        return [0], grid.affine
    first = frames[0]
    offsets = np.array([frame.position - first.position for frame in frames])
    lengths = np.linalg.norm(offsets, axis=1)
    step = _step(first, np.diff(lengths))
    slots = np.rint(lengths / step).astype(int)
    along = offsets[-1] / slots[-1]
    off = float(np.linalg.norm(offsets - slots[:, None] * along, axis=1).max())
    if off > max(2 * same_place(min(first.spacing)), 0.02 * step) or len(set(slots)) < len(slots):
        raise VolumeError(
            f"its frames are not evenly spaced (up to {off:.3g} mm off steps of {step:g} mm): give "
            "the image that it belongs to"
        )
    try:
        affine = grid_of([first]).affine
    except NoGrid as reason:
        raise VolumeError(str(reason)) from reason
    affine[:3, 2] = along * (-1, -1, 1)
    return slots.tolist(), affine


def _step(first: Frame, gaps: np.ndarray) -> float:
    """Millimetres between slices: as the file says, if the frames lie on it, else the smallest."""
    smallest = float(gaps.min())
    shared = first.header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    measures = shared[0].get("PixelMeasuresSequence") or [Dataset()]
    for said in (number(measures[0], "SpacingBetweenSlices"), first.thickness):
        if said and said > 0:
            ratios = gaps / said
            if np.abs(ratios - np.rint(ratios)).max() < 0.05 and np.rint(ratios).min() >= 1:
                return said
    return smallest


def _names(dataset: Dataset) -> dict[int, str]:
    names: dict[int, str] = {}
    for segment in dataset.get("SegmentSequence") or ():
        label = number(segment, "SegmentNumber")
        if label is None or _is_background(segment):
            continue
        names[int(label)] = text(segment, "SegmentLabel") or text(segment, "SegmentDescription")
    return names


def _is_background(segment: Dataset) -> bool:
    if number(segment, "SegmentNumber") == 0:
        return True
    held = segment.get("SegmentedPropertyTypeCodeSequence")
    code = held[0] if held else Dataset()
    return (text(code, "CodeValue"), text(code, "CodingSchemeDesignator")) == _BACKGROUND


def _of_label_map(
    plane: np.ndarray, names: dict[int, str], dataset: Dataset
) -> dict[int, np.ndarray]:
    padding = number(dataset, "PixelPaddingValue")
    values = [int(value) for value in np.unique(plane)]
    return {value: plane == value for value in values if value in names and value != padding}


def _numbers(entry: Entry, dataset: Dataset, names: dict[int, str], count: int) -> list[int]:
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    found = []
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        held = groups.get("SegmentIdentificationSequence") or shared[0].get(
            "SegmentIdentificationSequence"
        )
        told = number(held[0], "ReferencedSegmentNumber") if held else None
        if told is None and len(names) == 1:
            told = next(iter(names))
        if told is None:
            raise FormatError(f"{entry.name}: a frame does not say which segment it is of")
        found.append(int(told))
    return found
