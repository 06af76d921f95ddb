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
from dataclasses import dataclass
from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.exists():
        pytest.skip("Orthanc is not installed: apt install orthanc orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("orthanc")
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


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTSEG_PACS_USER", USER)
    monkeypatch.setenv("PROMPTSEG_PACS_PASSWORD", PASSWORD)
