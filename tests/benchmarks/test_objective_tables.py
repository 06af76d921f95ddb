"""The scripts of the comparison tables: splits, recipes, one small line."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
from tiny_cohort import load_benchmark

from promptseg.volume import Volume, write

pytest.importorskip("monai")


@pytest.fixture(scope="module")
def scribbles():
    return load_benchmark("scribbles")


@pytest.fixture(scope="module")
def few():
    return load_benchmark("few_labels")


def options(tmp_path, **changed):
    plain = {"data": tmp_path, "out": tmp_path / "out", "network": "unet", "minutes": 1.0,
             "steps": 2, "batch": 2, "size": 32, "room": 1.0, "cases": None, "eval_cases": 1,
             "seed": 0, "device": "cpu", "labelled": 8, "on": "test",
             "optimiser": "muon"}  # fmt: skip
    return argparse.Namespace(**{**plain, **changed})


class TestSplits:
    def test_patients_of_acdc_are_apart(self, scribbles):
        split = json.loads(scribbles.SPLIT.read_text())
        groups = [{name[:10] for name in split[part]} for part in ("train", "test")]
        assert [len(split[part]) for part in ("train", "test")] == [140, 20]
        assert [len(group) for group in groups] == [70, 10]
        assert not groups[0] & groups[1]

    def test_left_atria_have_one_role(self, few):
        split = json.loads(few.SPLIT.read_text())
        roles = [split[part] for part in ("labelled", "unlabelled", "test")]
        assert [len(role) for role in roles] == [16, 40, 12]
        assert len({name for role in roles for name in role}) == 68

    def test_eight_are_the_first_of_sixteen(self, few, tmp_path):
        names = [path.name for path in few.files(options(tmp_path), "labelled")]
        every = few.files(options(tmp_path, labelled=16), "labelled")
        assert names == [path.name for path in every[:8]]


class TestRecipes:
    def test_the_upper_bound_sees_no_scribble(self, scribbles, tmp_path):
        given = scribbles.sources(options(tmp_path), "full")
        assert given.scribbles is None
        assert given.labels is not None
        recipe = scribbles.config(options(tmp_path), "full")
        assert (recipe.objective, recipe.ignore) == ("supervised", None)

    def test_methods_learn_strokes_alone(self, scribbles, tmp_path):
        for method in scribbles.METHODS[:-1]:
            given = scribbles.sources(options(tmp_path), method)
            assert given.labels is None
            assert scribbles.config(options(tmp_path), method).objective == method

    def test_development_cases_are_not_those_reported(self, few, tmp_path):
        learned, chosen, reported = (
            few.files(options(tmp_path, eval_cases=12, on=on), role)
            for role, on in (("labelled", "test"), ("test", "development"), ("test", "test"))
        )
        assert len(set(chosen)) == 12
        assert not set(chosen) & {*learned, *reported}

    def test_supervised_sees_no_unlabelled_case(self, few, tmp_path):
        assert few.sources(options(tmp_path), "supervised").unlabelled is None
        assert len(few.sources(options(tmp_path), "semi").unlabelled) == 40


def test_a_line_of_the_unet(scribbles, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    names = {"train": ["a", "b"], "test": ["c"]}
    for name in ("a", "b", "c"):
        truth = np.zeros((24, 24, 3), np.uint8)
        for label in (1, 2, 3):
            truth[4 * label : 4 * label + 4, 6:16] = label
        drawn = np.full_like(truth, 4)
        drawn[::2] = truth[::2]
        image = (truth * 50 + rng.normal(20, 5, truth.shape)).astype(np.float32)
        affine = np.diag([1.5, 1.5, 10.0, 1.0])
        for kind, data in (("images", image), ("labels", truth), ("scribbles", drawn)):
            (tmp_path / kind).mkdir(exist_ok=True)
            write(Volume(data, affine), tmp_path / kind / f"{name}.nii.gz")
    (tmp_path / "split.json").write_text(json.dumps(names))
    monkeypatch.setattr(scribbles, "SPLIT", tmp_path / "split.json")
    line = scribbles.unet_line(options(tmp_path), "scribble")
    assert (line["steps"], line["n"]) == (2, 1)
    assert set(line["labels"]) == {"1", "2", "3"}
    assert 0 <= line["dice"] <= 1
    assert (tmp_path / "out" / "unet_scribble.pt").is_file()
