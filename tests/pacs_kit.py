"""A real Orthanc on loopback, started and ended by the tests."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SLICES = 5
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "alice", "correct horse"


@dataclass(frozen=True)
class Orthanc:
    """Where it listens."""

    web: str
    dimse: str
    log: Path


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ct_series(folder: Path, patient: str, number: int = 1, study: str = "") -> tuple[str, str]:
    """Write a small CT and return the UIDs of study and series."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = study or generate_uid(), generate_uid(), generate_uid()
    for k in range(SLICES):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.PatientName, one.PatientID, one.PatientBirthDate = "Test^Case", patient, ""
        one.PatientSex, one.StudyDate, one.StudyTime = "", "20260131", ""
        one.StudyInstanceUID, one.SeriesInstanceUID, one.StudyID = study, series, ""
        one.ReferringPhysicianName, one.AccessionNumber = "", ""
        one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", number, k + 1
        one.SeriesDescription, one.FrameOfReferenceUID = f"thorax {number}", frame
        one.ImagePositionPatient = [-20.0, -30.0, 10.0 + 2.5 * k]
        one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.8, 0.7]
        one.SliceThickness, one.Rows, one.Columns = 2.5, 16, 12
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        values = np.arange(16 * 12, dtype="<i2").reshape(16, 12) + 200 * k
        one.PixelData = values.tobytes()
        one.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return study, series


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start it in a folder and end it; skip the test where it is not installed."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.exists():
        pytest.skip("Orthanc is not installed: apt install orthanc orthanc-dicomweb")
    http, dicom = free_port(), free_port()
    config = {
        "Name": "tests", "HttpPort": http, "DicomPort": dicom, "DicomAet": "ORTHANC",
        "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD}, "Plugins": [str(PLUGIN.parent / PLUGIN.name)],
        "DicomAlwaysAllowFind": True, "DicomAlwaysAllowGet": True, "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": True, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    log = folder / "orthanc.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [program, str(folder / "config.json")], stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(http, process, log)
        yield Orthanc(
            f"dicomweb://127.0.0.1:{http}/dicom-web", f"dimse://ORTHANC@127.0.0.1:{dicom}", log
        )
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            pytest.fail(f"Orthanc ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/system", timeout=5)
        except urllib.error.HTTPError:
            return  # it is up and wants a password
        except OSError:
            time.sleep(0.2)
    pytest.fail("Orthanc did not answer within a minute")
