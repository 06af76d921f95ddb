"""Simulated faults of masks and simulated users, from which the corrector learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretraining.corrections import (
    Correction,
    Crop,
    changed_grey,
    correction_loss,
    draw_correction,
    inner,
    start_with_box,
    with_clicks,
)
from pretraining.faults import (
    bent,
    drifted,
    faulty_logits,
    leaked,
    lobed,
    rounded,
    shortened,
    smooth_field,
)
from promptseg.refine.corrector_inputs import LOGIT_LIMIT, ClickDistances, signed_distance
from promptseg.refine.corrector_network import INPUTS

SHAPE = (32, 30, 28)
SIZE = 16.0


def rng(seed=0):
    return np.random.default_rng(seed)


def ellipsoid(shape=SHAPE, radii=(9, 8, 7)):
    grid = np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) // 2
    return ((grid / np.array(radii).reshape(3, 1, 1, 1)) ** 2).sum(0) < 1


TARGET = ellipsoid()
IMAGE = (TARGET * 0.6 + 0.2).astype(np.float32)


class TestFaults:
    def test_smooth_field_is_smooth_and_seeded(self):
        field = smooth_field(SHAPE, 10, rng())
        np.testing.assert_array_equal(field, smooth_field(SHAPE, 10, rng()))
        assert np.abs(np.diff(field, axis=0)).max() < 0.5 * np.ptp(field)

    def test_a_drift_leaves_its_start_and_grows_with_the_way(self):
        errors = []
        for seed in range(20):
            found = drifted(signed_distance(TARGET), TARGET, SIZE, rng(seed)) > 0
            errors.append((found != TARGET).sum())
        assert max(errors) > 0.2 * TARGET.sum()

    def test_a_leak_takes_like_grey_values_only(self):
        image = IMAGE.copy()
        image[:, :, 18:] = 0.8
        image += rng().normal(0, 0.02, SHAPE).astype(np.float32)
        leaks = [leaked(signed_distance(TARGET), TARGET, image, SIZE, rng(n)) > 0 for n in range(9)]
        beyond = [found & ~TARGET for found in leaks]
        assert sum(part.any() for part in beyond) >= 3
        assert all(image[part].mean() > 0.5 for part in beyond if part.any())

    def test_nothing_leaks_where_the_grey_value_differs(self):
        height = signed_distance(TARGET)
        np.testing.assert_array_equal(leaked(height, TARGET, IMAGE, SIZE, rng()), height)

    @pytest.mark.parametrize("seed", range(5))
    def test_lobes_change_a_part(self, seed):
        found = lobed(signed_distance(TARGET), TARGET, SIZE, rng(seed)) > 0
        assert 0 < (found != TARGET).sum() < TARGET.sum()

    def test_shortening_only_takes_away_at_one_end(self):
        found = shortened(signed_distance(TARGET), TARGET, rng(3)) > 0
        assert not (found & ~TARGET).any()
        lost = TARGET & ~found
        assert lost.any()
        spans = [np.flatnonzero(lost.any(tuple({0, 1, 2} - {a}))) for a in range(3)]
        whole = [np.flatnonzero(TARGET.any(tuple({0, 1, 2} - {a}))) for a in range(3)]
        assert any(len(s) < len(w) for s, w in zip(spans, whole, strict=True))

    def test_rounding_and_bending_keep_most(self):
        for seed in range(10):
            draws = rng(seed)
            for height in (rounded(TARGET, SIZE, draws),
                           bent(signed_distance(TARGET), SIZE, draws)):  # fmt: skip
                assert ((height > 0) & TARGET).sum() > 0.3 * TARGET.sum()

    def test_logits_are_bounded_seeded_and_often_wrong(self):
        wrong = []
        for seed in range(30):
            logits = faulty_logits(TARGET, IMAGE, rng(seed))
            np.testing.assert_array_equal(logits, faulty_logits(TARGET, IMAGE, rng(seed)))
            assert np.abs(logits).max() <= LOGIT_LIMIT
            wrong.append(((logits > 0) != TARGET).mean())
        assert np.median(wrong) > 0.005

    def test_the_target_is_not_changed(self):
        before = TARGET.copy()
        for seed in range(10):
            faulty_logits(TARGET, IMAGE, rng(seed))
        np.testing.assert_array_equal(TARGET, before)


def crop(axis=2):
    probability = np.where(np.roll(TARGET, 3, 0), 0.9, 0.1).astype(np.float32)
    return Crop(IMAGE, TARGET, probability, (1.0, 1.2, 2.0), axis)


class TestViews:
    @pytest.mark.parametrize("seed", range(8))
    def test_a_view_is_what_the_network_takes(self, seed):
        found = draw_correction(crop(), rng(seed))
        assert found.logits.shape == found.target.shape
        assert all(side % 16 == 0 for side in found.target.shape)
        inputs = found.inputs()
        assert inputs.shape == (1, INPUTS, *found.target.shape)
        assert torch.isfinite(inputs).all()

    def test_a_target_too_small_in_the_view_is_left_out(self):
        tiny = np.zeros(SHAPE, bool)
        tiny[15, 15, 15] = True
        lost = Crop(IMAGE, tiny, np.where(TARGET, 0.9, 0.1), (1, 1, 1), 2)
        assert draw_correction(lost, rng()) is None

    def test_turning_turns_everything_alike(self):
        for seed in range(10):
            turned = crop().turned(rng(seed))
            assert turned.target.sum() == TARGET.sum()
            np.testing.assert_array_equal(turned.image > 0.5, turned.target)
            assert turned.target.shape[turned.axis] == SHAPE[2]

    def test_a_box_marks_its_frame_outside_and_its_depth_inside(self):
        inside, outside = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
        start_with_box(TARGET, TARGET, 1, rng(), inside, outside)
        assert inside.sum() == 1
        assert TARGET[inside].all()
        assert not TARGET[outside].any()
        assert len(np.unique(np.argwhere(outside)[:, 1])) == 1

    def test_a_wrong_answer_gives_no_wrong_start(self):
        inside, outside = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
        start_with_box(~TARGET, TARGET, 1, rng(), inside, outside)
        assert not inside.any()

    def test_grey_values_stay_finite(self):
        for seed in range(30):
            assert np.isfinite(changed_grey(IMAGE, rng(seed))).all()


class TestClicks:
    def correction(self, logits):
        nothing = ClickDistances.of(IMAGE, np.zeros(SHAPE, bool))
        return Correction(torch.from_numpy(logits), TARGET, nothing, nothing)

    def test_a_missed_target_is_clicked_inside_and_a_false_one_outside(self):
        missed = self.correction(np.full(SHAPE, -3, np.float32))
        after = missed.clicked(np.zeros(SHAPE, bool), rng())
        assert TARGET[after.inside.straight == 0].all()
        assert (after.outside.straight > 0).all()
        after = missed.clicked(np.ones(SHAPE, bool), rng())
        assert not TARGET[after.outside.straight == 0].any()

    def test_a_right_answer_needs_no_click(self):
        right = self.correction(np.where(TARGET, 3, -3).astype(np.float32))
        assert right.clicked(TARGET, rng()) is right

    def test_inner_lies_inside(self):
        for seed in range(10):
            assert TARGET[inner(TARGET, rng(seed))]

    def test_at_most_five_clicks_each_on_the_answer_so_far(self):
        asked = []
        for seed in range(40):
            answers = []
            plain = self.correction(np.full(SHAPE, -3, np.float32))

            def answer(now, kept=answers):
                kept.append(now)
                return np.zeros(SHAPE, bool)

            after = with_clicks(plain, answer, rng(seed))
            clicks = int((after.inside.straight == 0).sum())
            assert len(answers) <= 5
            assert (clicks > 0) or not answers
            asked.append(len(answers))
        assert max(asked) >= 4
        assert min(asked) == 0


class TestLoss:
    def test_a_right_answer_costs_least(self):
        target = torch.from_numpy(TARGET.astype(np.float32))
        right, wrong = ((target * 2 - 1) * sign * 5 for sign in (1, -1))
        assert correction_loss(right, target) < 0.1 < correction_loss(wrong, target)

    def test_it_teaches(self):
        target = torch.from_numpy(TARGET.astype(np.float32))
        logits = torch.zeros(SHAPE, requires_grad=True)
        correction_loss(logits, target).backward()
        assert (logits.grad[target > 0] < 0).all()
        assert (logits.grad[target == 0] > 0).all()
