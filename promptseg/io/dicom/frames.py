"""Slices as the files hold them: one a file, many in an enhanced file, tiles of a mosaic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from promptseg.io.dicom.entries import Entry
from promptseg.io.dicom.headers import number, numbers, text

_UNIT = 1e-3
"""How far direction cosines may be from unit length and a right angle; files round to 4 digits."""

# Elements that tell the volumes of one series apart, with the functional group that holds them
# in an enhanced file. In order: what is a different image first, then times.
KEYS: tuple[tuple[str, str | None], ...] = (
    ("StackID", "FrameContentSequence"),
    ("EffectiveEchoTime", "MREchoSequence"),
    ("EchoTime", None),
    ("EchoNumbers", None),
    ("FrameType", "MRImageFrameTypeSequence"),
    ("FrameType", "CTImageFrameTypeSequence"),
    ("ImageType", None),
    ("DiffusionBValue", "MRDiffusionSequence"),
    ("DiffusionBValue", None),
    ("DiffusionGradientOrientation", None),
    ("SequenceName", None),
    ("InversionTime", None),
    ("FlipAngle", None),
    ("KVP", None),
    ("TemporalPositionIndex", "FrameContentSequence"),
    ("TemporalPositionIdentifier", None),
    ("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"),
    ("NominalPercentageOfCardiacPhase", "CardiacSynchronizationSequence"),
    ("TriggerTime", None),
    ("FrameReferenceTime", None),
    ("AcquisitionNumber", None),
    ("AcquisitionDateTime", None),
    ("AcquisitionTime", None),
    ("ContentTime", None),
)


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice.

    Args:
        entry: File that holds it.
        header: Header of the file.
        index: Frame of the file, from 0.
        tile: Tile of a mosaic, from 0; None for a whole frame.
        shape: Rows and columns.
        position: (3,) LPS millimetres of the first voxel's centre.
        directions: (2, 3) LPS unit vectors along a row and along a column.
        spacing: Millimetres between rows and between columns.
        thickness: Millimetres, None where the file does not say.
        slope: Of the values.
        intercept: Of the values.
        rescaled: True if the file says slope and intercept.
        keys: What tells it from other slices at its position.
    """

    entry: Entry
    header: Dataset
    index: int
    tile: int | None
    shape: tuple[int, int]
    position: np.ndarray
    directions: np.ndarray
    spacing: tuple[float, float]
    thickness: float | None
    slope: float = 1.0
    intercept: float = 0.0
    rescaled: bool = False
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def normal(self) -> np.ndarray:
        """(3,) row x column direction."""
        return np.cross(self.directions[0], self.directions[1])

    @property
    def height(self) -> float:
        """Millimetres along the normal."""
        return float(self.position @ self.normal)


class NoSlice(ValueError):
    """Why a file is no slice of a volume."""


def whole_frames(entry: Entry, header: Dataset) -> list[Frame]:
    """The frames of one file that is no mosaic.

    Raises:
        NoSlice: It has none that lie in space.
    """
    if "PerFrameFunctionalGroupsSequence" in header or (number(header, "NumberOfFrames") or 1) > 1:
        return _enhanced(entry, header)
    return [plain_frame(entry, header)]


def plain_frame(entry: Entry, header: Dataset) -> Frame:
    """The one frame of a file, as its top level describes it.

    Raises:
        NoSlice: It does not lie in space.
    """
    return _frame(entry, header, 0, {}, lambda name, group: header)


def check_pixels(header: Dataset) -> None:
    """Refuse what is not one grey value a pixel.

    Raises:
        NoSlice: It is colour, or says nothing of its size.
    """
    if number(header, "Rows") is None or number(header, "Columns") is None:
        raise NoSlice("has no pixels: Rows and Columns are missing")
    samples = number(header, "SamplesPerPixel") or 1
    shown = text(header, "PhotometricInterpretation") or "MONOCHROME2"
    if samples != 1 or shown not in ("MONOCHROME1", "MONOCHROME2"):
        raise NoSlice(f"is colour ({shown}, {samples:g} values a pixel), not grey values")
    if "ModalityLUTSequence" in header:
        raise NoSlice("has a modality lookup table in place of slope and intercept")


def is_mosaic(header: Dataset) -> bool:
    """True for a Siemens mosaic: a sheet of tiles, each of them a slice."""
    return "MOSAIC" in text(header, "ImageType").upper().split("\\")


def _enhanced(entry: Entry, header: Dataset) -> list[Frame]:
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    count = int(number(header, "NumberOfFrames") or 1)
    if not per_frame:
        raise NoSlice(f"holds {count} frames that say nothing of their position")
    if len(per_frame) != count:
        raise NoSlice(f"says {count} frames and describes {len(per_frame)}")
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    return [
        _frame(entry, header, index, _dimensions(groups), _finder(groups, shared[0], header))
        for index, groups in enumerate(per_frame)
    ]


def _finder(groups: Dataset, shared: Dataset, header: Dataset) -> Any:
    """The data set of an element: its group of the frame, the shared one, never the top level."""

    def find(name: str, group: str | None) -> Dataset:
        if group is None:
            return header
        held = groups.get(group) or shared.get(group)
        return held[0] if held else Dataset()

    return find


def _dimensions(groups: Dataset) -> dict[str, Any]:
    content = groups.get("FrameContentSequence")
    values = numbers(content[0], "DimensionIndexValues") if content else None
    return {f"dimension {place}": value for place, value in enumerate(values or ())}


def _frame(entry: Entry, header: Dataset, index: int, extra: Mapping[str, Any], find: Any) -> Frame:
    position = numbers(
        find("ImagePositionPatient", "PlanePositionSequence"), "ImagePositionPatient", 3
    )
    cosines = numbers(
        find("ImageOrientationPatient", "PlaneOrientationSequence"), "ImageOrientationPatient", 6
    )
    measures = find("PixelSpacing", "PixelMeasuresSequence")
    spacing = numbers(measures, "PixelSpacing", 2)
    if position is None or cosines is None:
        lacking = "position" if position is None else "orientation"
        raise NoSlice(f"has no {lacking} in the patient (ImagePositionPatient, "
                      "ImageOrientationPatient)")  # fmt: skip
    if spacing is None or min(spacing) <= 0:
        raise NoSlice(f"has no usable PixelSpacing ({text(measures, 'PixelSpacing') or 'absent'})")
    scale = find("RescaleSlope", "PixelValueTransformationSequence")
    slope, intercept = number(scale, "RescaleSlope"), number(scale, "RescaleIntercept")
    if slope == 0:
        raise NoSlice("has RescaleSlope 0: every value would be the same")
    thickness = number(measures, "SliceThickness")
    return Frame(
        entry,
        header,
        index,
        None,
        (int(header.Rows), int(header.Columns)),
        np.array(position),
        _directions(cosines),
        (spacing[0], spacing[1]),
        thickness if thickness is not None and thickness > 0 else None,
        1.0 if slope is None else slope,
        0.0 if intercept is None else intercept,
        slope is not None or intercept is not None,
        {**_keys(find), **extra},
    )


def _directions(cosines: list[float]) -> np.ndarray:
    directions = np.array(cosines).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    slant = float(directions[0] @ directions[1])
    if np.abs(lengths - 1).max() > _UNIT or abs(slant) > _UNIT:
        shown = ", ".join(f"{one:g}" for one in cosines)
        raise NoSlice(
            f"has ImageOrientationPatient ({shown}): not two unit vectors at a right angle"
        )
    return directions


def _keys(find: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, group in KEYS:
        value = text(find(name, group), name)
        if value:
            found[name] = value
    return found
