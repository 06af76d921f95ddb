"""The Dice that an answer is expected to have."""

import numpy as np
import pytest
import torch

import promptseg as ps
from promptseg.errors import WeightsError
from promptseg.inference.decoder import SliceMask
from promptseg.inference.labels import FrameMasks, score_of
from promptseg.predictor.expected_dice import (
    SIGNS,
    ExpectedDice,
    expected_dice_of,
    fit,
    log_odds,
    self_agreement,
    signs,
    write_expected_dice,
)
from promptseg.volume.slicing import Frame, Region

FRAME = Frame(2, Region((0, 8), (0, 8)), (8, 8, 4), (1, 1, 1), 8)


def mask(height: float = 6.0, quality: float = 0.8, pixels: int = 4, **more) -> SliceMask:
    logits = torch.full((8, 8), -height)
    logits.view(-1)[:pixels] = height
    return SliceMask(logits, quality, **more)


def with_quality_only() -> ExpectedDice:
    weights = np.zeros(len(SIGNS))
    weights[SIGNS.index("quality")] = 1.0
    return ExpectedDice(tuple(weights))


class TestSigns:
    def test_overlap_becomes_dice_and_large_slices_count_more(self):
        found = signs([mask(quality=0.5, pixels=30), mask(quality=0.9, pixels=10)])
        wanted = 0.75 * (1 / 1.5) + 0.25 * (1.8 / 1.9)
        assert found[SIGNS.index("quality")] == pytest.approx(log_odds(wanted))

    def test_the_weakest_quarter_is_seen_by_itself(self):
        found = signs([mask(quality=0.9)] * 6 + [mask(quality=0.2)] * 2)
        assert found[SIGNS.index("weakest")] == pytest.approx(log_odds(0.4 / 1.2))

    def test_the_coarse_view_is_a_sign_only_where_it_looked(self):
        without, seen = signs([mask()]), signs([mask(looked=0.9)])
        assert (without[-2], without[-1]) == (0, 0)
        assert (seen[-2], seen[-1]) == (1, pytest.approx(log_odds(0.9)))

    def test_sure_masks_agree_with_themselves_and_doubtful_ones_do_not(self):
        assert self_agreement([mask(20.0)]) == pytest.approx(1.0, abs=1e-6)
        assert self_agreement([mask(0.2)]) < 0.3

    def test_self_agreement_by_hand(self):
        logits = torch.tensor([[0.0, np.log(3.0)]])
        inside, share, drawn = 0.75, 0.5 + 0.75, 1
        assert self_agreement([SliceMask(logits, 1.0)]) == pytest.approx(
            2 * inside / (share + drawn)
        )


class TestExpectedDice:
    def test_parts_of_a_target_count_together(self):
        first, second = ({1: {0: mask(quality=q)}} for q in (0.5, 0.9))
        groups = [FrameMasks(FRAME, first), FrameMasks(FRAME, second)]
        assert with_quality_only().of(groups, 1) == pytest.approx((1 / 1.5 + 1.8 / 1.9) / 2)

    def test_nothing_found_is_expected_to_be_wrong(self):
        empty = [FrameMasks(FRAME, {1: {0: mask(pixels=0)}, 2: {}})]
        assert with_quality_only().of(empty, 1) == 0
        assert with_quality_only().of(empty, 2) == 0

    def test_a_mask_that_the_user_gave_is_right(self):
        given = mask(pixels=0, given=np.ones((8, 8), bool))
        assert with_quality_only().of([FrameMasks(FRAME, {1: {0: given}})], 1) == 1

    @pytest.mark.parametrize("weights", [(1.0,), (float("nan"),) * len(SIGNS)])
    def test_damaged_weights_are_refused(self, weights):
        with pytest.raises(WeightsError, match="finite weights"):
            ExpectedDice(weights)


class TestFitting:
    def test_what_generated_the_dice_is_found_again(self):
        rng = np.random.default_rng(0)
        found = rng.normal(size=(4000, len(SIGNS)))
        found[:, 0] = 1
        truth = ExpectedDice(tuple(rng.normal(size=len(SIGNS)) * 0.5))
        fitted = fit(found, truth(found))
        np.testing.assert_allclose(fitted.weights, truth.weights, atol=0.02)

    def test_a_sign_that_never_varies_gets_no_weight(self):
        found = np.zeros((50, len(SIGNS)))
        found[:, 0] = 1
        dice = np.full(50, 0.7)
        fitted = fit(found, dice)
        assert fitted(found)[0] == pytest.approx(0.7, abs=1e-6)
        assert fitted.weights[1:] == (0,) * (len(SIGNS) - 1)


class TestFile:
    def test_round_trip_and_other_models(self, tmp_path):
        file, weights = tmp_path / "e.toml", ExpectedDice(tuple(np.arange(len(SIGNS)) / 10))
        write_expected_dice(file, "ab" * 32, weights, "A test.")
        assert expected_dice_of("ab" * 32, file) == weights
        assert expected_dice_of("cd" * 32, file) is None
        assert expected_dice_of(None, file) is None

    def test_damage_is_named(self, tmp_path):
        file = tmp_path / "e.toml"
        file.write_text('["ab"]\nquality = 1.0\n')
        with pytest.raises(WeightsError, match=r"e\.toml"):
            expected_dice_of("ab", file)


class TestScoreOfTheShippedModel:
    """What `result.score` says: fitted for the model itself, not for what adapters taught it."""

    @pytest.fixture(scope="class")
    def bright(self):
        lines = np.indices((48, 48, 6))
        ball = ((lines[0] - 24) ** 2 + (lines[1] - 22) ** 2 + 9 * (lines[2] - 3) ** 2) <= 90
        noise = np.random.default_rng(0).normal(0, 5, ball.shape)
        return ps.Volume((60 + 80 * ball + noise).astype(np.float32), np.eye(4), "MR")

    @pytest.mark.parametrize("adapter", [None, "cardiac"])
    def test_it_is_the_expected_dice_without_an_adapter(self, bright, adapter):
        segmenter = ps.Segmenter.from_pretrained(adapter=adapter)
        session = segmenter.session(bright, axis=2)
        session.add(ps.Box((14, 12, 3), (35, 33, 4)))
        said = session.propagate().score[1]
        answered = session.asker.interaction.answered
        fitted = expected_dice_of(segmenter.backbone.spec.sha256)
        assert said == pytest.approx(
            fitted.of(answered, 1) if adapter is None else score_of(answered, 1)
        )
        assert 0 < said < 1
