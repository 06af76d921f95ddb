import numpy as np
import pytest
import torch
from support import bright_encoder, discs

from promptseg.inference.decoder import SliceDecoder, SliceMask
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.propagation.stopping import StopCriteria
from promptseg.propagation.tapering import LEAST_AREA, cut, likely_area, tapered
from promptseg.propagation.tracker import Tracker
from promptseg.volume.slicing import Frame, Region

SIDE = 64
MIDDLE, HALF, WIDEST = 30, 24, 20.0


def cone(radius):
    """A disc whose logits fall from its middle to its rim, 0 on the rim."""
    rows, columns = np.indices((SIDE, SIDE)) - SIDE / 2 + 0.5
    away = np.hypot(rows, columns)
    return SliceMask(torch.from_numpy((radius - away) * 0.5).float(), 0.9)


def ellipsoid(index):
    """Radius of a slice of an ellipsoid."""
    return WIDEST * max(0.0, 1 - ((index - MIDDLE) / HALF) ** 2) ** 0.5


def carried(low, high, radius=ellipsoid):
    """Answers that keep the size of the outermost of prompted slices `low` and `high`."""
    return {i: cone(radius(min(max(i, low), high))) for i in range(low - 20, high + 21)}


def areas(answers):
    return {i: mask.area for i, mask in answers.items()}


class TestTapering:
    def test_an_ellipsoid_ends_where_its_middle_says(self):
        answers = carried(20, 40)
        found = tapered(answers, {i: answers[i] for i in (20, 40)})
        assert min(found) == pytest.approx(MIDDLE - HALF, abs=1)
        assert max(found) == pytest.approx(MIDDLE + HALF, abs=1)
        for index in (10, 15, 45, 50):
            true, before, after = (
                cone(ellipsoid(index)).area,
                answers[index].area,
                found[index].area,
            )
            assert abs(after - true) < 0.4 * abs(before - true)

    def test_what_is_left_is_the_surest_part(self):
        answers = carried(20, 40)
        found = tapered(answers, {i: answers[i] for i in (20, 40)})
        inside, before = found[10].logits > 0, answers[10].logits
        assert float(before[inside].min()) >= float(before[~inside].max())

    def test_prompted_slices_and_those_between_stay(self):
        answers = carried(20, 40)
        found = tapered(answers, {i: answers[i] for i in (20, 40)})
        assert all(found[i] is answers[i] for i in range(20, 41))

    def test_a_tube_goes_on(self):
        answers = carried(20, 40, lambda index: 12.0)
        found = tapered(answers, {i: answers[i] for i in (20, 40)})
        assert areas(found) == areas(answers)

    def test_a_target_that_widens_is_not_widened_further(self):
        answers = carried(20, 40, lambda index: 5.0 + 0.3 * (index - 20))
        found = tapered(answers, {i: answers[i] for i in (20, 40)})
        assert {i: m.area for i, m in found.items() if i > 40} == {
            i: m.area for i, m in answers.items() if i > 40
        }

    @pytest.mark.parametrize("places", [(30,), (28, 32)])
    def test_too_little_is_known_of_one_slice_or_two_neighbours(self, places):
        answers = carried(min(places), max(places))
        assert tapered(answers, {i: answers[i] for i in places}) == answers

    def test_empty_prompted_slices_are_no_ends(self):
        answers = carried(20, 40)
        nothing = SliceMask(torch.full((SIDE, SIDE), -8.0), 0.9)
        key_masks = {20: answers[20], 40: nothing}
        assert tapered({**answers, 40: nothing}, key_masks).keys() == answers.keys()

    def test_far_away_no_more_is_foretold(self):
        likely = likely_area(carried(20, 40), 40, 20)
        assert likely is not None
        assert likely(5) > likely(10)
        with_gap = {i: m for i, m in carried(20, 40).items() if not 24 < i < 40}
        assert likely_area(with_gap, 40, 20) is None


class TestCutting:
    @pytest.mark.parametrize("likely", [10.0, 200.0, 600.0])
    def test_between_its_own_area_and_the_likely_one(self, likely):
        mask = cone(15.0)
        found = cut(mask, likely)
        assert found is not None
        assert likely <= found.area < mask.area
        assert found.quality == mask.quality

    def test_a_mask_that_is_small_already_stays(self):
        mask = cone(5.0)
        assert cut(mask, 500.0) is mask

    @pytest.mark.parametrize("likely", [-50.0, 0.0, LEAST_AREA / 10])
    def test_nothing_is_left_of_what_should_have_ended(self, likely):
        assert cut(cone(4.0), likely) is None


class TestThroughTheVolume:
    """A disc on every slice, prompted on three whose masks get smaller."""

    SHAPE = (40, 40, 48)

    def found(self, limits=None, taper=True):
        radii = {i: 14 - 0.02 * (i - 24) ** 2 for i in range(8, 41)}
        radii |= dict.fromkeys(range(8), radii[8]) | dict.fromkeys(range(41, 48), radii[40])
        image = discs(self.SHAPE, 2, {i: (19, 19, r) for i, r in radii.items()})
        frame = Frame(2, Region((0, 40), (0, 40)), self.SHAPE, (1.0, 1.0, 1.0), SIDE)
        tracker = Tracker(SliceDecoder(bright_encoder(image)), frame, StopCriteria(taper=taper))
        key_masks = {i: tracker.answer(i, SlicePrompts(mask=image[:, :, i])) for i in (12, 24, 36)}
        return tracker.propagate({1: key_masks}, {1: limits or (0, 48)})[1]

    def test_beyond_the_outermost_prompt_it_gets_smaller(self):
        plain, shorter = self.found(taper=False), self.found()
        assert len(plain) == 48
        assert sum(areas(shorter).values()) < sum(areas(plain).values())
        assert all(shorter[i].area == plain[i].area for i in range(12, 37))
        assert max(shorter) < 47

    def test_an_extent_that_the_user_gave_is_filled(self):
        assert sorted(self.found(limits=(2, 46))) == list(range(2, 46))
