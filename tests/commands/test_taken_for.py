"""What `promptseg segment` says that it took an image for, and where this is written down."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image as Pictures
from support import tiny_network

from promptseg.commands.cli import main
from promptseg.datasets.phantom import abdomen_phantom
from promptseg.volume import read, write

BOX = ["--box", "30,15,8,42,28,9", "--no-propagate"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_network().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "ct.nii.gz"
    write(abdomen_phantom(shape=(60, 45, 16), spacing=(6.0, 6.0, 15.0))[0], path)
    return path


class TestLines:
    def test_two_lines_say_it_and_the_report_keeps_it(self, image, model, tmp_path, capsys):
        out, report = tmp_path / "m.nii.gz", tmp_path / "r.json"
        arguments = ["segment", image, "-o", out, *BOX, "--model", model, "--report", report]
        assert main([str(argument) for argument in arguments]) == 0
        first, second, *_ = capsys.readouterr().out.splitlines()
        assert first.startswith("image: CT (guessed, quite sure: air near -1000")
        assert first.endswith("window soft_tissue (-160 to 240), stored LPS, spacing 6 x 6 x 15 mm")
        assert second == f"model: {model}, no adapter, slices along axis 2"
        written = json.loads(report.read_text())
        assert written["input"]["modality"] == "CT"
        assert written["input"]["modality_belief"] == "sure"
        assert written["input"]["orientation"] == "LPS"
        assert written["result"]["report"]["window"]["low"] == -160

    @pytest.mark.parametrize(("given", "told"), [("MR", "MR"), ("mri", "MR"), ("other", "other")])
    def test_the_user_knows_better_and_rerun_too(self, image, model, tmp_path, capsys, given, told):
        out, report = tmp_path / "m.nii.gz", tmp_path / "r.json"
        arguments = ["segment", image, "-o", out, *BOX, "--model", model, "--report", report]
        assert main([str(a) for a in arguments] + ["--modality", given]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first.startswith(f"image: {told} (sure, by --modality), window percentile")
        assert json.loads(report.read_text())["settings"]["modality"] == told
        assert main(["rerun", str(report)]) == 0
        assert capsys.readouterr().out == "same mask\n"

    def test_another_modality_is_refused(self, image, tmp_path, capsys):
        arguments = ["segment", image, "-o", tmp_path / "m.nii", *BOX, "--modality", "xray"]
        assert main([str(argument) for argument in arguments]) == 2
        assert "'xray' is none of CT, MR, other" in capsys.readouterr().err

    def test_a_picture_is_one_slice_and_its_mask_a_picture(self, model, tmp_path, capsys):
        pixels = np.random.default_rng(0).integers(5, 250, (48, 40)).astype(np.uint8)
        Pictures.fromarray(pixels).save(tmp_path / "in.png")
        out = tmp_path / "m.png"
        arguments = ["segment", tmp_path / "in.png", "-o", out, "--box", "10,10,0,30,30,1"]
        assert main([str(a) for a in (*arguments, "--model", model)]) == 0
        said = capsys.readouterr()
        assert said.out.startswith("image: MR (guessed, not sure: values of a picture")
        assert "; say --modality" in said.out
        assert "a picture has no spacing" in said.err
        assert read(out).shape == (48, 40, 1)

    def test_bad_voxels_are_background_with_one_line(self, image, model, tmp_path, capsys):
        held = nib.load(image)
        data = held.get_fdata().astype(np.float32)
        data[0, :5, 0] = np.nan
        nib.save(nib.Nifti1Image(data, held.affine), tmp_path / "in.nii.gz")
        report = tmp_path / "r.json"
        arguments = ["segment", tmp_path / "in.nii.gz", "-o", tmp_path / "m.nii.gz", *BOX]
        assert main([str(a) for a in (*arguments, "--model", model, "--report", report)]) == 0
        line = "5 of 43200 voxels are NaN or infinite: taken as background"
        assert capsys.readouterr().err.count(line) == 1
        assert line in json.loads(report.read_text())["notes"]
