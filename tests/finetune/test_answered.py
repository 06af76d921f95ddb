"""Strokes that the network answers before it learns."""

import numpy as np
import pytest
import torch
from adapter_kit import config, random_adapter
from stroke_kit import IGNORE, stroke_cohort, strokes_on
from support import bright_volume, dice, discs, segmenter, tiny_default

from promptseg.adapters import read_adapter
from promptseg.datasets.cohort import Case
from promptseg.finetune import answered as room
from promptseg.finetune.answered import answer, strokes_of
from promptseg.finetune.config import fitting_objective
from promptseg.finetune.data import Sources, split_cases
from promptseg.finetune.processes import start_processes
from promptseg.finetune.running import plan_adapter, train_adapter
from promptseg.finetune.strokes import NOT_ANNOTATED
from promptseg.volume import read

LABELS = {1: "disc"}
ROD = discs((40, 44, 12), 2, dict.fromkeys(range(2, 10), (20, 20, 6)))


def drawn_on(slices):
    """A bright rod with a short stroke in it on some slices, and one beside it."""
    known = np.full(ROD.shape, NOT_ANNOTATED, np.int32)
    for index in slices:
        if ROD[..., index].any():
            known[18:22, 20, index] = 1
        known[4:8, 4, index] = 0
    return Case("rod", bright_volume(ROD), known)


def train(folder, strokes=None, **options):
    images, drawn, labels = stroke_cohort()
    chosen = config(objective="prompted", ignore=IGNORE, validation_slices=0, final_slices=0,
                    **options)  # fmt: skip
    return train_adapter(chosen, images, labels, folder, scribbles=strokes or drawn,
                         backbone=tiny_default())  # fmt: skip


class TestObjectiveOfStrokes:
    @pytest.mark.parametrize(
        ("given", "objective"),
        [
            ({}, "prompted"),
            ({"backbone": "default"}, "prompted"),
            ({"backbone": "sam_b"}, "scribble"),
            ({"unlabelled": "more"}, "scribble"),
            ({"objective": "pce"}, "pce"),
        ],
    )
    def test_the_default_model_answers_them(self, given, objective):
        assert fitting_objective({"scribbles": "drawn", **given})["objective"] == objective


class TestStrokesOf:
    def test_strokes_of_one_label_are_outside_of_the_others(self):
        known = np.full((4, 4, 2), NOT_ANNOTATED)
        known[0, 0, 0], known[1, 1, 0], known[3, 3, 1] = 0, 1, 2
        found = {(p.target, p.positive): p.voxels.tolist() for p in strokes_of(known, [1, 2])}
        assert found == {
            (1, True): [[1, 1, 0]],
            (1, False): [[0, 0, 0], [3, 3, 1]],
            (2, True): [[3, 3, 1]],
            (2, False): [[0, 0, 0], [1, 1, 0]],
        }

    def test_a_label_without_a_stroke_is_not_asked_for(self):
        known = np.full((4, 4, 2), NOT_ANNOTATED)
        known[0, 0, 0], known[1, 1, 0] = 0, 1
        assert {p.target for p in strokes_of(known, [1, 2])} == {1}


class TestAnswer:
    @pytest.mark.parametrize("slices", [range(12), (5,)], ids=["every slice", "one slice"])
    def test_the_whole_target_is_found(self, slices):
        found = answer(segmenter(), drawn_on(slices), LABELS, config())
        assert dice(found.data == 1, ROD) > 0.95

    def test_each_slice_stays_by_itself_where_all_are_drawn_on(self):
        case = drawn_on(range(12))
        case.labels[..., 6][case.labels[..., 6] == 1] = 0
        found = answer(segmenter(), case, LABELS, config()).data
        assert found[..., 5].any()
        assert not found[..., 6].any()

    def test_strokes_stay_as_they_were_drawn(self):
        case = drawn_on(range(12))
        case.labels[20, 30, 5], case.labels[20, 18, 5] = 1, 0
        found = answer(segmenter(), case, LABELS, config()).data
        assert found[20, 30, 5] == 1
        assert found[20, 18, 5] == 0


class TestTraining:
    def test_folder_says_so(self, tmp_path):
        train(tmp_path / "a")
        info = read_adapter(tmp_path / "a").info
        assert (info.objective, info.annotation) == ("prompted", "scribbles")
        assert (
            "only scribbles were known (objective prompted)"
            in (tmp_path / "a" / "README.md").read_text()
        )
        kept = sorted((tmp_path / "a" / "training" / "answered").iterdir())
        assert len(kept) == len(info.training_cases)
        images, drawn, _ = stroke_cohort()
        held = read(kept[0])
        assert held.shape == images[0].shape
        assert (np.asarray(held.data)[drawn[0].data == 1] == 1).all()

    def test_the_same_strokes_are_answered_once_and_others_anew(self, tmp_path, monkeypatch):
        train(tmp_path / "a")
        asked = []
        real = room.answer
        monkeypatch.setattr(room, "answer", lambda *a: asked.append(a[1].name) or real(*a))
        (tmp_path / "a" / "training" / "last.pt").unlink()
        (tmp_path / "a" / "promptseg.json").unlink()
        train(tmp_path / "a")
        assert asked == []
        (tmp_path / "a" / "training" / "last.pt").unlink()
        (tmp_path / "a" / "promptseg.json").unlink()
        _, drawn, labels = stroke_cohort()
        other = strokes_on(labels[0])
        other.data[other.data == 1] = np.where(np.arange((other.data == 1).sum()) % 2, 1, IGNORE)
        train(tmp_path / "a", [other, *drawn[1:]])
        assert len(asked) == 1

    def test_another_window_is_answered_anew(self, tmp_path):
        images, drawn, _ = stroke_cohort()
        names = set()
        for window in ("auto", "lung"):
            chosen = config(objective="prompted", ignore=IGNORE, window=window)
            split = split_cases(Sources(images, None, drawn), chosen)
            alone = start_processes("cpu")
            found = room.answered(split, tiny_default(), chosen, alone, tmp_path)
            names |= {pair.label.name for pair in found.training}
        assert len(names) == 2 * len(split.training)

    def test_plan_answers_nothing(self, monkeypatch):
        monkeypatch.setattr(room, "answer", None)
        images, drawn, _ = stroke_cohort()
        chosen = config(objective="prompted", ignore=IGNORE)
        plan = plan_adapter(chosen, images, None, tiny_default(), scribbles=drawn)
        assert plan.annotation == "scribbles"
        assert any("answered first" in note for note in plan.notes)

    def test_an_adapter_to_go_on_from_answers(self, tmp_path, monkeypatch):
        images, drawn, _ = stroke_cohort()
        chosen = config(objective="prompted", ignore=IGNORE)
        split = split_cases(Sources(images, None, drawn), chosen)
        backbone = tiny_default()
        before = {name: p.detach().clone() for name, p in backbone.module.named_parameters()}
        start, _ = random_adapter(backbone)
        asked = []
        real = room.answer
        monkeypatch.setattr(
            room, "answer", lambda one, *a: asked.append(one.adapters.active) or real(one, *a)
        )
        alone = start_processes("cpu")
        for adapter in (None, start):
            room.answered(split, backbone, chosen, alone, tmp_path, adapter)
        cases = len(split.training)
        assert asked == [None] * cases + [start] * cases
        after = dict(backbone.module.named_parameters())
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
