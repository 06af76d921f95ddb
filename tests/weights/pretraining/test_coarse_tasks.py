import numpy as np
import pytest
import torch

from pretraining.coarse_tasks import coarse_task, with_click
from pretraining.episodes import Case
from promptseg.propagation.coarse_inputs import CHANNELS, PROMPTED, coarse_channels
from promptseg.propagation.coarse_loss import coarse_loss

SIDE = 32


@pytest.fixture(scope="module")
def tasks():
    grid = np.indices((48, 48, 40))
    centre = np.array([24, 24, 20])[:, None, None, None]
    labels = (((grid - centre) ** 2).sum(0) < 120).astype(np.uint8)
    rng = np.random.default_rng(0)
    image = (labels * 120 + rng.integers(20, 60, labels.shape)).astype(np.uint8)
    case = Case("ball", "ball", image, labels, axes=(0, 1, 2))
    made = [coarse_task(case, SIDE, np.random.default_rng(n)) for n in range(40)]
    return [one for one in made if one is not None]


class TestTask:
    def test_every_task_has_a_target_inside_the_volume(self, tasks):
        assert len(tasks) > 20
        for one in tasks:
            assert one.target.any()
            assert (one.hints.inside | ~one.target).all()

    def test_a_prompted_slice_shows_the_target_roughly(self, tasks):
        overlaps = []
        for one in tasks:
            shown = one.hints.trust >= PROMPTED
            assert shown.any()
            a, b = (one.hints.logits > 0)[shown], one.target[shown]
            overlaps.append(2 * (a & b).sum() / max(1, a.sum() + b.sum()))
        assert np.mean(overlaps) > 0.8

    def test_some_are_told_by_a_box_and_some_by_clicks(self, tasks):
        boxed = [one.hints.box is not None for one in tasks]
        clicked = [one.hints.positive is not None for one in tasks]
        assert any(boxed)
        assert any(clicked)
        assert all(a or b for a, b in zip(boxed, clicked, strict=True))


class TestWithClick:
    def test_the_click_lies_in_the_error_and_the_answer_is_handed_over(self, tasks):
        one = tasks[0]
        answer = np.full(one.target.shape, -3, np.float32)
        after = with_click(one, answer, np.random.default_rng(0))
        added = after.hints.positive.copy()
        if one.hints.positive is not None:
            added &= ~one.hints.positive
        assert (one.target | ~added).all()
        assert after.hints.previous is answer

    def test_a_right_answer_is_left_alone(self, tasks):
        right = np.where(tasks[0].target, 4, -4).astype(np.float32)
        assert with_click(tasks[0], right, np.random.default_rng(0)) is tasks[0]


class TestChannels:
    def test_shape_and_range(self, tasks):
        channels = coarse_channels(tasks[0].hints)
        assert channels.shape == (CHANNELS, SIDE, SIDE, SIDE)
        assert channels.abs().max() <= 1.0


class TestLoss:
    def test_the_right_answer_costs_least(self, tasks):
        target = torch.from_numpy(tasks[0].target[None]).float()
        quality = torch.full((1,), 5.0)
        good, dice = coarse_loss((target * 2 - 1) * 8, quality, target)
        bad, _ = coarse_loss((target * 2 - 1) * -8, quality, target)
        assert good < 0.05
        assert bad > 2
        assert float(dice) == 1.0
