"""What a PACS says it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydicom.dataset import Dataset

from promptseg.io.dicom.headers import number, text

FIELDS = (
    "PatientID", "PatientName", "StudyDate", "StudyDescription", "StudyInstanceUID",
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality",
    "NumberOfSeriesRelatedInstances",
)  # fmt: skip
"""Attributes that are asked for."""


@dataclass(frozen=True)
class SeriesEntry:
    """One series. Its `repr` names no patient.

    Args:
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        modality: DICOM's word.
        number: SeriesNumber, None if unknown.
        description: SeriesDescription.
        instances: How many objects; None if the PACS does not say.
        date: StudyDate, eight digits.
        patient: PatientID.
        name: PatientName.
    """

    study: str
    series: str
    modality: str = ""
    number: int | None = None
    description: str = ""
    instances: int | None = None
    date: str = ""
    patient: str = ""
    name: str = ""

    def __repr__(self) -> str:
        return f"SeriesEntry({self.modality}, {self.instances} objects, {self.series})"

    @classmethod
    def of(cls, found: Dataset) -> SeriesEntry:
        """From an answer to a query."""
        place, many = number(found, "SeriesNumber"), number(found, "NumberOfSeriesRelatedInstances")
        return cls(
            text(found, "StudyInstanceUID"),
            text(found, "SeriesInstanceUID"),
            text(found, "Modality"),
            None if place is None else int(place),
            text(found, "SeriesDescription"),
            None if many is None else int(many),
            text(found, "StudyDate"),
            text(found, "PatientID"),
            text(found, "PatientName"),
        )

    def to_dict(self, names: bool = False) -> dict[str, Any]:
        """Plain JSON; the patient's name only where it is asked for."""
        told = {key: getattr(self, key) for key in _PLAIN}
        return {**told, "name": self.name} if names else told


_PLAIN = (
    "study", "series", "modality", "number", "description", "instances", "date", "patient",
)  # fmt: skip


class Pacs(Protocol):
    """What both protocols can do; every error is a FormatError that names the address."""

    def find(self, wanted: Mapping[str, str]) -> list[SeriesEntry]:
        """Series that match attributes by keyword, such as `PatientID`; `*` stands for anything."""

    def fetch(self, study: str, series: str) -> Iterator[Dataset]:
        """Every object of a series."""

    def store(self, files: Sequence[Path]) -> dict[str, str]:
        """Send objects; why the PACS refused any, by SOPInstanceUID."""
