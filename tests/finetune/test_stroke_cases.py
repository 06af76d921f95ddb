"""Strokes as annotations: read, checked, and never taken for more than they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapter_kit import config
from stroke_kit import IGNORE, further, stroke_cohort, write_strokes
from support import tiny_default

from promptseg.errors import FormatError, VolumeError
from promptseg.finetune.case_loading import training_cases, unlabelled_cases
from promptseg.finetune.data import Sources, split_cases
from promptseg.finetune.organ_case import UNKNOWN, carried, grown
from promptseg.finetune.strokes import BACKGROUND, NOT_ANNOTATED, drawn, open_strokes
from promptseg.finetune.views import ViewMaker
from promptseg.prompts.types import Box, Point, PromptSet, Scribble
from promptseg.volume import Volume, write


def stroke_config(**options):
    return config(**{"objective": "scribble", "ignore": IGNORE, **options})


def changed(folder, name, values):
    """A stroke file with some values replaced."""
    from promptseg.volume import read

    path = folder / f"{name}.nii.gz"
    known = read(path)
    data = np.array(known.data)
    for old, new in values.items():
        data[data == old] = new
    write(Volume(data, known.affine), path)


class TestFiles:
    def test_ignored_voxels_are_not_annotated(self, tmp_path):
        images, scribbles, _ = write_strokes(tmp_path)
        pair = open_strokes(images, scribbles, [1], IGNORE)[0]
        labels = pair.load().labels
        assert set(np.unique(labels)) == {NOT_ANNOTATED, BACKGROUND, 1}
        assert (labels == NOT_ANNOTATED).mean() > 0.6

    def test_no_stroke_of_a_label(self, tmp_path):
        images, scribbles, _ = write_strokes(tmp_path)
        changed(scribbles, "case1", {1: IGNORE})
        with pytest.raises(VolumeError, match="case1"):
            open_strokes(images, scribbles, [1], IGNORE)

    def test_no_stroke_of_one_of_two_labels(self, tmp_path):
        images, scribbles, _ = write_strokes(tmp_path)
        changed(scribbles, "case1", {1: 2})
        with pytest.raises(VolumeError, match="case1: no stroke of label 1"):
            open_strokes(images, scribbles, [1], IGNORE)

    def test_no_background_stroke(self, tmp_path):
        images, scribbles, _ = write_strokes(tmp_path)
        changed(scribbles, "case2", {0: IGNORE})
        with pytest.raises(VolumeError, match="case2: no stroke on the background"):
            open_strokes(images, scribbles, [1], IGNORE)

    def test_ignore_is_a_label(self, tmp_path):
        images, scribbles, _ = write_strokes(tmp_path)
        with pytest.raises(FormatError, match="ignore is 1, which is also a label"):
            open_strokes(images, scribbles, [1], 1)

    def test_ignore_is_another_value(self, tmp_path):
        """1 is ignored and what nobody drew on would be learned as label 4."""
        images, scribbles, _ = write_strokes(tmp_path)
        with pytest.raises(VolumeError, match="have the value 4: is that the one"):
            open_strokes(images, scribbles, [], 1)

    @pytest.mark.parametrize("ignore", [None, 9])
    def test_no_ignore_value(self, tmp_path, ignore):
        images, scribbles, _ = write_strokes(tmp_path)
        with pytest.raises(FormatError, match=r"as ignore: no .*; the file has 0, 1, 4"):
            open_strokes(images, scribbles, [1], ignore)

    def test_every_fault_is_listed(self, tmp_path):
        images, scribbles, _ = write_strokes(tmp_path)
        changed(scribbles, "case0", {0: IGNORE})
        changed(scribbles, "case2", {0: IGNORE})
        with pytest.raises(VolumeError, match=r"(?s)2 faults.*case0.*case2"):
            open_strokes(images, scribbles, [1], IGNORE)


class TestPromptFiles:
    volume = Volume(np.zeros((6, 6, 2), np.int16), np.eye(4))

    def test_one_target(self):
        prompts = PromptSet([
            Scribble(np.array([[1, 1, 0], [1, 2, 0]])),
            Scribble(np.array([[4, 4, 0]]), positive=False),
            Point((2, 2, 1)),
            Box((0, 0, 0), (6, 6, 1)),
        ])  # fmt: skip
        labels = drawn(prompts, self.volume)
        assert labels[1, 1, 0] == labels[1, 2, 0] == labels[2, 2, 1] == 1
        assert labels[4, 4, 0] == BACKGROUND
        assert (labels == NOT_ANNOTATED).sum() == labels.size - 4

    def test_outside_one_of_two_targets_is_not_background(self):
        """It may be the other target, which nobody said."""
        prompts = PromptSet([
            Scribble(np.array([[1, 1, 0]]), target=1),
            Scribble(np.array([[3, 3, 0]]), target=2),
            Scribble(np.array([[4, 4, 0], [5, 5, 0]]), positive=False, target=1),
            Scribble(np.array([[5, 5, 0]]), positive=False, target=2),
            Scribble(np.array([[3, 3, 0]]), positive=False, target=1),
        ])  # fmt: skip
        labels = drawn(prompts, self.volume)
        assert labels[3, 3, 0] == 2
        assert labels[4, 4, 0] == NOT_ANNOTATED
        assert labels[5, 5, 0] == BACKGROUND

    def test_a_folder_of_them(self, tmp_path):
        images, _, _ = write_strokes(tmp_path, 2)
        for number in range(2):
            (tmp_path / "drawn").mkdir(exist_ok=True)
            PromptSet([
                Scribble(np.array([[20, 20, 2], [20, 21, 2]])),
                Scribble(np.array([[1, 1, 2]]), positive=False),
            ]).save(tmp_path / "drawn" / f"case{number}.json")  # fmt: skip
        pairs = open_strokes(images, tmp_path / "drawn", [1], None)
        assert [pair.name for pair in pairs] == ["case0", "case1"]
        assert pairs[0].load().labels[20, 21, 2] == 1

    def test_an_image_without_one(self, tmp_path):
        images, _, _ = write_strokes(tmp_path, 2)
        (tmp_path / "drawn").mkdir()
        PromptSet([Point((20, 20, 2))]).save(tmp_path / "drawn" / "case0.json")
        with pytest.raises(FormatError, match="case1 has no prompt file"):
            open_strokes(images, tmp_path / "drawn", [1], None)


class TestSplit:
    def test_labels_are_of_validation_cases_alone(self, tmp_path):
        images, scribbles, labels = write_strokes(tmp_path, 4)
        split = split_cases(
            Sources(images, labels, scribbles), stroke_config(cases="1-3", validation_cases="4-4")
        )
        assert split.strokes
        assert [pair.name for pair in split.training] == ["case0", "case1", "case2"]
        assert [pair.name for pair in split.validation] == ["case3"]
        assert IGNORE not in split.validation[0].load().labels

    def test_nothing_is_set_aside_without_labels(self, tmp_path):
        images, scribbles, _ = write_strokes(tmp_path)
        split = split_cases(Sources(images, None, scribbles), stroke_config())
        assert len(split.training) == 3
        assert not split.validation

    def test_ignore_is_a_validation_label(self, tmp_path):
        images, scribbles, labels = write_strokes(tmp_path)
        changed(labels, "case2", {1: IGNORE})
        with pytest.raises(VolumeError, match="case2: its labels hold 4"):
            split_cases(
                Sources(images, labels, scribbles),
                stroke_config(cases="1-2", validation_cases="3-3"),
            )

    @pytest.mark.parametrize(
        ("objective", "given", "told"),
        [
            ("supervised", "scribbles", "needs whole labels"),
            ("semi", "scribbles", "needs whole labels"),
            ("scribble", "labels", "learns from scribbles"),
            ("semi", "labels", "learns from unlabelled images too"),
        ],
    )
    def test_objective_and_data_must_fit(self, objective, given, told):
        images, strokes, labels = stroke_cohort()
        sources = (
            Sources(images, None, strokes) if given == "scribbles" else Sources(images, labels)
        )
        chosen = config(objective=objective, ignore=IGNORE if given == "scribbles" else None)
        with pytest.raises(FormatError, match=told):
            split_cases(sources, chosen)

    def test_ignore_without_scribbles(self):
        images, _, labels = stroke_cohort()
        with pytest.raises(FormatError, match="ignore is a value of scribbles"):
            split_cases(Sources(images, labels), config(ignore=4))

    def test_neither_labels_nor_scribbles(self):
        images, _, _ = stroke_cohort()
        with pytest.raises(FormatError, match="both missing"):
            split_cases(Sources(images), config())


class TestViews:
    def views(self, **options):
        images, strokes, _ = stroke_cohort()
        chosen = stroke_config(**options)
        split = split_cases(Sources(images, None, strokes), chosen)
        cases = training_cases(split, chosen)
        return cases, ViewMaker(cases, 1, tiny_default().spec, chosen, strokes=True)

    def test_masks_lie_within_what_is_known(self):
        cases, views = self.views()
        assert (cases[0].labels == UNKNOWN).any()
        for number in range(6):
            view = views[number]
            assert view.known is not None
            # Both are interpolated, each with its own rounding.
            assert (view.masks.sum(0) <= view.known + 0.02).all()
            assert not view.masks[:, view.known == 0].any()
            assert float(view.known.mean()) < 0.5

    def test_prompts_lie_on_strokes(self):
        """Beside a stroke may still be the target: no click or stroke outside may be there."""
        _, views = self.views(prompts=4)
        seen = {"click": 0, "stroke": 0}
        for number in range(16):
            view = views[number]
            large = torch.nn.functional.interpolate(view.masks[None], size=(view.size,) * 2)[0, 0]
            for prompt in view.prompts:
                assert prompt.box is None
                assert prompt.mask is None
                if prompt.scribbles is not None:
                    assert not (prompt.scribbles[0].bool() & (large == 0)).any()
                    assert not (prompt.scribbles[1].bool() & (large > 0.75)).any()
                    seen["stroke"] += 1
                for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
                    assert (large[int(y), int(x)] > 0) == bool(label)
                    seen["click"] += 1
        assert min(seen.values()) > 3

    def test_nothing_is_known_outside_the_image(self):
        """Whole views of a turned slice have corners beyond it."""
        _, views = self.views(whole=1.0)
        known = torch.stack([views[n].known for n in range(8)])
        assert not known.amax(0).all()

    def test_boxes_have_room_for_the_target(self):
        box = np.array([10, 20, 30, 40], np.float32)
        assert grown(box, 1.5).tolist() == [5, 15, 35, 45]

    def test_random_walker_grows_them_once(self):
        images, strokes, labels = stroke_cohort()
        chosen = stroke_config(objective="random_walker")
        cases = training_cases(split_cases(Sources(images, None, strokes), chosen), chosen)
        found = np.moveaxis(cases[0].labels, 0, 2)
        truth = labels[0].data
        assert (found == 1).sum() > 5 * (strokes[0].data == 1).sum()
        assert truth[found == 1].mean() > 0.95


class TestUnlabelledViews:
    def test_every_second_view(self):
        images, _, labels = stroke_cohort()
        chosen = config(objective="semi")
        split = split_cases(Sources(images, labels, unlabelled=further()), chosen)
        cases, blank = training_cases(split, chosen), unlabelled_cases(split, chosen)
        views = ViewMaker(cases, 1, tiny_default().spec, chosen, unlabelled=blank)
        drawn_views = [views[n] for n in range(6)]
        assert [view.labelled for view in drawn_views] == [True, False] * 3
        assert views.boost == 2
        assert not drawn_views[1].masks.any()
        assert not drawn_views[1].prompts
        assert drawn_views[0].levels is not None
        assert drawn_views[0].levels.shape == drawn_views[0].masks.shape
        inside = drawn_views[0].masks > 0.99
        assert (drawn_views[0].levels[inside] < 0).all()
        assert all(view.image.std() > 0 for view in drawn_views)

    def test_a_box_is_carried_in_proportion(self):
        box = np.array([10, 20, 30, 40], np.float32)
        body, other = (
            np.array([0, 0, 100, 100], np.float32),
            np.array([50, 0, 100, 200], np.float32),
        )
        assert carried(box, body, other).tolist() == [55, 40, 65, 80]
