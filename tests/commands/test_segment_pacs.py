"""Series out of a real Orthanc, segmented, RTSTRUCT and SEG back in and found again."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pacs_kit import Orthanc, ct_series
from pydicom.uid import generate_uid

from promptseg.commands.cli import main
from promptseg.io.pacs import parse_address
from promptseg.io.pacs.exchange import connect, store_files
from promptseg.io.provenance import read_provenance
from promptseg.volume import read, read_labels

pytestmark = pytest.mark.usefixtures("signed_in")
BOX = ["--box", "3,4,2,9,12,3"]


class TestRoundTrip:
    @pytest.mark.parametrize("protocol", ["web", "dimse"])
    @pytest.mark.parametrize("format", ["seg", "rtstruct"])
    def test_series_out_result_in_found_again(
        self, protocol: str, format: str, orthanc: Orthanc, model: str, tmp_path: Path, capsys
    ) -> None:
        patient = f"P{generate_uid()[-12:]}"
        study, series = ct_series(tmp_path / "ct", patient)
        url = getattr(orthanc, protocol)
        address = parse_address(url)
        store_files(connect(address), address, sorted((tmp_path / "ct").iterdir()))
        image = str(address.of(study, series))
        command = ["segment", image, "-o", url, "--format", format, *BOX, "--no-propagate"]
        command += ["--model", model, "--device", "cpu", "--report", str(tmp_path / "r.json")]
        assert main(command) == 0
        capsys.readouterr()
        kind = {"seg": "SEG", "rtstruct": "RTSTRUCT"}[format]
        query = ["pacs", "list", url, "--patient", patient, "--modality", kind, "--json"]
        assert main(query) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert found["study"] == study
        assert main(["pacs", "get", found["url"], "-o", str(tmp_path / "back")]) == 0
        (path,) = (tmp_path / "back").iterdir()
        assert pydicom.dcmread(path).PatientID == patient
        manifest = json.loads((tmp_path / "r.json").read_text())
        assert read_provenance(path)["model"]["sha256"] == manifest["model"]["sha256"]
        labels = read_labels(path, read(tmp_path / "ct"))
        voxels = manifest["result"]["targets"]["1"]["voxels"]
        assert int((labels.data == 1).sum()) == voxels > 0
        assert manifest["input"]["path"] == image
        assert main(["rerun", str(tmp_path / "r.json")]) == 0

    def test_what_the_pacs_refuses_is_kept(
        self, orthanc: Orthanc, model: str, tmp_path: Path, capsys, monkeypatch
    ) -> None:
        ct_series(tmp_path / "ct", "P")
        monkeypatch.chdir(tmp_path)
        refuse = lambda self, files: {"1.2.3": "out of space"}  # noqa: E731
        monkeypatch.setattr("promptseg.io.pacs.web.WebPacs.store", refuse)
        command = ["segment", str(tmp_path / "ct"), "-o", orthanc.web, *BOX, "--no-propagate"]
        assert main([*command, "--model", model, "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert "out of space" in said
        assert "unsent-1-seg.dcm" in said
        kept = read_labels(tmp_path / "unsent-1-seg.dcm", read(tmp_path / "ct"))
        assert np.any(kept.data)

    def test_refused_before_the_work(self, orthanc: Orthanc, tmp_path: Path, capsys) -> None:
        ct_series(tmp_path / "ct", "P")
        head = ["segment", str(tmp_path / "ct"), *BOX, "--model", "/nowhere"]
        assert main([*head, "-o", orthanc.web, "--format", "nifti"]) == 2
        assert "a PACS takes seg" in capsys.readouterr().err
        assert main([*head, "-o", "dicomweb://127.0.0.1:9/dicom-web"]) == 2
        assert "cannot be reached" in capsys.readouterr().err
