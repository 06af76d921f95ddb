"""DICOM-SEG out, through highdicom: one binary segment a target, which may overlap."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, generate_uid

from promptseg.errors import FormatError
from promptseg.io.dicom.headers import lenient, number, text
from promptseg.io.dicom.identity import add_identity, dicom_source, valid_uid
from promptseg.io.dicom.names import Named, code_item, named_targets
from promptseg.io.dicom.source import DicomSource
from promptseg.io.dicom.writing import MANUFACTURER, model_name, save_dataset, software_versions
from promptseg.io.image import Image
from promptseg.io.provenance import to_text

# What a source slice must have besides identity; the rest of a header may not conform.
_KEPT = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns",
    "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "DimensionOrganizationSequence", "DimensionIndexSequence",
    "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation",
    "PhotometricInterpretation", "SeriesNumber",
)  # fmt: skip
_AI = Code("123110", "DCM", "Artificial Intelligence")


def check(image: Image) -> None:
    """Refuse an image that no DICOM-SEG can refer to.

    Raises:
        FormatError: It is from no DICOM series, or a mosaic.
    """
    dicom_source(image, "seg")


def write(image: Image, path: Path) -> None:
    """Write labels as a binary segmentation object on the series they were made on.

    Frames without a voxel of a segment are left out. A target without any voxel is left out too,
    since a segment must have a frame.

    Raises:
        FormatError: The labels are on no DICOM series, all empty, or the file cannot be written.
    """
    write_as(image, path, "BINARY")


def write_as(image: Image, path: Path, kind: str) -> None:
    """Write labels as a segmentation object.

    Args:
        image: The labels.
        path: File.
        kind: `BINARY`, or `LABELMAP`, in which targets cannot overlap.

    Raises:
        FormatError: As for `write`.
    """
    source = dicom_source(image, "seg")
    targets = [one for one in named_targets(image) if image.box(one.target) is not None]
    if not targets:
        raise FormatError(f"{path}: every target is empty and DICOM-SEG has no empty segments")
    save_dataset(_segmentation(image, source, targets, kind), path)


def _segmentation(image: Image, source: DicomSource, targets: Sequence[Named], kind: str) -> Any:
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation
    from highdicom.seg.enum import SegmentationTypeValues

    provenance = image.provenance or {}
    algorithm = AlgorithmIdentificationSequence(
        name=model_name(provenance),
        family=_AI,
        version=str(provenance.get("version") or "unknown"),
        source=MANUFACTURER,
    )
    algorithm[0].AlgorithmParameters = to_text(provenance)
    slices = _source_slices(source)
    with lenient(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Segmentation(
            source_images=slices,
            pixel_array=_pixels(image, source, targets, kind),
            segmentation_type=SegmentationTypeValues[kind],
            segment_descriptions=[
                _description(number, one, algorithm) for number, one in enumerate(targets, start=1)
            ],
            series_instance_uid=generate_uid(),
            series_number=_series_number(source),
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=model_name(provenance),
            software_versions=cast("Any", tuple(software_versions(provenance))),
            device_serial_number="0",
            content_label="SEGMENTATION",
            series_description="promptseg",
            omit_empty_frames=True,
        )
    found.SpecificCharacterSet = "ISO_IR 192"
    return found


def _series_number(source: DicomSource) -> int:
    """A number of its own, after that of the image."""
    return min(int(number(source.first, "SeriesNumber") or 0) + 1000, 2**31 - 1)


def _source_slices(source: DicomSource) -> list[Dataset]:
    return [_source_slice(source, header) for header in source.datasets]


def _source_slice(source: DicomSource, header: Dataset) -> Dataset:
    """A conforming header of one file: identity cleaned, geometry as it was read."""
    kept = Dataset()
    with lenient():
        for name in _KEPT:
            if name in header:
                kept[name] = copy(header[name])
    add_identity(kept, source)
    kept.SeriesInstanceUID = valid_uid(source.first, "SeriesInstanceUID")
    kept.SOPClassUID = UID(text(header, "SOPClassUID"))
    kept.SOPInstanceUID = valid_uid(header, "SOPInstanceUID")
    if "SliceThickness" not in kept or number(header, "SliceThickness") is None:
        kept.SliceThickness = None
    return kept


def _pixels(image: Image, source: DicomSource, targets: Sequence[Named], kind: str) -> np.ndarray:
    """(frames, rows, columns) numbers or (frames, rows, columns, segments), in the files' order.

    A segment a value takes far less memory, so targets are only laid apart where they overlap.
    """
    if kind == "LABELMAP" or not image.layers:
        found = np.zeros(image.data.shape, np.uint16 if len(targets) > 255 else np.uint8)
        for number_, one in enumerate(targets, start=1):
            box = image.box(one.target) or ()
            found[box][image.mask(one.target)[box]] = number_
    else:
        found = np.stack([image.mask(one.target) for one in targets], axis=-1).astype(np.uint8)
    moved = np.moveaxis(found, (2, 1, 0), (0, 1, 2))
    if not source.multiframe:
        return np.ascontiguousarray(moved)
    return _in_file_order(moved, source)


def _in_file_order(slices: np.ndarray, source: DicomSource) -> np.ndarray:
    """Slices at the places of their frames in the one file; other phases stay empty."""
    header = source.datasets[0]
    count = int(number(header, "NumberOfFrames") or 1)
    found = np.zeros((count, *slices.shape[1:]), slices.dtype)
    found[[frame - 1 for frame in source.frames]] = slices
    return found


def _description(number_: int, one: Named, algorithm: Any) -> Any:
    from highdicom.seg import SegmentDescription
    from highdicom.seg.enum import SegmentAlgorithmTypeValues

    found = SegmentDescription(
        segment_number=number_,
        segment_label=one.name,
        segmented_property_category=Code(one.category[0], "SCT", one.category[1]),
        segmented_property_type=Code(one.type_code[0], "SCT", one.type_code[1]),
        algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=generate_uid(),
        tracking_id=one.name,
    )
    if one.side_code is not None:
        modifier = code_item(one.side_code)
        found.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            modifier
        ]
    found.RecommendedDisplayCIELabValue = _cielab(one.colour)
    return found


def _cielab(colour: tuple[int, int, int]) -> list[int]:
    """A colour as DICOM codes CIELab: 16 bits each (PS3.3 C.10.7.1.1)."""
    from skimage.color import rgb2lab

    light, a, b = rgb2lab(np.array(colour)[None, None] / 255.0)[0, 0]
    scaled = light * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255
    return [round(float(one)) for one in scaled]
