"""What a volume keeps of the DICOM files it came from, so that results can be written back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from promptseg.io.dicom.frames import Frame
from promptseg.io.dicom.headers import text

IDENTIFIERS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyDescription",
    "AccessionNumber", "InstitutionName", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID",
)  # fmt: skip
"""What `--keep-identifiers` puts into a report."""


@dataclass(frozen=True, eq=False, repr=False)
class DicomSource:
    """Where the slices of a volume come from. Its `repr` shows nothing of a patient.

    Args:
        headers: Header of the file of each slice, without pixels; one file may hold several.
        frames: Frame of its file by slice, from 1.
        multiframe: True if the files hold several frames.
        mosaic: True if slices are tiles, which nothing can refer to.
        series: What to choose it by again: `number` or `number.volume`.
    """

    headers: tuple[Dataset, ...]
    frames: tuple[int, ...]
    multiframe: bool = False
    mosaic: bool = False
    series: str = ""

    def __repr__(self) -> str:
        return f"DicomSource({len(self.headers)} slices)"

    @classmethod
    def of(cls, frames: Sequence[Frame], series: str = "") -> DicomSource:
        """From the slices of a volume in order."""
        return cls(
            tuple(frame.header for frame in frames),
            tuple(frame.index + 1 for frame in frames),
            any("PerFrameFunctionalGroupsSequence" in frame.header for frame in frames),
            any(frame.tile is not None for frame in frames),
            series,
        )

    @property
    def first(self) -> Dataset:
        """Header of the first slice."""
        return self.headers[0]

    @property
    def datasets(self) -> list[Dataset]:
        """The headers, each file once, in order of the slices."""
        return list({id(header): header for header in self.headers}.values())

    def identifiers(self) -> dict[str, str]:
        """Who and what the image is of: private."""
        found = {name: text(self.first, name) for name in IDENTIFIERS}
        return {name: value for name, value in found.items() if value}


def missing_uids(header: Dataset) -> list[str]:
    """Which UIDs that results must refer to are not in the files."""
    names = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
    return [name for name in names if not UID(text(header, name)).is_valid]


def lps(affine: np.ndarray) -> np.ndarray:
    """(4, 4) to LPS millimetres, as DICOM has them, of one to RAS."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
