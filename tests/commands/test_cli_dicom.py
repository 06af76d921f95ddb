"""`segment` and `rerun` on DICOM: series, formats, names, and what is private."""

import json
from pathlib import Path

import numpy as np
import pytest

import promptseg as ps
from promptseg.commands.cli import main

pydicom = pytest.importorskip("pydicom", reason="needs the dicom extra")
pytest.importorskip("highdicom", reason="needs the dicom extra")

from dicom_kit import save, series  # noqa: E402

SHAPE = (40, 36, 6)
BOX = ["--box", "10,8,2,30,26,3"]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Two CT series in one folder; the second has a bright block."""
    i, j, k = np.indices(SHAPE)
    block = (abs(i - 20) < 9) & (abs(j - 17) < 8) & (k > 0) & (k < 5)
    data = np.where(block, 1100, 950).astype(np.int16)
    folder = tmp_path_factory.mktemp("study")
    return save([*series(data=data * 0 + 900), *series(data=data, SeriesNumber=4)], folder)


def run(study, model, out, *options, status=0):
    arguments = [study, "-o", out, "--series", "2", *BOX, "--model", model, *options]
    assert main(["segment", *map(str, arguments)]) == status


@pytest.fixture(scope="module")
def done(study, model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    options = ["--format", "rtstruct", "--name", "1=Liver", "--report", folder / "run.json"]
    run(study, model, folder / "rt.dcm", *options)
    return folder


class TestSegment:
    def test_the_structure_set(self, done, study):
        found = pydicom.dcmread(done / "rt.dcm")
        assert found.Modality == "RTSTRUCT"
        assert found.StructureSetROISequence[0].ROIName == "Liver"
        assert found.PatientID == "P1"

    def test_the_report_names_the_series_and_nobody(self, done):
        text = (done / "run.json").read_text()
        assert json.loads(text)["input"]["series"] == "2"
        assert "Doe" not in text
        assert "P1" not in json.loads(text).get("patient", {}).values()

    def test_rerun_reads_the_same_series(self, done, capsys):
        assert main(["rerun", str(done / "run.json")]) == 0
        assert "same mask" in capsys.readouterr().out

    def test_rerun_counts_what_differs_from_the_structure_set(self, done, tmp_path, capsys):
        manifest = json.loads((done / "run.json").read_text())
        manifest["result"]["sha256"] = "0" * 64
        (tmp_path / "run.json").write_text(json.dumps(manifest))
        assert main(["rerun", str(tmp_path / "run.json")]) == 1
        assert "the mask differs in 0 voxels" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "format", ["seg", "labelmap", "nifti", "nrrd", "seg.nrrd", "metaimage"]
    )
    def test_every_format_holds_the_same_mask(self, done, study, model, tmp_path, format):
        run(study, model, tmp_path / "out.dcm", "--format", format)
        volume = ps.read(study, series=2)
        wanted = ps.read_labels(done / "rt.dcm", volume).data
        path = tmp_path / "out.dcm"
        if format in ("seg.nrrd", "metaimage"):  # others are known by how they start
            suffix = {"seg.nrrd": "seg.nrrd", "metaimage": "mha"}[format]
            path = path.rename(tmp_path / f"out.{suffix}")
        assert np.array_equal(ps.read_labels(path, volume).data > 0, wanted > 0)

    def test_identifiers_on_request(self, study, model, tmp_path):
        report = tmp_path / "run.json"
        run(study, model, tmp_path / "x.nii.gz", "--report", report, "--keep-identifiers")
        assert json.loads(report.read_text())["patient"]["PatientID"] == "P1"


class TestRefused:
    def refused(self, capsys, *arguments):
        capsys.readouterr()
        assert main([str(one) for one in arguments]) == 2
        [line] = capsys.readouterr().err.strip().splitlines()[-1:]
        return line

    def test_several_series_are_listed(self, study, tmp_path, capsys):
        said = self.refused(capsys, "segment", study, "-o", tmp_path / "x.nii.gz", *BOX)
        assert "1: CT 'synthetic', 6 slices; 2: CT 'synthetic', 6 slices" in said

    def test_dcm_without_a_format(self, study, tmp_path, capsys):
        said = self.refused(capsys, "segment", study, "--series", 2, "-o", tmp_path / "x.dcm", *BOX)
        assert "name the format" in said

    def test_rtstruct_of_an_image_that_is_not_dicom(self, tmp_path, capsys):
        ps.write(ps.Volume(np.zeros((9, 9, 9), np.int16), np.eye(4)), tmp_path / "x.nii.gz")
        out = tmp_path / "x.dcm"
        said = self.refused(
            capsys, "segment", tmp_path / "x.nii.gz", "-o", out, "--format", "rtstruct", *BOX
        )
        assert "this image is not from DICOM" in said
        assert not out.exists()

    def test_a_name_that_is_none(self, study, tmp_path, capsys):
        said = self.refused(
            capsys, "segment", study, "-o", tmp_path / "x.nii.gz", *BOX, "--name", "Liver"
        )
        assert "give TARGET=NAME" in said
