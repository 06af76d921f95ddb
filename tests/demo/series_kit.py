"""Small DICOM series, made up."""

from __future__ import annotations

import io

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from promptseg.volume import Volume


def series(volume: Volume, description: str = "made up") -> dict[str, bytes]:
    """A volume's axial slices as CT files by name, in a frame of reference of their own."""
    study, uid, frame = generate_uid(), generate_uid(), generate_uid()
    made = {}
    for k in range(volume.shape[2]):
        made[f"{description}/IM{k:04d}"] = _slice(volume, k, (study, uid, frame), description)
    return made


def _slice(volume: Volume, k: int, uids: tuple[str, str, str], description: str) -> bytes:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = uids
    image.Modality, image.SeriesDescription, image.PatientName = "CT", description, "Made^Up"
    image.PatientID, image.InstanceNumber = "1", k + 1
    spacing = volume.spacing
    image.PixelSpacing, image.SliceThickness = [float(spacing[1]), float(spacing[0])], spacing[2]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [0.0, 0.0, float(k * spacing[2])]
    pixels = np.ascontiguousarray(volume.data[:, :, k].T.astype(np.int16))
    image.Rows, image.Columns = pixels.shape
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation, image.SamplesPerPixel = 15, 1, 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    image.PixelData = pixels.tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    sink = io.BytesIO()
    image.save_as(sink, enforce_file_format=True)
    return sink.getvalue()
