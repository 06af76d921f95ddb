"""Adapters from strokes and with unlabelled images, from data to folder."""

from __future__ import annotations

import json

import pytest
from adapter_kit import cohort, config, state_of, unchanged
from stroke_kit import IGNORE, further, stroke_cohort, write_strokes
from support import tiny_default, tiny_network, tiny_sam

from promptseg.adapters import read_adapter
from promptseg.backbones.default import save_default
from promptseg.commands.cli import main
from promptseg.finetune import finetune
from promptseg.finetune.lora import make_learner
from promptseg.finetune.running import plan_adapter, train_adapter
from promptseg.finetune.trainer import Trainer

SHORT = ["--steps", "2", "--batch", "2", "--rank", "2", "--device", "cpu", "--precision", "fp32"]


class Killed(Exception):
    """Stands for a kill at any moment."""


def semi(folder, objective="semi", resume=False):
    chosen = config(objective=objective, checkpoint_steps=2, steps=5)
    images, labels = cohort()
    return train_adapter(chosen, images, labels, folder, unlabelled=further(),
                         backbone=tiny_default(), resume=resume)  # fmt: skip


@pytest.fixture(scope="module")
def scribbled(tmp_path_factory):
    out = tmp_path_factory.mktemp("strokes") / "disc"
    images, strokes, labels = stroke_cohort()
    backbone = tiny_default()
    before = state_of(backbone)
    chosen = config(objective="scribble", ignore=IGNORE, validation_slices=2, final_slices=1,
                    validate_every=2, dense=1.0)  # fmt: skip
    adapter = train_adapter(chosen, images, labels, out, scribbles=strokes, backbone=backbone)
    assert unchanged(backbone, before)
    return adapter, out


class TestFromStrokes:
    def test_folder_says_so(self, scribbled):
        _, out = scribbled
        info = read_adapter(out).info
        assert (info.objective, info.annotation) == ("scribble", "scribbles")
        assert info.sections == {}
        card = (out / "README.md").read_text()
        assert "2 cases, of which only scribbles were known (objective scribble)" in card
        assert 'objective = "scribble"' in (out / "recipe.toml").read_text()
        assert "ignore = 4" in (out / "recipe.toml").read_text()

    def test_branches_are_dropped(self, scribbled):
        adapter, _ = scribbled
        plain = make_learner(tiny_default(), config(), 1)
        assert adapter.deltas.keys() == plain.heads.keys()
        assert adapter.lora.keys() == plain.lora.keys()

    def test_whole_labels_of_validation_cases_are_measured(self, scribbled):
        adapter, out = scribbled
        assert set(adapter.info.scores) == {"box_2d", "auto_3d"}
        rows = [json.loads(r) for r in (out / "training" / "log.jsonl").read_text().splitlines()]
        assert any("box_dice" in row for row in rows)
        assert any({"strokes", "mutual", "prompt_strokes"} <= row.keys() for row in rows)

    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_plan(self, make):
        images, strokes, _ = stroke_cohort()
        chosen = config(objective="scribble", ignore=IGNORE)
        plan = plan_adapter(chosen, images, None, make(), scribbles=strokes)
        assert (plan.objective, plan.annotation) == ("scribble", "scribbles")
        assert plan.helpers > 0
        assert "scribble, from scribbles" in str(plan)

    def test_one_call(self, tmp_path):
        images, strokes, _ = stroke_cohort()
        adapter = finetune(images, None, "disc", tiny_default(), 2, scribbles=strokes, ignore=4,
                           out=tmp_path / "a", steps=1, batch=1, device="cpu", half=0.0,
                           validation_slices=0, final_slices=0)  # fmt: skip
        assert adapter.info.objective == "scribble"


class TestWithUnlabelled:
    def test_folder_says_so(self, tmp_path):
        adapter = semi(tmp_path / "a")
        assert adapter.info.objective == "semi"
        assert adapter.info.unlabelled_cases == ("case1", "case2")
        card = (tmp_path / "a" / "README.md").read_text()
        assert "2 cases and 2 unlabelled ones (objective semi)" in card
        assert "Unlabelled cases: case1, case2." in card

    @pytest.mark.parametrize("objective", ["semi", "mean_teacher"])
    def test_resumed_equals_uninterrupted(self, tmp_path, monkeypatch, objective):
        straight = semi(tmp_path / "a", objective)
        update = Trainer.update

        def dies(self, views):
            if self.step == 3:
                raise Killed
            return update(self, views)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "update", dies)
            with pytest.raises(Killed):
                semi(tmp_path / "b", objective)
        assert semi(tmp_path / "b", objective, resume=True).digest == straight.digest

    def test_objectives_differ(self, tmp_path):
        assert semi(tmp_path / "a").digest != semi(tmp_path / "b", "entropy").digest


class TestCommand:
    @pytest.fixture(scope="class")
    def place(self, tmp_path_factory):
        root = tmp_path_factory.mktemp("cli")
        save_default(tiny_network(), root / "tiny.safetensors", {})
        write_strokes(root)
        return root

    def job(self, place, *more):
        return ["finetune", "--organ", "disc", "--images", str(place / "images"), "--model",
                str(place / "tiny.safetensors"), *SHORT, *more]  # fmt: skip

    def test_scribbles(self, place, tmp_path, capsys):
        more = ["--scribbles", str(place / "scribbles"), "--ignore", "4"]
        assert main(self.job(place, *more, "-o", str(tmp_path / "a"))) == 0
        assert read_adapter(tmp_path / "a").info.objective == "scribble"
        assert "2 steps on 3 cases" in capsys.readouterr().out
        again = ["finetune", str(tmp_path / "a" / "recipe.toml"), "-o", str(tmp_path / "b")]
        assert main(again) == 0
        assert read_adapter(tmp_path / "b").digest == read_adapter(tmp_path / "a").digest

    def test_plan_with_unlabelled(self, place, capsys):
        labels = ["--labels", str(place / "labels"), "--cases", "1", "--validation-cases", "2-2"]
        more = ["--unlabelled", str(place / "images"), "--dry-run", "--json"]
        assert main(self.job(place, *labels, *more)) == 0
        plan = json.loads(capsys.readouterr().out)
        assert (plan["objective"], plan["unlabelled_cases"]) == ("semi", 1)

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (["--scribbles", "scribbles"], "value of the voxels that nobody drew on"),
            (["--scribbles", "scribbles", "--ignore", "1", "--label", "1"], "also a label"),
            (["--scribbles", "labels", "--ignore", "4"], "no voxel has it (4)"),
            (["--scribbles", "scribbles", "--ignore", "4", "--objective", "semi"], "whole labels"),
            (["--labels", "labels", "--objective", "semi"], "--unlabelled DIR"),
            (["--labels", "labels", "--objective", "dmpls"], "use supervised or scribble"),
            (["--labels", "labels", "--unlabelled", "nowhere"], "no such folder"),
            (["--labels", "labels", "--unlabelled", "images"], "no unlabelled image"),
            ([], "--scribbles DIR"),
        ],
    )
    def test_a_mistake_is_one_line(self, place, tmp_path, capsys, more, words):
        named = [str(place / part) if part in ("scribbles", "labels", "images", "nowhere") else part
                 for part in more]  # fmt: skip
        assert main(self.job(place, *named, "-o", str(tmp_path / "a"))) == 2
        told = capsys.readouterr().err.strip()
        assert words in told
        assert len(told.splitlines()) == 1
        assert not (tmp_path / "a").exists()
