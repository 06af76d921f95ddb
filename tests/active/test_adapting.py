import argparse
import json
import shutil

import pytest
from active_kit import write_place

from promptseg.active.adapting import ANNOTATED, BOTH, PSEUDO, STAGES, Job, best_stage, config_from
from promptseg.adapters import read_adapter
from promptseg.commands.adapt import _say
from promptseg.commands.cli import main
from promptseg.errors import FormatError

SHORT = ["--steps", "1", "--batch", "1", "--device", "cpu", "--precision", "fp32", "--seed", "3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = write_place(tmp_path_factory.mktemp("adapt"))
    (root / "chosen.txt").write_text("case0\ncase1\n")
    few = root / "few"
    few.mkdir()
    for name in ("case0", "case1", "case3"):
        shutil.copy(root / "labels" / f"{name}.nii.gz", few)
    return root


def job(place, out, *more: str) -> list[str]:
    return [
        "adapt",
        "--images",
        str(place / "images"),
        "--annotated",
        str(place / "chosen.txt"),
        "--labels",
        str(place / "few"),
        "--adapter",
        str(place / "source"),
        "--model",
        str(place / "tiny.safetensors"),
        "-o",
        str(out),
        *SHORT,
        *more,
    ]


@pytest.fixture(scope="module")
def adapted(place):
    out = place / "adapted"
    assert main(job(place, out)) == 0
    return out


class TestAdapt:
    def test_report(self, adapted):
        report = json.loads((adapted / "adapt.json").read_text())
        assert report["annotated"] == ["case0", "case1"]
        assert report["measured"] == ["case3"]
        assert set(report["pseudo_labelled"]) | set(report["nothing_found"]) == {"case2"}
        assert {"before", "annotated"} <= set(report["dice"])
        assert 0 <= report["dice"]["before"] <= 1
        stage = {"annotated": ANNOTATED, "both": BOTH}[report["written"]]
        written = (adapted / STAGES / stage / "heads.safetensors").read_bytes()
        assert (adapted / "heads.safetensors").read_bytes() == written

    @pytest.mark.parametrize(
        ("dice", "written", "said"),
        [({"before": 0.8, "annotated": 0.7, "both": 0.6}, "annotated", "source site measured"),
         ({"before": 0.5, "annotated": 0.7, "both": 0.6}, "annotated", "which measured better"),
         ({"annotated": None, "both": None}, "both", "written")],
    )  # fmt: skip
    def test_what_is_said(self, dice, written, said, capsys):
        lists = dict.fromkeys(("annotated", "pseudo_labelled", "measured"), ())
        told = argparse.Namespace(json=False, output="out")
        _say(told, {"dice": dice, "written": written, **lists})
        assert said in capsys.readouterr().out

    def test_adapter_can_be_used(self, adapted):
        adapter = read_adapter(adapted)
        assert adapter.name == "adapted"
        assert adapter.info.labels == {1: "disc"}

    def test_started_at_the_source(self, place, adapted):
        first = read_adapter(adapted / STAGES / ANNOTATED)
        source = read_adapter(place / "source")
        moved = max(float((first.lora[k] - v).abs().max()) for k, v in source.lora.items())
        assert 0 < moved < 0.01

    def test_resumes_to_the_same(self, place, adapted):
        before = (adapted / "heads.safetensors").read_bytes()
        shutil.rmtree(adapted / STAGES / BOTH, ignore_errors=True)
        assert main(job(place, adapted, "--resume")) == 0
        assert (adapted / "heads.safetensors").read_bytes() == before

    def test_without_resume_nothing_is_overwritten(self, place, adapted, capsys):
        assert main(job(place, adapted)) == 2
        assert "--resume" in capsys.readouterr().err

    def test_pseudo_labels_are_kept_by_adapter(self, adapted):
        first = read_adapter(adapted / STAGES / ANNOTATED)
        folder = adapted / STAGES / PSEUDO / first.digest[:12]
        assert [path.name for path in folder.iterdir()] == ["case2.nii.gz"]


class TestBestStage:
    @pytest.mark.parametrize(
        ("means", "kept"),
        [({"before": 0.9, "annotated": 0.8, "both": 0.7}, "annotated"),
         ({"annotated": 0.7, "both": 0.8}, "both"),
         ({"annotated": 0.8, "both": 0.8}, "both"),
         ({"annotated": None, "both": None}, "both"),
         ({"annotated": 0.0, "both": 0.0}, "both")],
    )  # fmt: skip
    def test_the_better_one_is_written(self, means, kept):
        assert best_stage(means, ["annotated", "both"]) == kept

    def test_a_single_stage_is_written_whatever_it_measures(self):
        assert best_stage({"before": 0.9, "annotated": 0.1}, ["annotated"]) == "annotated"


class TestSplit:
    def build(self, place, chosen, labels):
        images = {f"case{n}": place / "images" / f"case{n}.nii.gz" for n in range(8)}
        known = {name: place / "labels" / f"{name}.nii.gz" for name in labels}
        config = config_from(None, organ="disc")
        return Job(images, known, chosen, None, config, place / "out")

    def test_labels_that_were_not_chosen_are_measured_on(self, place):
        found = self.build(place, ["case0"], ["case0", "case5"]).split()
        assert found[:2] == (["case0"], ["case5"])
        assert "case5" not in found[2]

    def test_without_them_every_fifth_is_set_aside(self, place):
        names = [f"case{n}" for n in range(6)]
        learned, measured, rest = self.build(place, names, names).split()
        assert measured == ["case4"]
        assert "case4" not in learned
        assert rest == ["case6", "case7"]

    def test_annotated_case_without_labels(self, place):
        with pytest.raises(FormatError, match="case1"):
            self.build(place, ["case0", "case1"], ["case0"]).split()


class TestConfig:
    def test_shape_is_the_source_s(self, place):
        source = read_adapter(place / "source")
        config = config_from(source, seed=4)
        assert (config.rank, config.alpha, config.seed) == (2, 4.0, 4)
        assert config.label_names == {1: "disc"}

    @pytest.mark.parametrize(
        ("more", "words"),
        [(["--objective", "best"], "objective"), (["--rank", "5"], "rank and targets")],
    )
    def test_bad_input(self, place, tmp_path, capsys, more, words):
        assert main(job(place, tmp_path / "out", *more)) == 2
        assert words in capsys.readouterr().err
