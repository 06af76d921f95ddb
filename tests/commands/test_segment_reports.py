"""`segment` with post-processing, reports and an audit log, on a very small network."""

import csv
import json
from pathlib import Path

import pytest

from promptseg.commands.cli import main
from promptseg.datasets.phantom import abdomen_phantom
from promptseg.io.provenance import read_provenance
from promptseg.report.audit import verify
from promptseg.volume import read, write

BOX = ["--box", "30,15,8,42,28,9"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "ct.nii.gz"
    write(abdomen_phantom(shape=(60, 45, 16), spacing=(6.0, 6.0, 15.0))[0], path)
    return path


@pytest.fixture(scope="module")
def done(image: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    reports = [
        part for name in ("r.json", "r.html", "m.csv") for part in ("--report", folder / name)
    ]
    arguments = ["segment", image, "-o", folder / "m.nii.gz", "--model", model, "--device", "cpu"]
    arguments += [*BOX, "--post", "largest", "--post", "margin,mm=6", *reports]
    arguments += ["--name", "1=Left kidney"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTSEG_AUDIT", str(folder / "audit.jsonl"))
        for _ in range(2):
            assert main([str(argument) for argument in arguments]) == 0
    return folder


class TestFiles:
    def test_manifest_has_measurements_checks_and_steps(self, done: Path) -> None:
        manifest = json.loads((done / "r.json").read_text())
        told = manifest["measurements"]["1"]
        assert told["voxels"] == int((read(done / "m.nii.gz").data == 1).sum()) > 0
        assert told["volume_ml"] == pytest.approx(told["voxels"] * 0.54)
        curve = manifest["quality"]["targets"]["1"]["area_curve_mm2"]
        assert sum(area for _, area in curve) * 15 / 1000 == pytest.approx(told["volume_ml"])
        assert manifest["settings"]["postprocess"] == ["largest", "margin,mm=6"]
        assert len(manifest["result"]["report"]["postprocessing"]) == 2
        assert manifest["result"]["report"]["slice_quality"]["1"]

    def test_page_and_table(self, done: Path) -> None:
        page = (done / "r.html").read_text(encoding="utf-8")
        assert "margin,mm=6" in page
        assert "Left kidney" in page
        assert "Target 1" not in page
        with (done / "m.csv").open(encoding="utf-8-sig") as stream:
            (row,) = csv.DictReader(stream)
        manifest = json.loads((done / "r.json").read_text())
        assert row["name"] == "Left kidney"
        assert int(row["voxels"]) == manifest["measurements"]["1"]["voxels"]

    def test_the_mask_alone_says_what_made_it(self, done: Path, model: str) -> None:
        manifest = json.loads((done / "r.json").read_text())
        found = read_provenance(done / "m.nii.gz")
        assert found["model"]["sha256"] == manifest["model"]["sha256"]
        assert found["postprocessing"] == ["largest", "margin,mm=6"]
        assert main(["audit", "show", str(done / "m.nii.gz"), "--json"]) == 0

    def test_the_trail_holds_both_runs(self, done: Path, image: Path) -> None:
        verdict = verify(done / "audit.jsonl")
        assert (verdict.entries, verdict.faults) == (2, ())
        text = (done / "audit.jsonl").read_text()
        assert str(done) not in text
        assert str(image) not in text

    def test_rerun_does_the_same_steps(self, done: Path, capsys) -> None:
        assert main(["rerun", str(done / "r.json")]) == 0
        assert capsys.readouterr().out == "same mask\n"


class TestRefused:
    def refused(self, capsys, *arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    def test_before_any_work(self, image: Path, tmp_path: Path, capsys, monkeypatch) -> None:
        head = ["segment", image, *BOX, "-o", tmp_path / "m.nii.gz"]
        assert "did you mean largest" in self.refused(capsys, *head, "--post", "larges")
        shared = self.refused(capsys, *head, "--post", "margin:1,mm=5,to=2")
        assert "shares voxels with its source" in shared
        twice = ["--report", tmp_path / "a.json", "--report", tmp_path / "b.json"]
        assert "of one kind" in self.refused(capsys, *head, *twice)
        monkeypatch.setenv("PROMPTSEG_AUDIT", str(tmp_path))
        assert "names a folder" in self.refused(capsys, *head)
        assert list(tmp_path.iterdir()) == []


class TestCine:
    def test_every_phase_with_a_table_and_a_trail(
        self, image: Path, model: str, tmp_path: Path, capsys, monkeypatch
    ) -> None:
        monkeypatch.setenv("PROMPTSEG_AUDIT", str(tmp_path / "audit.jsonl"))
        out, table = tmp_path / "labels.nii.gz", tmp_path / "volumes.csv"
        command = ["cine", image, image, *BOX, "-o", out, "--table", table, "--json"]
        command += ["--model", model, "--device", "cpu", "--no-propagate"]
        assert main([str(part) for part in command]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["phases"] == 2
        assert told["ejection"]["1"]["end_diastolic_ml"] > 0
        with table.open(encoding="utf-8-sig") as stream:
            assert [row["phase"] for row in csv.DictReader(stream)] == ["0", "1"]
        (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
        assert json.loads(line)["run"]["phases"] == 2
        assert read_provenance(out)["model"]["sha256"]

    def test_mistakes(self, image: Path, tmp_path: Path, capsys) -> None:
        head = ["cine", str(image), str(image), "-o", str(tmp_path / "l.nii.gz")]
        for more, said in (
            ([], "no prompt"),
            ([*BOX, "--phase", "2"], "there are 0 to 1"),
            ([*BOX, "-o", str(tmp_path / "l.dcm")], "go into .nii"),
        ):
            assert main([*head, *more]) == 2
            assert said in capsys.readouterr().err
        assert main(["cine", str(image), *BOX, "-o", str(tmp_path / "l.nii.gz")]) == 2
        assert "no time series" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
