"""Words on the command line, with a tiny model file and an adapter installed beside it."""

import csv
import json

import pytest
from adapter_kit import write_cohort
from support import tiny_network
from text_kit import tiny_tower, worded_adapter, words_for

from promptseg.adapters import write_adapter
from promptseg.backbones import load_backbone
from promptseg.backbones.default import save_default
from promptseg.commands.cli import main
from promptseg.text import selecting
from promptseg.text import tower as towers


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(towers, "load_tower", lambda path=None: tiny_tower())
    monkeypatch.setattr(selecting, "load_tower", lambda path=None: tiny_tower())
    monkeypatch.setenv("PROMPTSEG_ADAPTERS", str(tmp_path / "adapters"))
    save_default(tiny_network(), tmp_path / "tiny.safetensors", {})
    write_cohort(tmp_path, 1)
    backbone = load_backbone(tmp_path / "tiny.safetensors")
    for name, label, present in (("atrium", "left atrium", 20.0), ("spleens", "spleen", -20.0)):
        labels = {1: label}
        adapter = worded_adapter(backbone, labels, name, present, words_for(labels), axis="auto")
        write_adapter(adapter, tmp_path / "adapters" / name)
    return tmp_path


def job(place, *more: str) -> list[str]:
    model = ["--model", str(place / "tiny.safetensors"), "--device", "cpu"]
    image = str(place / "images" / "case0.nii.gz")
    return ["segment", image, *model, "-o", str(place / "mask.nii.gz"), *more]


def test_words_select_the_adapter_and_say_so(place, capsys):
    assert main(job(place, "--text", "左心房", "--report", str(place / "run.json"))) == 0
    assert "taken as left atrium, by the adapter atrium" in capsys.readouterr().out
    result = json.loads((place / "run.json").read_text())["result"]
    (told,) = result["report"]["text"]
    assert (told["adapter"], told["found"], told["words"]) == ("atrium", True, "左心房")
    assert {"left atrium", "spleen"} <= set(result["report"]["vocabulary"])
    assert result["targets"]["1"]["voxels"] > 0
    again = place / "again.nii.gz"
    assert main(["rerun", str(place / "run.json"), "-o", str(again)]) == 0
    assert again.exists()


def test_absent_is_said(place, capsys):
    assert main(job(place, "--text", "spleen")) == 0
    said = capsys.readouterr()
    assert "judged absent from this volume by the adapter spleens" in said.out
    assert "warning: target 1: 'spleen' (spleen) was judged absent" in said.err
    assert "0.0 ml" not in said.out


def test_an_absent_organ_adds_no_target_beside_others(place, capsys):
    report = ["--report", str(place / "run.json")]
    assert main(job(place, "--text", "left atrium", "--text", "spleen", *report)) == 0
    said = capsys.readouterr()
    assert "warning: target 2: 'spleen' (spleen) was judged absent" in said.err
    assert "target 2: 0 voxels" not in said.out
    assert set(json.loads((place / "run.json").read_text())["result"]["targets"]) == {"1"}


def test_two_names_of_one_thing_are_one_target(place, capsys):
    assert main(job(place, "--text", "left atrium", "--text", "左心房")) == 0
    said = capsys.readouterr()
    assert "'左心房' means the same as 'left atrium': nothing was added" in said.out
    assert "target 2" not in said.out + said.err


def test_refused_in_one_line(place, capsys):
    assert main(job(place, "--text", "optic nerve")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "'optic nerve' is known" in error
    assert "left atrium" in error
    assert not (place / "mask.nii.gz").exists()


def test_vocabulary_of_adapters(place, capsys):
    assert main(["adapters", "list"]) == 0
    shown = capsys.readouterr().out
    assert "--text left atrium, atrium, LA, left atrial cavity" in shown
    assert main(["adapters", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["adapters"]}
    assert "左心房" in rows["atrium"]["words"]["1"]


@pytest.mark.parametrize("words", [[], ["--text", "左房"]])
def test_evaluate(place, words, capsys):
    data = ["--images", str(place / "images"), "--labels", str(place / "labels")]
    model = ["--model", str(place / "tiny.safetensors"), "--device", "cpu", "--adapter", "atrium"]
    out = place / "scores"
    more = ["--prompt", "text", "--dims", "3d", "--no-figures", "-o", str(out), *words]
    assert main(["evaluate", *data, *model, *more]) == 0
    (row,) = csv.DictReader((out / "cases.csv").open())
    auto = ["--prompt", "auto", "--dims", "3d", "--no-figures", "-o", str(place / "auto")]
    assert main(["evaluate", *data, *model, *auto]) == 0
    (plain,) = csv.DictReader((place / "auto" / "cases.csv").open())
    assert row["dice"] == plain["dice"]
