import numpy as np
import pytest
from evaluation_cases import case_of, two_discs
from support import discs, segmenter

from promptseg.evaluate.baselines import (
    BASELINES,
    Scene,
    coarse_seeds,
    ellipse,
    grabcut,
    graph_cut,
    inscribed,
    walker,
    working_window,
)
from promptseg.evaluate.metrics import dice
from promptseg.evaluate.playing import scene_of
from promptseg.evaluate.running import run
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import slice_tasks, volume_task
from promptseg.prompts.types import Box, Point, Scribble


def disc_truth() -> np.ndarray:
    return discs((60, 70, 1), 2, {0: (28, 33, 12)})[..., 0]


def disc_scene(box: bool = True, inside=(), outside=(), noise: float = 0.05, **fields) -> Scene:
    truth = disc_truth()
    image = 0.3 + 0.4 * truth + np.random.default_rng(0).normal(0, noise, truth.shape)
    seeds = np.zeros((2, *truth.shape), bool)
    for side, places in zip(seeds, (inside, outside), strict=True):
        for at in places:
            side[at] = True
    corners = ((16, 21), (41, 46)) if box else None
    return Scene(np.clip(image, 0, 1).astype(np.float32), (1.0, 1.0), *seeds, corners, **fields)


class TestEllipse:
    def test_fills_its_box_exactly(self):
        mask = inscribed((20, 30), ((4, 5), (14, 25)), 1.0)
        hit = np.argwhere(mask)
        assert hit.min(0).tolist() == [4, 5]
        assert hit.max(0).tolist() == [13, 24]
        assert mask.sum() == pytest.approx(np.pi * 5 * 10, rel=0.03)

    def test_is_the_disc(self):
        assert dice(ellipse(disc_scene()), disc_truth()) > 0.94

    def test_takes_the_extent_of_a_stroke(self):
        mask = ellipse(disc_scene(box=False, inside=[(20, 30), (35, 40)]))
        assert mask is not None
        assert np.argwhere(mask).min(0).tolist() == [20, 30]

    def test_a_lone_click_says_too_little(self):
        assert ellipse(disc_scene(box=False, inside=[(28, 33)])) is None


class TestOnTheSamePrompts:
    @pytest.mark.parametrize("method", [grabcut, walker])
    def test_find_a_clear_disc_from_a_box(self, method):
        assert dice(method(disc_scene()), disc_truth()) > 0.95

    @pytest.mark.parametrize("method", [grabcut, walker])
    def test_work_without_a_box(self, method):
        scene = disc_scene(box=False, inside=[(28, 33), (25, 30)], outside=[(5, 5), (50, 60)])
        assert dice(method(scene), disc_truth()) > 0.9

    @pytest.mark.parametrize("method", [grabcut, walker])
    def test_clicks_are_certain(self, method):
        scene = disc_scene(inside=[(17, 22)], outside=[(28, 33)])
        mask = method(scene)
        assert mask[17, 22]
        assert not mask[28, 33]

    @pytest.mark.parametrize("method", [grabcut, walker])
    def test_leave_the_prompts_as_they_are(self, method):
        scene = disc_scene(inside=[(28, 33)], outside=[(5, 5)])
        method(scene)
        assert (scene.inside.sum(), scene.outside.sum()) == (1, 1)

    def test_graph_cut_needs_the_network(self):
        assert graph_cut(disc_scene()) is None
        truth = disc_truth()
        probability = np.where(truth, 0.9, 0.1).astype(np.float32)
        probability[20:30, 30:36] = 0.2
        scene = disc_scene(inside=[(25, 33)], outside=[(3, 3)], probability=probability)
        assert dice(graph_cut(scene), truth) > dice(probability > 0.5, truth)

    def test_a_flat_image_gives_an_answer(self):
        scene = disc_scene(noise=0.0)
        flat = Scene(
            np.full_like(scene.image, 0.5), (1.0, 1.0), scene.inside, scene.outside, scene.box
        )
        for method in (ellipse, grabcut, walker):
            assert method(flat).shape == flat.image.shape


class TestVolumes:
    def test_walker_follows_a_disc_through_the_slices(self):
        truth = discs((40, 40, 9), 2, dict.fromkeys(range(2, 7), (20, 20, 8)))
        image = (0.2 + 0.6 * truth).astype(np.float32)
        none = np.zeros_like(truth)
        scene = Scene(image, (1.0, 1.0, 3.0), none, none, ((12, 12, 4), (29, 29, 5)))
        assert dice(walker(scene), truth) > 0.85

    def test_window_reaches_across_slices_as_far_as_the_box_is_wide(self):
        shape = (60, 60, 40)
        none = np.zeros(shape, bool)
        image = np.zeros(shape, np.float32)
        scene = Scene(image, (1.0, 1.0, 2.0), none, none, ((20, 20, 20), (40, 40, 21)))
        assert working_window(scene) == (slice(10, 50), slice(10, 50), slice(15, 26))

    def test_coarse_seeds_keep_every_block_with_a_click(self):
        seeds = np.zeros((7, 7), np.int32)
        seeds[6, 6], seeds[0, 1] = 2, 1
        coarse = coarse_seeds(seeds, 3)
        assert coarse.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 2]]


class TestScene:
    def test_holds_the_prompts_in_the_view(self):
        settings = Settings(axis=2)
        whole = volume_task(case_of(two_discs()), 1, settings)
        task = slice_tasks(whole, settings)[2]
        index = task.index
        assert index is not None
        stroke = Scribble(np.array([[1, 2, index], [1, 3, index]]), positive=False)
        scene = scene_of(
            task, [Point((4, 5, index)), stroke, Box((2, 3, index), (9, 8, index + 1))]
        )
        assert np.argwhere(scene.inside).tolist() == [[4, 5]]
        assert np.argwhere(scene.outside).tolist() == [[1, 2], [1, 3]]
        assert scene.box == ((2, 3), (9, 8))
        assert scene.spacing == (1.0, 1.0)
        assert scene.image.max() == 1


class TestAgainst:
    def test_every_baseline_stands_in_the_same_row(self):
        names = tuple(BASELINES)
        settings = Settings(protocol="box", axis=2, slices=1, label=1, against=names)
        (row,) = run(segmenter(), [case_of(two_discs())], settings).rows
        for name in names:
            assert 0.7 < row[f"{name}_dice"] <= 1
            assert np.isfinite(row[f"{name}_assd_mm"])

    def test_clicks_give_a_curve_each(self):
        settings = Settings(axis=2, slices=1, clicks=3, against=("random_walker", "graph_cut"))
        case = case_of((two_discs() > 0).astype(np.uint8))
        (row,) = run(segmenter(), [case], settings).rows
        for name in ("random_walker", "graph_cut"):
            curve = [row[f"{name}_dice_click_{n}"] for n in (1, 2, 3)]
            assert curve[-1] == row[f"{name}_dice"]
            assert row[f"{name}_dice_auc"] == pytest.approx(np.trapezoid(curve))

    def test_network_only_beside_graph_cut(self):
        settings = Settings(
            dims="3d", axis=2, start="box", clicks=1, refine="graph_cut", label=1,
            against=("network", "graph_cut", "random_walker"),
        )  # fmt: skip
        image = two_discs() == 1
        image[10:14, 10:14, 3] = False
        (row,) = run(segmenter(), [case_of(two_discs(), image=image)], settings).rows
        assert row["network_dice_click_0"] == row["dice_click_0"]
        assert row["graph_cut_dice_click_0"] == pytest.approx(row["dice_click_0"], abs=0.02)
        assert row["dice"] >= row["dice_click_0"]

    def test_a_single_click_leaves_the_ellipse_out(self):
        settings = Settings(protocol="point", axis=2, slices=1, label=1, against=("ellipse",))
        (row,) = run(segmenter(), [case_of(two_discs())], settings).rows
        assert "ellipse_dice" not in row
