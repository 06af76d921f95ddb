"""RTSTRUCT out: contours along voxel edges, with references to every slice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from promptseg.io.dicom.contours import trace
from promptseg.io.dicom.identity import add_identity, dicom_source, stamp, valid_uid
from promptseg.io.dicom.names import Named, named_targets
from promptseg.io.dicom.source import DicomSource, lps
from promptseg.io.dicom.writing import add_equipment, save_dataset
from promptseg.io.image import Image
from promptseg.io.provenance import to_text

_CONTOUR_DATA = Tag("ContourData")
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, retired; planning systems look for it in RTReferencedStudySequence."""
_MOST_DESCRIPTION = 1024


def check(image: Image) -> None:
    """Refuse an image that no RTSTRUCT can refer to.

    Raises:
        FormatError: It is from no DICOM series, or a mosaic.
    """
    dicom_source(image, "rtstruct")


def write(image: Image, path: Path) -> None:
    """Write labels as an RTSTRUCT on the series they were made on.

    Every target becomes a region of interest; on each slice its outline and its holes are closed
    planar contours of their own, to be filled by exclusive or.

    Raises:
        FormatError: The labels are on no DICOM series, or the file cannot be written.
    """
    source = dicom_source(image, "rtstruct")
    save_dataset(structure_set(image, source), path)


def structure_set(image: Image, source: DicomSource) -> FileDataset:
    """The RTSTRUCT of labels."""
    found = _empty()
    add_identity(found, source)
    add_equipment(found, image.provenance or {})
    _add_structure_set(found, image, source)
    found.StructureSetROISequence = []
    found.ROIContourSequence = []
    found.RTROIObservationsSequence = []
    for number, named in enumerate(named_targets(image), start=1):
        _add_region(found, image, source, number, named)
    return found


def _empty() -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    # Explicit VR has 16 bits for the length of ContourData, too few for long contours.
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    found = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    found.SOPClassUID = RTStructureSetStorage
    found.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    found.Modality = "RTSTRUCT"
    found.SeriesInstanceUID = generate_uid()
    found.SeriesNumber = 1000
    found.SeriesDescription = "promptseg"
    found.OperatorsName = ""
    found.ApprovalStatus = "UNAPPROVED"
    return found


def _add_structure_set(found: FileDataset, image: Image, source: DicomSource) -> None:
    date, time = stamp(datetime.now())
    found.InstanceCreationDate, found.InstanceCreationTime = date, time
    found.SeriesDate, found.SeriesTime = date, time
    found.StructureSetLabel = "promptseg"
    found.StructureSetDate, found.StructureSetTime = date, time
    told = to_text(image.provenance or {})
    if len(told) <= _MOST_DESCRIPTION:
        found.StructureSetDescription = told
    series = Dataset()
    series.SeriesInstanceUID = valid_uid(source.first, "SeriesInstanceUID")
    series.ContourImageSequence = list(_references(source))
    study = Dataset()
    study.ReferencedSOPClassUID = _STUDY_CLASS
    study.ReferencedSOPInstanceUID = found.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = found.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    found.ReferencedFrameOfReferenceSequence = [frame]


def _references(source: DicomSource) -> Iterator[Dataset]:
    """One item a slice; for frames of one file one item with all their numbers."""
    if not source.multiframe:
        yield from (_reference(source, place) for place in range(len(source.headers)))
        return
    for header in source.datasets:
        places = [place for place, held in enumerate(source.headers) if held is header]
        item = _reference(source, places[0])
        item.ReferencedFrameNumber = sorted(source.frames[place] for place in places)
        yield item


def _reference(source: DicomSource, place: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.headers[place].SOPClassUID
    item.ReferencedSOPInstanceUID = valid_uid(source.headers[place], "SOPInstanceUID")
    if source.multiframe:
        item.ReferencedFrameNumber = source.frames[place]
    return item


def _add_region(
    found: FileDataset, image: Image, source: DicomSource, number: int, named: Named
) -> None:
    region = Dataset()
    region.ROINumber = number
    region.ReferencedFrameOfReferenceUID = found.FrameOfReferenceUID
    region.ROIName = named.short
    region.ROIGenerationAlgorithm = "SEMIAUTOMATIC"
    found.StructureSetROISequence.append(region)
    drawn = Dataset()
    drawn.ROIDisplayColor = list(named.colour)
    drawn.ReferencedROINumber = number
    contours = list(_contours(image, source, named.target))
    if contours:
        drawn.ContourSequence = contours
    found.ROIContourSequence.append(drawn)
    observed = Dataset()
    observed.ObservationNumber = number
    observed.ReferencedROINumber = number
    observed.ROIObservationLabel = named.short[:16]
    if named.code is not None:
        observed.RTROIIdentificationCodeSequence = [named.code_item()]
    observed.RTROIInterpretedType = named.interpreted
    observed.ROIInterpreter = ""
    found.RTROIObservationsSequence.append(observed)


def _contours(image: Image, source: DicomSource, target: int) -> Iterator[Dataset]:
    affine = lps(image.affine)
    box = image.box(target)
    if box is None:
        return
    mask = image.mask(target)[box]
    corner = np.array([side.start for side in box])
    for place in range(mask.shape[2]):
        for loop in trace(mask[:, :, place]):
            voxels = np.column_stack([loop, np.full(len(loop), place)]) + corner
            item = Dataset()
            item.ContourImageSequence = [_reference(source, place + int(corner[2]))]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(loop)
            item[_CONTOUR_DATA] = _decimals(voxels @ affine[:3, :3].T + affine[:3, 3])
            yield item


def _decimals(points: np.ndarray) -> RawDataElement:
    """Coordinates as the file holds them; as objects of pydicom they take a hundred times as long.

    Six decimals: a nanometre, and at most 15 of the 16 characters that a number may have.
    """
    text = "\\".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in points.ravel().tolist())
    content = text.encode() + b" " * (len(text) % 2)
    return RawDataElement(_CONTOUR_DATA, "DS", len(content), content, 0, True, True)
