"""Strokes from files: label images, masks, pictures and vertices."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import promptseg as ps
from promptseg.errors import FormatError, PromptError
from promptseg.prompts.types import PromptSet, Scribble
from promptseg.volume import Volume

AFFINE = np.diag([1.5, 1.5, 10.0, 1.0])
VOLUME = Volume(np.zeros((8, 9, 4), np.uint8), AFFINE)
FLAT = Volume(np.zeros((6, 7, 1), np.uint8), np.eye(4))


def image_file(tmp_path, values, affine=AFFINE):
    path = tmp_path / "strokes.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def drawn(scribble):
    return {tuple(voxel) for voxel in scribble.voxels.tolist()}


class TestLabelFiles:
    def test_one_value_is_a_stroke_of_the_given_target(self, tmp_path):
        values = np.zeros(VOLUME.shape, np.uint8)
        values[2, 3:6, 1] = 9
        path = image_file(tmp_path, values)
        (inside,) = Scribble.from_file(path, VOLUME, target=2)
        (outside,) = Scribble.from_file(path, VOLUME, positive=False, target=5)
        assert (inside.positive, inside.target) == (True, 2)
        assert (outside.positive, outside.target) == (False, 5)
        assert drawn(inside) == drawn(outside) == {(2, 3, 1), (2, 4, 1), (2, 5, 1)}

    def test_each_of_several_labels_is_inside_its_own_target_and_outside_the_others(self, tmp_path):
        values = np.zeros(VOLUME.shape, np.uint8)
        values[1, 1, 1], values[6, 6, 2] = 1, 3
        found = Scribble.from_file(image_file(tmp_path, values), VOLUME)
        assert [(s.target, s.positive, drawn(s)) for s in found] == [
            (1, True, {(1, 1, 1)}),
            (1, False, {(6, 6, 2)}),
            (3, True, {(6, 6, 2)}),
            (3, False, {(1, 1, 1)}),
        ]

    def test_with_a_blank_value_zero_is_drawn_background(self, tmp_path):
        values = np.full(VOLUME.shape, 4, np.uint8)
        values[1, 1, 1], values[0, 0, 0] = 2, 0
        found = Scribble.from_file(image_file(tmp_path, values), VOLUME, blank=4)
        assert [(s.target, s.positive, drawn(s)) for s in found] == [
            (2, True, {(1, 1, 1)}),
            (2, False, {(0, 0, 0)}),
        ]

    @pytest.mark.parametrize(
        ("values", "options", "words"),
        [
            ({}, {}, "no stroke"),
            ({1: 1, 2: 2}, {"positive": False}, "one non-zero value"),
            ({1: 0.5, 2: 1.5}, {}, "whole numbers"),
            ({1: -1, 2: 2}, {}, "whole numbers"),
        ],
    )
    def test_refused(self, tmp_path, values, options, words):
        data = np.zeros(VOLUME.shape, np.float32)
        for row, value in values.items():
            data[row, 0, 0] = value
        with pytest.raises(PromptError, match=words):
            Scribble.from_file(image_file(tmp_path, data), VOLUME, **options)

    def test_another_grid_is_refused(self, tmp_path):
        with pytest.raises(PromptError, match="shape"):
            Scribble.from_file(image_file(tmp_path, np.ones((2, 2, 2), np.uint8)), VOLUME)
        moved = AFFINE.copy()
        moved[0, 3] = 7
        with pytest.raises(PromptError, match="elsewhere"):
            Scribble.from_file(image_file(tmp_path, np.ones(VOLUME.shape, np.uint8), moved), VOLUME)


class TestPictures:
    def test_a_picture_of_the_only_slice(self, tmp_path):
        values = np.zeros((6, 7), np.uint8)
        values[2, 5] = 255
        Image.fromarray(values).save(tmp_path / "s.png")
        (stroke,) = Scribble.from_file(tmp_path / "s.png", FLAT)
        assert drawn(stroke) == {(2, 5, 0)}

    def test_does_not_fit_a_volume(self, tmp_path):
        Image.fromarray(np.ones((6, 7), np.uint8)).save(tmp_path / "s.png")
        with pytest.raises(PromptError, match="one slice"):
            Scribble.from_file(tmp_path / "s.png", VOLUME)

    def test_no_picture(self, tmp_path):
        (tmp_path / "s.png").write_text("hello")
        with pytest.raises(FormatError, match="cannot be read"):
            Scribble.from_file(tmp_path / "s.png", FLAT)


class TestVertices:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("s.csv", "i,j,k\n1,1,2\n1,4,2\n"),
            ("s.txt", "1, 1, 2\n1, 4, 2"),
            ("s.json", "[[1, 1, 2], [1, 4, 2]]"),
            ("s.json", "[[[1, 1, 2], [1, 4, 2]]]"),
        ],
    )
    def test_are_joined(self, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        (stroke,) = Scribble.from_file(tmp_path / name, VOLUME, target=3)
        assert stroke.target == 3
        assert drawn(stroke) == {(1, j, 2) for j in (1, 2, 3, 4)}

    def test_an_empty_line_starts_another_stroke(self, tmp_path):
        (tmp_path / "s.csv").write_text("1,1,2\n\n6,7,3\n")
        assert [drawn(s) for s in Scribble.from_file(tmp_path / "s.csv", VOLUME)] == [
            {(1, 1, 2)},
            {(6, 7, 3)},
        ]

    def test_millimetres(self, tmp_path):
        (tmp_path / "s.json").write_text(json.dumps([[1.5, 3.0, 20.0]]))
        strokes = Scribble.from_file(tmp_path / "s.json", VOLUME, frame="ras")
        assert drawn(PromptSet(strokes).to_voxel(VOLUME)[0]) == {(1, 2, 2)}

    @pytest.mark.parametrize("text", ["a,b\nc,d,e", "1,2,x", "[1", "{}", ""])
    @pytest.mark.parametrize("suffix", [".csv", ".json"])
    def test_nonsense_is_a_prompt_error(self, tmp_path, text, suffix):
        (tmp_path / f"s{suffix}").write_text(text)
        with pytest.raises(PromptError):
            Scribble.from_file(tmp_path / f"s{suffix}", VOLUME)

    def test_missing(self, tmp_path):
        with pytest.raises(FormatError, match="cannot be read"):
            Scribble.from_file(tmp_path / "s.csv", VOLUME)


class TestHumanStrokes:
    def test_acdc(self, shared_data):
        name = sorted((shared_data / "acdc" / "scribbles").glob("*.nii.gz"))[0].name
        volume = ps.read(shared_data / "acdc" / "images" / name)
        truth = np.asarray(nib.load(shared_data / "acdc" / "labels" / name).dataobj)
        path = shared_data / "acdc" / "scribbles" / name
        strokes = PromptSet(Scribble.from_file(path, volume, blank=4)).to_voxel(volume)
        assert strokes.targets == (1, 2, 3)
        for stroke in strokes:
            assert isinstance(stroke, Scribble)
            hit = (truth[tuple(stroke.voxels.T)] == stroke.target).mean()
            assert hit > 0.9 if stroke.positive else hit < 0.1

    def test_medscribble(self, shared_data):
        folders = sorted(p for p in (shared_data / "medscribble").iterdir() if p.is_dir())
        hits: dict[bool, list[float]] = {True: [], False: []}
        for folder in folders:
            mask = np.array(Image.open(folder / "mask.png")) > 0
            volume = Volume(mask[..., None].astype(np.uint8), np.eye(4))
            for path in sorted(folder.glob("scribble_*.png")):
                positive = "positive" in path.name
                (stroke,) = Scribble.from_file(path, volume, positive)
                assert stroke.positive == positive
                hits[positive].append(mask[tuple(stroke.voxels[:, :2].T)].mean())
        assert len(hits[True]) == len(hits[False]) == 3 * len(folders)
        assert np.median(hits[True]) > 0.9
        assert np.median(hits[False]) < 0.1
