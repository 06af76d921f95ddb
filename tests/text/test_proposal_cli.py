"""An image-text model on the command line; both models have random weights."""

import json

import pytest
from adapter_kit import write_cohort
from clip_kit import save_plain_folder
from support import tiny_network

from promptseg.backbones.default import save_default
from promptseg.commands.cli import main


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr("promptseg.text.selecting.list_adapters", dict)
    save_default(tiny_network(), tmp_path / "tiny.safetensors", {})
    save_plain_folder(tmp_path / "clip")
    write_cohort(tmp_path, 1)
    image = str(tmp_path / "images" / "case0.nii.gz")
    model = ["--model", str(tmp_path / "tiny.safetensors"), "--device", "cpu"]
    return ["segment", image, *model, "--text", "liver", "-o", str(tmp_path / "mask.nii.gz")]


def test_the_image_text_model_is_asked_and_the_manifest_says_so(job, tmp_path, capsys):
    report = tmp_path / "run.json"
    clip = str(tmp_path / "clip")
    assert main([*job, "--text-model", clip, "--report", str(report)]) == 0
    manifest = json.loads(report.read_text())
    assert manifest["settings"]["text_model"] == clip
    (told,) = manifest["result"]["report"]["text"]
    assert (told["adapter"], told["text_model"], told["words"]) == (None, clip, "liver")
    assert len(told["sha256"]) == 64
    said = capsys.readouterr().out
    assert ("by the image-text model" if told["found"] else "'liver' was not found") in said
    assert main(["rerun", str(report), "-o", str(tmp_path / "again.nii.gz")]) == 0
    assert "same mask" in capsys.readouterr().out


def test_a_missing_image_text_model_is_named_in_one_line(job, tmp_path, capsys):
    assert main([*job, "--text-model", f"local-dir:{tmp_path / 'gone'}"]) == 2
    assert "gone" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "mask.nii.gz").exists()
