import json
import time

import numpy as np
import pytest
from filelock import FileLock
from loop_kit import dies_at, place_and_project, reopened, truth
from support import segmenter

from promptseg.active.loop.making import status
from promptseg.active.loop.project import Project
from promptseg.active.loop.showing import show_next
from promptseg.active.loop.training import DIFFERENCE_SD, LOCK, no_worse, train
from promptseg.adapters import read_adapter
from promptseg.backbones import load_backbone
from promptseg.commands.cli import main
from promptseg.errors import FormatError
from promptseg.volume import read

SHORT = {"steps": 1, "batch": 1, "device": "cpu", "precision": "fp32", "half": 0.0}


@pytest.fixture
def folder(tmp_path):
    return place_and_project(tmp_path, held_every=2)


def with_accepted(folder, count: int) -> Project:
    project = Project(folder, "ann")
    for n in range(count):
        project.accept(f"case{n}", truth(folder, f"case{n}"))
    return project


class TestNext:
    def test_shows_a_prediction_and_where_to_look(self, folder):
        project = Project(folder, "ann")
        base = load_backbone(project.store.setting("model"))
        shown = show_next(project, segmenter(base))
        assert (shown.name, shown.version) == ("case0", 0)
        assert read(shown.mask).shape == project.volume("case0").shape
        assert 0 <= shown.effort <= 100
        done = project.accept("case0", truth(folder, "case0"))
        assert 0 <= done.revision <= 100

    def test_is_not_predicted_twice(self, folder):
        project = Project(folder, "ann")
        base = load_backbone(project.store.setting("model"))
        first = show_next(project, segmenter(base))
        before = (folder / "predictions" / "0000" / "case0.nii.gz").stat().st_mtime_ns
        assert show_next(project, segmenter(base)) == first
        assert (folder / "predictions" / "0000" / "case0.nii.gz").stat().st_mtime_ns == before

    def test_killed_while_predicting(self, folder):
        base = load_backbone(Project(folder, "ann").store.setting("model"))

        def work() -> None:
            show_next(Project(folder, "ann"), segmenter(base))

        died = [dies_at(step, work) for step in (3, 9, 14)]
        assert any(died)
        shown = show_next(reopened(folder), segmenter(base))
        assert shown.name == "case0"
        assert read(shown.mask).data.ndim == 3

    def test_strategy_decides_the_order(self, tmp_path):
        folder = place_and_project(tmp_path, order="random")
        project = Project(folder, "ann")
        show_next(project, segmenter(load_backbone(project.store.setting("model"))))
        places = [row["priority"] for row in project.store.run("SELECT priority FROM cases")]
        assert sorted(places) == [0, 1, 2, 3]


class TestTrain:
    def test_new_version_is_measured_and_recorded(self, folder):
        project = with_accepted(folder, 3)
        version = train(project, **SHORT)
        assert (version.number, version.cases) == (1, 2)
        assert version.dice is not None
        assert version.before is not None
        assert project.current == (1 if version.kept else 0)
        assert read_adapter(project.version_folder(1)).info.training_cases == ("case0", "case2")

    def test_worse_version_is_not_used(self, folder, monkeypatch):
        project = with_accepted(folder, 2)
        scores = iter([0.4, 0.6])
        monkeypatch.setattr("promptseg.active.loop.training._mean_dice", lambda *_: next(scores))
        version = train(project, **SHORT)
        assert not version.kept
        assert project.current == 0
        assert project.version_folder(1).is_dir()

    def test_one_that_is_worse_by_less_than_chance_is_used(self, folder, monkeypatch):
        project = with_accepted(folder, 2)
        scores = iter([0.6 - DIFFERENCE_SD / 2, 0.6])
        monkeypatch.setattr("promptseg.active.loop.training._mean_dice", lambda *_: next(scores))
        assert train(project, **SHORT).kept
        assert project.current == 1

    def test_the_more_cases_say_so_the_less_is_chance(self):
        kept = [no_worse(0.6 - DIFFERENCE_SD / 2, 0.6, count) for count in (1, 3, 5, 16)]
        assert kept == [True, True, False, False]

    @pytest.mark.parametrize("before", [None, 0.9])
    def test_without_a_held_back_case_it_is_used(self, before):
        assert no_worse(None, before, 0)

    def test_nothing_new(self, folder):
        project = with_accepted(folder, 1)
        train(project, **SHORT)
        assert train(project, **SHORT) is None

    def test_nothing_accepted(self, folder):
        with pytest.raises(FormatError, match="accept some first"):
            train(Project(folder, "ann"), **SHORT)

    def test_one_at_a_time(self, folder):
        project = with_accepted(folder, 1)
        with FileLock(folder / LOCK), pytest.raises(FormatError, match="is running"):
            train(project, **SHORT)

    def test_first_version_from_nothing(self, tmp_path):
        folder = place_and_project(tmp_path, adapter=False)
        project = with_accepted(folder, 1)
        version = train(project, **SHORT, rank=2)
        assert version.kept
        assert project.adapter().info.organ == "disc"

    def test_killed_anywhere_it_comes_to_the_same(self, folder):
        project = with_accepted(folder, 1)
        project.store.close()
        base = load_backbone(Project(folder, "ann").store.setting("model"))

        def work() -> None:
            train(Project(folder, "ann"), backbone=base, **SHORT)

        step, deaths = 4, 0
        while dies_at(step, work):
            deaths += 1
            found = status(reopened(folder))
            assert len(found["versions"]) + len(found["unfinished"]) <= 2
            assert len(found["accepted"]) == 1
            # Later steps are farther apart: a training is one step long.
            step += 3
            assert deaths < 30
        assert deaths >= 2
        found = status(reopened(folder))
        assert [row["number"] for row in found["versions"]] == [0, 1]
        assert found["unfinished"] == []
        assert read_adapter(folder / "versions" / "0001").info.training_cases == ("case0",)

    def test_interrupted_training_keeps_its_cases(self, folder):
        project = with_accepted(folder, 1)
        base = load_backbone(project.store.setting("model"))

        def work() -> None:
            train(Project(folder, "ann"), backbone=base, **SHORT)

        project.store.close()
        step, again = 5, reopened(folder)
        while not again.unfinished:
            again.store.close()
            assert dies_at(step, work)
            step, again = step + 1, reopened(folder)
        again.accept("case2", truth(folder, "case2"))
        version = train(again, backbone=base, **SHORT)
        assert version.cases == 1


class TestRevert:
    def test_earlier_version_is_used_again(self, folder):
        project = with_accepted(folder, 1)
        train(project, **SHORT)
        project.revert(0)
        assert project.current == 0
        assert project.version_folder(1).is_dir()
        last = project.store.run("SELECT * FROM events ORDER BY id DESC LIMIT 1")[0]
        assert (last["what"], last["who"]) == ("revert", "ann")

    def test_unknown_version(self, folder):
        with pytest.raises(FormatError, match="no version 7"):
            Project(folder, "ann").revert(7)


class TestCommand:
    def test_a_whole_turn(self, folder, capsys):
        place = folder.parent
        loop = place / "second"
        options = ["--images", str(place / "images"), "--organ", "disc", "--hold", "2"]
        model = ["--model", str(place / "tiny.safetensors"), "--adapter", str(place / "source")]
        assert main(["loop", "init", str(loop), *options, *model]) == 0
        for n in range(2):
            assert main(["loop", "next", str(loop), "--device", "cpu", "--json"]) == 0
            shown = json.loads(capsys.readouterr().out.splitlines()[-1])
            assert shown["name"] == f"case{n}"
            mask = str(place / "labels" / f"case{n}.nii.gz")
            assert main(["loop", "accept", str(loop), shown["name"], mask]) == 0
        steps = ["--steps", "1", "--batch", "1", "--device", "cpu", "--precision", "fp32"]
        assert main(["loop", "train", str(loop), *steps]) == 0
        assert "version 1 of 1 cases" in capsys.readouterr().out
        assert main(["loop", "reject", str(loop), "case2", "--reason", "motion"]) == 0
        assert main(["loop", "revert", str(loop), "0"]) == 0
        assert main(["loop", "status", str(loop), "--json", "--cases"]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["cases"] == {"new": 1, "open": 0, "accepted": 2, "rejected": 1}
        assert told["current"] == 0
        assert len(told["versions"]) == 2

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["status", "NOWHERE"], "no loop project"),
            (["accept", "LOOP", "case9", "x.nii.gz"], "no case 'case9'"),
            (["accept", "LOOP", "case0", "x.nii.gz"], "no such file"),
            (["revert", "LOOP", "5"], "no version 5"),
        ],
    )
    def test_bad_input(self, folder, capsys, arguments, words):
        given = [str(folder) if word == "LOOP" else word for word in arguments]
        assert main(["loop", *given]) == 2
        assert words in capsys.readouterr().err


def test_times_are_recorded_in_order(folder):
    project = with_accepted(folder, 2)
    times = [row["at"] for row in project.store.run("SELECT at FROM events ORDER BY id")]
    assert times == sorted(times)
    assert np.all(np.array(times) <= time.time())
