"""Synthetic DICOM series for the tests."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

SHAPE = (5, 7, 4)
"""Columns, rows, slices."""


def values(shape=SHAPE):
    """(columns, rows, slices) stored values, all different."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape) - 20


def slice_dataset(plane, position, directions, series, number, modality="CT", **changes):
    """One CT or MR slice of (columns, rows) stored values."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    found = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    found.SOPClassUID, found.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    found.Modality = modality
    found.PatientName, found.PatientID, found.PatientBirthDate = "Doe^Jane", "P1", "19700101"
    found.PatientSex = "F"
    found.StudyInstanceUID, found.SeriesInstanceUID = "1.2.3.1", series
    found.FrameOfReferenceUID = "1.2.3.9"
    found.StudyDate, found.StudyTime = "20240102", "101112"
    found.SeriesDescription, found.SeriesNumber = "synthetic", 3
    found.StudyID, found.AccessionNumber, found.ReferringPhysicianName = "1", "", ""
    found.InstanceNumber = number
    found.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    found.ImagePositionPatient = [float(f"{one:.8g}") for one in position]
    found.ImageOrientationPatient = [float(f"{one:.8f}") for one in np.ravel(directions)]
    found.PixelSpacing = [0.8, 0.6]
    found.SliceThickness = 2.5
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.Rows, found.Columns = plane.shape[1], plane.shape[0]
    found.BitsAllocated = found.BitsStored = 16
    found.HighBit, found.PixelRepresentation = 15, 1
    if modality == "CT":
        found.RescaleSlope, found.RescaleIntercept = 1, -1000
    found.PixelData = np.ascontiguousarray(plane.T, dtype="<i2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(found, name)
        else:
            setattr(found, name, value)
    return found


def series(
    directions=((1, 0, 0), (0, 1, 0)),
    step=None,
    origin=(10.0, -20.0, 30.0),
    data=None,
    modality="CT",
    **changes,
):
    """Slices of a series along `step`, or along the normal 2.5 mm apart."""
    data = values() if data is None else data
    directions = np.array(directions, float)
    step = 2.5 * np.cross(*directions) if step is None else np.array(step, float)
    uid = changes.pop("SeriesInstanceUID", generate_uid())
    return [
        slice_dataset(
            data[:, :, k], np.array(origin) + k * step, directions, uid, k + 1, modality, **changes
        )
        for k in range(data.shape[2])
    ]


def save(datasets, folder: Path, names=None):
    """Write datasets into a folder; names default to numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, dataset in enumerate(datasets):
        path = folder / (names[place] if names else f"{place:03d}.dcm")
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return folder


def affine_of(directions, step, origin):
    """(4, 4) to RAS that a reader must find."""
    found = np.eye(4)
    found[:3, 0] = np.array(directions[0]) * 0.6
    found[:3, 1] = np.array(directions[1]) * 0.8
    found[:3, 2] = step
    found[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ found


def enhanced(frames, per_position=1, **changes):
    """An enhanced CT of (columns, rows, slices) values; several time points if asked for."""
    from pydicom.uid import EnhancedCTImageStorage

    count = frames.shape[2]
    found = slice_dataset(frames[:, :, 0], (0, 0, 0), ((1, 0, 0), (0, 1, 0)), generate_uid(), 1)
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(found, name)
    found.NumberOfFrames = count
    found.PixelData = np.ascontiguousarray(frames.transpose(2, 1, 0), dtype="<i2").tobytes()
    shared, measures, orientation, scale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.6], 2.5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 1, -1000, "HU"
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelValueTransformationSequence = [scale]
    found.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for place in range(count):
        item, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [10, -20, 30 + 2.5 * (place // per_position)]
        content.DimensionIndexValues = [place // per_position + 1, place % per_position + 1]
        content.StackID, content.InStackPositionNumber = "1", place // per_position + 1
        if per_position > 1:
            content.TemporalPositionIndex = place % per_position + 1
        item.PlanePositionSequence, item.FrameContentSequence = [position], [content]
        groups.append(item)
    found.PerFrameFunctionalGroupsSequence = groups
    for name, value in changes.items():
        setattr(found, name, value)
    return found
