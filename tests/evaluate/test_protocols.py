from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from evaluation_cases import SHAPE, case_of, two_discs
from scipy import ndimage
from support import segmenter

from promptseg.datasets.strokes import check_strokes, label_strokes, read_strokes
from promptseg.errors import FormatError, PromptError, VolumeError
from promptseg.evaluate.playing import answered_label, play
from promptseg.evaluate.protocols import first_prompts
from promptseg.evaluate.running import run
from promptseg.evaluate.settings import PROTOCOLS, Settings
from promptseg.evaluate.tasks import slice_tasks, volume_task
from promptseg.prompts.types import Box, MarginPoints, Point, Scribble
from promptseg.volume import Segmentation, write

FLAT = Settings(protocol="box", axis=2)
DEEP = Settings(protocol="box", dims="3d", axis=2)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tasks_of(settings: Settings, label: int = 1):
    return slice_tasks(volume_task(case_of(two_discs()), label, settings), settings)


class TestTasks:
    def test_a_slice_keeps_its_neighbours_window_and_place(self):
        case = case_of(two_discs())
        whole = volume_task(case, 1, FLAT)
        for task in slice_tasks(whole, FLAT):
            assert task.volume.shape[2] == 3
            assert np.array_equal(task.target, case.labels[..., task.place] == 1)
            assert task.window == whole.window
            corner = task.volume.to_world(np.array([[0, 0, task.index]]))
            assert np.allclose(corner, case.volume.to_world(np.array([[0, 0, task.place]])))

    def test_small_slices_are_left_out_but_never_all(self):
        areas = [int(t.target.sum()) for t in tasks_of(Settings(axis=2, least_pixels=100))]
        assert len(areas) == 3
        assert min(areas) >= 100
        assert len(tasks_of(Settings(axis=2, least_pixels=10_000))) == 1

    def test_sampled_slices_follow_the_seed(self):
        places = [
            [t.place for t in tasks_of(Settings(axis=2, slices=2, seed=s))] for s in (0, 0, 1, 2, 3)
        ]
        assert places[0] == places[1]
        assert len({tuple(p) for p in places}) > 1
        assert all(len(p) == 2 and p[0] < p[1] for p in places)

    def test_seeds_differ_by_slice_and_label(self):
        seeds = [t.seed for label in (1, 2) for t in tasks_of(FLAT, label)]
        assert len(set(seeds)) == len(seeds)


class TestFirstPrompts:
    def test_box_without_jitter_is_tight(self):
        task = tasks_of(FLAT)[0]
        (box,) = first_prompts(task, Settings(protocol="box", jitter=0.0), rng())
        inside = np.argwhere(task.target)
        assert isinstance(box, Box)
        assert [box.lo[a] for a in (0, 1)] == inside.min(0).tolist()
        assert [box.hi[a] - 1 for a in (0, 1)] == inside.max(0).tolist()
        assert (box.lo[2], box.hi[2]) == (task.index, task.index + 1)

    def test_box_jitter_stays_within_its_share(self):
        task = tasks_of(FLAT)[2]
        inside = np.argwhere(task.target)
        low, high = inside.min(0), inside.max(0) + 1
        moves = []
        for seed in range(60):
            (box,) = first_prompts(task, Settings(protocol="box", jitter=0.2), rng(seed))
            assert isinstance(box, Box)
            edges = np.array([box.lo[:2], box.hi[:2]]) - [low, high]
            moves.append(edges)
            assert (np.abs(edges) <= 0.2 * (high - low) + 0.5).all()
        assert np.ptp(moves, axis=0).min() >= 2

    def test_box_of_a_volume_lies_on_the_largest_slice(self):
        task = volume_task(case_of(two_discs()), 1, DEEP)
        (box,) = first_prompts(task, DEEP, rng())
        assert isinstance(box, Box)
        assert (box.lo[2], box.hi[2]) == (3, 4)

    def test_point_is_the_centre(self):
        task = tasks_of(FLAT)[2]
        (point,) = first_prompts(task, Settings(protocol="point"), rng())
        assert isinstance(point, Point)
        assert point.at == (14, 14, task.index)

    @pytest.mark.parametrize("dims", ["2d", "3d"])
    def test_margin_points_lie_just_inside(self, dims):
        settings = Settings(protocol="margin", dims=dims, axis=2)
        whole = volume_task(case_of(two_discs()), 1, settings)
        task = whole if dims == "3d" else slice_tasks(whole, settings)[2]
        (margin,) = first_prompts(task, settings, rng())
        assert isinstance(margin, MarginPoints)
        depth = ndimage.distance_transform_edt(np.pad(task.target, 1))
        assert 3 <= len(margin.points) <= 2 * task.target.ndim
        for point in margin.points:
            at = [v for a, v in enumerate(point) if dims == "3d" or a != 2]
            assert 0 < depth[tuple(np.add(at, 1))] <= 2.5

    def test_a_target_too_small_for_margin_points_gets_clicks(self):
        labels = np.zeros((12, 12, 3), np.uint8)
        labels[4:6, 7, 1] = 1
        settings = Settings(protocol="margin", axis=2, least_pixels=1)
        (task,) = slice_tasks(volume_task(case_of(labels), 1, settings), settings)
        clicks = first_prompts(task, settings, rng())
        assert {p.at for p in clicks if isinstance(p, Point)} == {(4, 7, 1), (5, 7, 1)}

    @pytest.mark.parametrize("dims", ["2d", "3d"])
    def test_scribbles_stay_on_their_side(self, dims):
        settings = Settings(protocol="scribble", dims=dims, axis=2)
        whole = volume_task(case_of(two_discs()), 1, settings)
        task = whole if dims == "3d" else slice_tasks(whole, settings)[1]
        for seed in range(20):
            strokes = first_prompts(task, settings, rng(seed))
            assert [s.positive for s in strokes if isinstance(s, Scribble)] == [True, False]
            for stroke in strokes:
                assert isinstance(stroke, Scribble)
                hit = task.truth[tuple(stroke.voxels.T)]
                assert hit.all() if stroke.positive else not hit.any()

    def test_text_needs_words(self):
        with pytest.raises(PromptError, match="no words"):
            first_prompts(tasks_of(FLAT)[0], Settings(protocol="text"), rng())


class TestPlay:
    def two_parts(self):
        """One label of two discs on every slice: each click finds one."""
        return case_of((two_discs() > 0).astype(np.uint8))

    def test_clicks_correct_the_largest_error(self):
        settings = Settings(axis=2, clicks=3)
        whole = volume_task(self.two_parts(), 1, settings)
        played = play(segmenter(), slice_tasks(whole, settings)[2], settings)
        assert len(played.prompts) == 2
        assert len(played.masks) == len(played.seconds) == 2
        assert (played.masks[0] & ~played.masks[1]).sum() == 0
        error = (played.masks[1] != played.task.target).mean()
        assert error < 0.01

    def test_a_slice_is_answered_as_within_its_volume(self):
        settings = Settings(protocol="box", axis=2)
        case = self.two_parts()
        played = play(
            segmenter(), slice_tasks(volume_task(case, 1, settings), settings)[2], settings
        )
        (box,) = played.prompts
        assert isinstance(box, Box)
        place = played.task.place
        assert place is not None
        moved = Box((*box.lo[:2], place), (*box.hi[:2], place + 1))  # type: ignore[arg-type]
        result = segmenter().segment(case.volume, [moved], axis=2, propagate=False)
        assert np.array_equal(result.data[..., place] > 0, played.masks[0])

    def test_3d_propagates_from_one_box(self):
        settings = Settings(protocol="box", dims="3d", axis=2)
        played = play(segmenter(), volume_task(case_of(two_discs()), 1, settings), settings)
        truth = played.task.truth
        assert len(played.prompts) == 1
        assert 2 * (played.masks[0] & truth).sum() / (played.masks[0].sum() + truth.sum()) > 0.9

    def test_click_zero_is_the_start(self):
        settings = Settings(axis=2, clicks=2, start="box", label=1)
        (row,) = run(segmenter(), [self.two_parts()], settings).rows
        assert [k for k in row if k.startswith("dice_click_")] == [
            "dice_click_0", "dice_click_1", "dice_click_2"]  # fmt: skip


class TestRun:
    @pytest.mark.parametrize("protocol", [p for p in PROTOCOLS if p not in ("text", "auto")])
    def test_repeats_exactly(self, protocol):
        settings = Settings(protocol=protocol, axis=2, clicks=2, slices=2, seed=3)
        rows = [run(segmenter(), [case_of(two_discs())], settings).rows for _ in range(2)]
        for row in (*rows[0], *rows[1]):
            del row["seconds"], row["seconds_per_click"]
        assert rows[0] == rows[1]
        assert [row["label"] for row in rows[0]] == [1, 2]
        assert all(row["n_slices"] == 2 for row in rows[0])

    def test_other_cases_do_not_change_a_row(self):
        settings = Settings(protocol="scribble", axis=2, slices=1)
        one, two = case_of(two_discs(), "a"), case_of(two_discs(2), "b")
        alone = run(segmenter(), [two], settings).rows
        beside = run(segmenter(), [one, two], settings).rows[2:]
        assert [r["dice"] for r in alone] == [r["dice"] for r in beside]

    @pytest.mark.parametrize("protocol", ["text", "auto"])
    def test_protocols_without_places_need_an_organ(self, protocol):
        settings = Settings(protocol=protocol, label=1, text="disc", axis=2)
        with pytest.raises(PromptError, match=f"protocol {protocol} needs a model that knows"):
            run(segmenter(), [case_of(two_discs())], settings)

    def test_words_name_one_label(self):
        with pytest.raises(PromptError, match=r"labels \[1, 2\]"):
            run(segmenter(), [case_of(two_discs())], Settings(protocol="text", text="disc"))

    def test_progress_counts_cases(self):
        seen = []
        settings = Settings(protocol="box", axis=2, slices=1)
        cases = [case_of(two_discs(n), f"c{n}") for n in range(2)]
        run(segmenter(), cases, settings, 2, lambda *now: seen.append(now))
        assert seen == [("evaluate", 1, 2), ("evaluate", 2, 2)]


class TestOrgan:
    """Protocols without places, on a model that finds its organ by itself."""

    def answering(self, labels: np.ndarray, target: int):
        real = segmenter()

        class Knowing:
            backbone, device, precision, organ = real.backbone, real.device, "fp32", "disc"
            asked: ClassVar[list] = []

            def segment(self, volume, prompts, axis, window):
                self.asked.append([p.words for p in prompts])
                data = np.where(labels == 1, target, 0)
                return Segmentation.from_volume(volume, data, score={target: 0.9})

        return Knowing()

    @pytest.mark.parametrize("dims", ["2d", "3d"])
    @pytest.mark.parametrize(("protocol", "target"), [("text", 1), ("auto", 1), ("auto", 5)])
    def test_is_scored_against_its_label(self, protocol, target, dims):
        case = case_of(two_discs())
        model = self.answering(case.labels, target)
        settings = Settings(protocol=protocol, dims=dims, label=1, axis=2)
        (row,) = run(model, [case], settings).rows
        assert row["dice"] == 1
        assert model.asked[-1] == (["disc"] if protocol == "text" else [])

    def test_another_label_among_several_is_refused(self):
        result = Segmentation(np.array([[[2, 3]]]), np.eye(4))
        assert answered_label(result, 3) == 3
        with pytest.raises(PromptError, match=r"label 1 is none of the model's labels \[2, 3\]"):
            answered_label(result, 1)


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"protocol": "magic"}, "protocol is 'magic'"),
            ({"dims": "4d"}, "dims"),
            ({"clicks": 0}, "clicks is 0"),
            ({"slices": 0}, "slices is 0"),
            ({"jitter": 0.7}, "jitter is 0.7"),
            ({"against": ("nothing",)}, "against is 'nothing'"),
            ({"against": ("ellipse",), "dims": "3d"}, "slices only"),
            ({"against": ("network",)}, "refine"),
            ({"refine": "graph_cut"}, "dims 3d"),
            ({"protocol": "auto", "against": ("ellipse",)}, "gives none"),
        ],
    )
    def test_what_cannot_work_is_refused(self, options, named):
        with pytest.raises(PromptError, match=named):
            Settings(**options)


class TestHumanScribbles:
    def test_a_foreign_value_marks_what_nobody_drew_on(self):
        labels = np.array([[[0, 1, 2, 2]]])
        inside, outside = label_strokes(np.array([[[0, 1, 2, 4]]]), labels, 2)
        assert inside.tolist() == [[[False, False, True, False]]]
        assert outside.tolist() == [[[True, True, False, False]]]

    def test_without_one_zero_is_not_drawn_on(self):
        labels = np.array([[[0, 1, 2, 2]]])
        inside, outside = label_strokes(np.array([[[0, 1, 2, 0]]]), labels, 2)
        assert inside.tolist() == [[[False, False, True, False]]]
        assert outside.tolist() == [[[False, True, False, False]]]

    def drawn(self, folder, label: int = 1):
        strokes = np.full(SHAPE, 4, np.uint8)
        strokes[12:17, 14, 3], strokes[26, 30:38, 3] = 1, 2
        strokes[35, 2:20, 3] = 0
        write(Segmentation(strokes, np.diag([1.0, 1, 3, 1])), folder / "one.nii.gz")
        settings = Settings(protocol="scribble", axis=2, scribbles=folder, label=label)
        return settings, case_of(two_discs())

    def test_choose_the_slice_and_become_prompts(self, tmp_path):
        settings, case = self.drawn(tmp_path)
        (strokes,) = read_strokes(tmp_path, case, 1)
        (task,) = slice_tasks(volume_task(case, 1, settings, strokes), settings)
        assert task.place == 3
        prompts = first_prompts(task, settings, rng())
        sizes = Counter({p.positive: len(p.voxels) for p in prompts if isinstance(p, Scribble)})
        assert sizes == {True: 5, False: 8 + 18}

    def test_give_rows(self, tmp_path):
        settings, case = self.drawn(tmp_path)
        (row,) = run(segmenter(), [case], settings).rows
        assert row["dice"] > 0.9
        assert row["prompts"] == 2

    def test_people_give_one_trial_each(self, tmp_path):
        from PIL import Image

        labels = two_discs()[..., 3:4]
        case = case_of(labels)
        (tmp_path / "one").mkdir()
        for person in range(3):
            for side, label in (("positive", 1), ("negative", 2)):
                stroke = (labels[..., 0] == label).astype(np.uint8) * 255
                Image.fromarray(stroke).save(tmp_path / "one" / f"s{person}_{side}.png")
        settings = Settings(protocol="scribble", axis=2, scribbles=tmp_path, label=1)
        (row,) = run(segmenter(), [case], settings).rows
        assert row["n_slices"] == 3

    def test_every_fault_is_found_before_anything_runs(self, tmp_path):
        _, case = self.drawn(tmp_path)
        labels = case.labels.copy()
        labels[0, 0, 0] = 3
        cases = [case_of(labels), case_of(labels, "other")]
        with pytest.raises(FormatError, match=r"4 faults .*one: the scribbles.*label 3; other"):
            check_strokes(tmp_path, cases, None)
        check_strokes(tmp_path, cases[:1], 2)

    def test_missing_and_unusable_files(self, tmp_path):
        _, case = self.drawn(tmp_path)
        with pytest.raises(FormatError, match="other has no scribbles"):
            read_strokes(tmp_path, case_of(two_discs(), "other"), 1)
        with pytest.raises(VolumeError, match="no stroke inside label 3"):
            read_strokes(tmp_path, case, 3)
