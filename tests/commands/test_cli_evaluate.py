import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support import bright_volume, discs, segmenter, tiny_network

import promptseg as ps
from promptseg.backbones.default import save_default
from promptseg.commands.cli import main
from promptseg.errors import FormatError
from promptseg.evaluate.reports import Report
from promptseg.volume import Segmentation, write

SHAPE = (36, 40, 5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("cohort")
    for number in range(2):
        truth = discs(SHAPE, 2, dict.fromkeys(range(1, 4), (16 + number, 18, 7)))
        write(bright_volume(truth, (1, 1, 3)), folder / "images" / f"p{number}.nii.gz")
        labels = Segmentation(truth.astype(np.uint8), np.diag([1.0, 1, 3, 1]))
        write(labels, folder / "labels" / f"p{number}.nii.gz")
    return folder / "images", folder / "labels"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_default(tiny_network(), path, {})
    return str(path)


@pytest.fixture
def evaluate(cohort, model, tmp_path, capsys):
    def call(*options: object, images: object = cohort[0], labels: object = cohort[1]):
        arguments = ["--images", images, "--labels", labels, "--model", model, "-o",
                     tmp_path / "out", "--device", "cpu", "--precision", "fp32"]  # fmt: skip
        status = main(["evaluate", *(str(a) for a in (*arguments, *options))])
        captured = capsys.readouterr()
        return status, captured.out, captured.err, tmp_path / "out"

    return call


class TestCommand:
    def test_writes_tables_and_figures(self, evaluate):
        status, out, _, folder = evaluate("--prompt", "box", "--slices", 1)
        assert status == 0
        assert {p.name for p in folder.iterdir()} == {
            "cases.csv", "summary.json", "dice_by_label.png", "worst.png"}  # fmt: skip
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["dice"]["n"] == 2
        assert "label 1: Dice" in out

    def test_negatives_shifted_labels_and_ignored_voxels(self, evaluate, cohort, tmp_path):
        labels = tmp_path / "labels"
        labels.mkdir()
        truth = discs(SHAPE, 2, dict.fromkeys(range(1, 4), (16, 18, 7))).astype(np.int16)
        truth[:12] = -1
        moved = np.diag([1.0, 1, 3, 1])
        moved[0, 3] = 0.5
        nib.save(nib.Nifti1Image(truth, moved), labels / "p0_seg.nii.gz")
        nib.save(nib.Nifti1Image(truth * 0, moved), labels / "p1_seg.nii.gz")
        status, _, err, _ = evaluate("--prompt", "box", labels=labels)
        assert status == 2
        assert "0.5 mm" in err
        assert "--trust-voxels" in err
        status, _, err, folder = evaluate("--prompt", "box", "--trust-voxels", labels=labels)
        assert status == 0
        assert "1 of 2 cases have no label and are negatives: p1" in err
        assert "label voxels are below 0: ignored" in err
        assert json.loads((folder / "summary.json").read_text())["dice"]["n"] == 1

    def test_json_is_the_summary(self, evaluate):
        status, out, _, folder = evaluate(
            "--prompt", "clicks", "--clicks", 2, "--slices", 1, "--json", "--no-figures"
        )
        assert status == 0
        summary = json.loads(out)
        assert summary == json.loads((folder / "summary.json").read_text())
        assert len(summary["dice_per_click"]) == 2

    def test_a_line_for_a_person_says_what_the_areas_are_of(self, evaluate):
        _, out, _, folder = evaluate("--clicks", 3, "--slices", 1, "--no-figures")
        summary = json.loads((folder / "summary.json").read_text())
        assert f"AUC of 2 {summary['dice_auc']:.3f}" in out
        assert f"mean {summary['dice_mean_of_clicks']:.3f}" in out

    def test_a_text_model_that_is_missing(self, evaluate, tmp_path):
        folder = tmp_path / "no_model"
        words = ("--prompt", "text", "--text", "spleen", "--text-model", folder)
        status, out, err, _ = evaluate(*words)
        assert (status, out) == (2, "")
        assert "no_model" in err

    def test_a_text_model_without_words(self, evaluate):
        status, _, err, _ = evaluate("--prompt", "box", "--text-model", "x")
        assert status == 2
        assert "--prompt text" in err

    def test_a_corrector_without_clicks_that_ask_for_it(self, evaluate):
        status, _, err, _ = evaluate("--prompt", "clicks", "--corrector", "auto")
        assert status == 2
        assert "--refine both" in err

    def test_3d_from_a_box_beside_baselines(self, evaluate):
        status, out, _, folder = evaluate(
            "--prompt", "clicks", "--dims", "3d", "--start", "box", "--clicks", 1, "--cases", "2-2",
            "--refine", "--against", "network", "graph_cut", "--no-figures",
        )  # fmt: skip
        assert status == 0
        summary = json.loads((folder / "summary.json").read_text())
        assert set(summary["against"]) == {"network", "graph_cut"}
        assert summary["over_propagation"]["n"] == 1
        assert summary["settings"]["refine"] == "graph_cut"
        assert "against network: Dice" in out

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--cases", "0"], "--cases is '0'"),
            (["--cases", "5-2"], "must not end before"),
            (["--label", "9"], "none of the 2 cases has label 9, present [1]"),
            (["--prompt", "text", "--text", "disc"], "knows its organ"),
            (["--prompt", "text"], "no words"),
            (["--prompt", "auto"], "knows its organ"),
            (["--jitter", "2"], "jitter is 2.0"),
            (["--against", "ellipse", "--dims", "3d"], "slices only"),
            (["--prompt", "magic"], "invalid choice"),
        ],
    )
    def test_bad_input_is_one_line(self, evaluate, options, said):
        status, out, err, folder = evaluate(*options)
        assert status == 2
        assert out == ""
        lines = [line for line in err.splitlines() if "licence" not in line]
        assert len(lines) == 1
        assert said in lines[0]
        assert not folder.exists()

    def test_missing_folder(self, evaluate, tmp_path):
        status, _, err, _ = evaluate(images=tmp_path / "absent")
        assert status == 2
        assert "no such folder" in err

    def test_without_matplotlib_the_tables_are_written(self, evaluate, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        status, _, err, folder = evaluate("--prompt", "box", "--slices", 1)
        assert status == 0
        assert "pip install" in err
        assert {p.name for p in folder.iterdir()} == {"cases.csv", "summary.json"}


class TestFunction:
    def test_is_the_module(self, cohort, tmp_path):
        report = ps.evaluate(segmenter(), *cohort, "box", slices=1, out=tmp_path)
        import promptseg.evaluate

        again = promptseg.evaluate(segmenter(), *cohort, "box", slices=1)
        assert isinstance(report, Report)
        assert [r["dice"] for r in report.rows] == [r["dice"] for r in again.rows]
        assert (tmp_path / "cases.csv").is_file()

    def test_cases_in_a_range(self, cohort):
        report = ps.evaluate(segmenter(), *cohort, "box", slices=1, cases=(2, 2))
        assert [row["case"] for row in report.rows] == ["p1"]

    def test_faults_come_before_any_work(self, cohort, tmp_path):
        (tmp_path / "labels").mkdir()
        with pytest.raises(FormatError, match="2 faults"):
            ps.evaluate(segmenter(), cohort[0], tmp_path / "labels", "box")
