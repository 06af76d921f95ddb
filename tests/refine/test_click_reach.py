"""Where clicks may change a mask in 3D."""

import numpy as np
import pytest
from scipy import ndimage

from promptseg.inference.reach import LEAST_3D, REACH
from promptseg.inference.slice_prompts import BOTH, REFINE
from promptseg.prompts.types import Point, PromptSet, Scribble
from promptseg.refine.reach import from_outline, reached
from promptseg.refine.volume import near_clicks

SHAPE, SPACING = (30, 28, 16), (1.0, 0.5, 2.0)


def blob(seed=0):
    noise = np.random.default_rng(seed).random(SHAPE)
    return ndimage.gaussian_filter(noise, 2) > 0.5


class TestFromOutline:
    @pytest.mark.parametrize("seed", range(4))
    def test_it_is_the_distance_transform(self, seed):
        mask, steps = blob(seed), np.array(SPACING)
        expected = np.maximum(*(ndimage.distance_transform_edt(m, SPACING) for m in (mask, ~mask)))
        for voxel in np.random.default_rng(seed).integers(0, SHAPE, (40, 3)):
            found = from_outline(mask, voxel, steps)
            assert found == pytest.approx(expected[tuple(voxel)], rel=1e-6)

    def test_there_is_none_where_all_is_alike(self):
        alike = np.ones(SHAPE, bool)
        assert from_outline(alike, np.array([3, 3, 3]), np.array(SPACING)) == np.inf


class TestReached:
    def test_a_ball_in_millimetres(self):
        mask = np.zeros(SHAPE, bool)
        mask[2:5, 4:8, 3:5] = True
        click = np.array([[20, 14, 8]])
        away = np.sqrt((((np.argwhere(mask) - click) * SPACING) ** 2).sum(1).min())
        lines = np.indices(SHAPE).reshape(3, -1).T
        expected = (((lines - click) * SPACING) ** 2).sum(1) <= (REACH * away + 0.5) ** 2
        np.testing.assert_array_equal(reached(mask, click, SPACING).ravel(), expected)

    def test_a_click_at_the_outline_still_reaches_some_way(self):
        mask = np.zeros(SHAPE, bool)
        mask[5:25, 4:24, 3:13] = True
        radius = (3 * mask.sum() / (4 * np.pi)) ** (1 / 3)
        found = np.argwhere(reached(mask, np.array([[4, 14, 8]]), SPACING))
        assert np.ptp(found[:, 0]) > 0
        assert found[:, 0].max() - 4 == int(REACH * LEAST_3D * radius + 0.5)

    def test_an_empty_mask_has_no_bounds(self):
        assert reached(np.zeros(SHAPE, bool), np.array([[4, 14, 8]]), SPACING).all()


class TestNearClicks:
    BEFORE = np.zeros(SHAPE, bool)
    BEFORE[10:14, 10:14, 6:9] = True
    CUT = np.ones(SHAPE, bool)

    @pytest.mark.parametrize("role", [REFINE, BOTH])
    def test_beyond_the_clicks_the_mask_stays(self, role):
        found = near_clicks(
            self.CUT, self.BEFORE, PromptSet([Point((16, 12, 7), role=role)]), SPACING
        )
        assert found[16, 12, 7]
        assert not found[29, 27, 15]
        assert found[self.BEFORE].all()

    @pytest.mark.parametrize("role", [REFINE, BOTH])
    def test_a_click_inside_takes_nothing_away_and_one_outside_adds_nothing(self, role):
        inside = Point((14, 12, 7), role=role)
        found = near_clicks(~self.BEFORE, self.BEFORE, PromptSet([inside]), SPACING)
        assert found[self.BEFORE].all()
        assert found[14, 12, 7]
        outside = Point((13, 12, 7), False, role=role)
        found = near_clicks(~self.BEFORE, self.BEFORE, PromptSet([outside]), SPACING)
        assert not found[~self.BEFORE].any()
        assert not found[13, 12, 7]

    def test_where_both_reach_the_cut_decides(self):
        told = [Point((14, 12, 7), role=BOTH), Point((13, 12, 7), False, role=BOTH)]
        found = near_clicks(~self.BEFORE, self.BEFORE, PromptSet(told), SPACING)
        assert found[14, 12, 7]
        assert not found[13, 12, 7]

    def test_other_prompts_have_no_bounds(self):
        stroke = Scribble(np.array([[16, 12, 7]]), True)
        for told in ([], [Point((16, 12, 7))], [stroke]):
            found = near_clicks(self.CUT, self.BEFORE, PromptSet(told), SPACING)
            np.testing.assert_array_equal(found, self.CUT)
