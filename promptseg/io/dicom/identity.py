"""Patient, study and frame of reference, taken over from the image into what is written."""

from __future__ import annotations

import re
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from promptseg.errors import FormatError
from promptseg.io.dicom.headers import lenient, text
from promptseg.io.dicom.source import DicomSource
from promptseg.io.image import Image

# Attributes that must be there, empty if need be, with the pattern that a value must match.
_DATE, _TIME, _ANY = r"(\d{8})?", r"(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?", r".{0,64}"
_TAKEN_OVER = {
    "PatientName": r".{0,194}",
    "PatientID": _ANY,
    "PatientBirthDate": _DATE,
    "PatientSex": r"[MFO]?",
    "StudyDate": _DATE,
    "StudyTime": _TIME,
    "ReferringPhysicianName": r".{0,194}",
    "StudyID": r".{0,16}",
    "AccessionNumber": r".{0,16}",
}
_IF_THERE = {"PatientAge": r"\d{3}[DWMY]", "StudyDescription": r".{1,64}"}

_TOLD = ("PatientID", "StudyInstanceUID", "StudyDate", "SeriesInstanceUID", "SeriesNumber",
         "SeriesDescription", "FrameOfReferenceUID")  # fmt: skip


def dicom_source(image: Image, format: str) -> DicomSource:
    """What the slices of labels refer to.

    Raises:
        FormatError: They were made on no DICOM image, or on another grid than it had.
    """
    source = image.header
    if not isinstance(source, DicomSource):
        raise FormatError(
            f"{format} refers to the DICOM slices of a patient and this image is not from DICOM: "
            "segment the DICOM series, or save as nifti or nrrd"
        )
    if source.mosaic:
        raise FormatError(
            f"{format} refers to slices and those of a Siemens mosaic cannot be referred to: save "
            "as nifti or nrrd"
        )
    if image.data.shape[2] != len(source.headers):
        raise FormatError(
            f"{format}: the labels have {image.data.shape[2]} slices, the series "
            f"{len(source.headers)}: they are on another grid"
        )
    return source


def add_identity(target: Dataset, source: DicomSource) -> None:
    """Put patient, study and frame of reference of the image into an object."""
    with lenient():
        for name, pattern in _TAKEN_OVER.items():
            setattr(target, name, _clean(source.first, name, pattern))
        for name, pattern in _IF_THERE.items():
            value = _clean(source.first, name, pattern)
            if value:
                setattr(target, name, value)
    # Text was decoded as it was read, so that any of it can be written as UTF-8.
    target.SpecificCharacterSet = "ISO_IR 192"
    target.StudyInstanceUID = valid_uid(source.first, "StudyInstanceUID")
    target.FrameOfReferenceUID = valid_uid(source.first, "FrameOfReferenceUID")
    target.PositionReferenceIndicator = _clean(source.first, "PositionReferenceIndicator", _ANY)


def valid_uid(header: Dataset, name: str) -> UID:
    """The UID of an element; where there is none, one made of what the header says."""
    found = UID(text(header, name))
    if found and found.is_valid:
        return found
    told = [text(header, one) for one in _TOLD]
    if name == "SOPInstanceUID":
        told.append(text(header, "ImagePositionPatient"))
    return generate_uid(entropy_srcs=[name, *told])


def stamp(now: datetime) -> tuple[str, str]:
    """Date and time as DICOM writes them."""
    return now.strftime("%Y%m%d"), now.strftime("%H%M%S")


def _clean(header: Dataset, name: str, pattern: str) -> str:
    value = text(header, name)
    return value if re.fullmatch(pattern, value) and "\\" not in value else ""
