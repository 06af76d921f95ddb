"""What a box means: its answer in several views, at several levels, and which is chosen."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from support import BrightRegion, bright_encoder, bright_volume, dice, discs, segmenter

import promptseg as ps
from promptseg.inference.box_features import BOXED, FEATURES, beside, in_box
from promptseg.inference.box_reading import (
    FACTORS,
    LEVELS,
    MARGIN,
    SPARE,
    SPARED,
    TIGHTER,
    BoxLooks,
    box_looks,
    in_frame,
    read_box,
    tightened,
    usual_place,
    without_room,
)
from promptseg.inference.crop import frame_of
from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.ranking import MaskRanking, RankingNetworks
from promptseg.inference.slice_prompts import BoxAnswer, SlicePrompts
from promptseg.volume.slicing import Region

SHAPE = (96, 96, 3)
DISC = discs(SHAPE, 2, {1: (40, 50, 12)})
TIGHT = ((28.0, 38.0, 1.0), (53.0, 63.0, 2.0))
ROOMY = ((25.0, 36.0, 1.0), (55.0, 65.0, 2.0))
EVEN = (1.0, 1.0, 1.0)


def looks_in(image, box=TIGHT):
    decoder = SliceDecoder(bright_encoder(image))
    return box_looks(decoder, 2, EVEN, 1, SlicePrompts(box=box))


def column(features, name):
    return features[:, FEATURES.index(name)]


class Says(MaskRanking):
    """A ranking that expects what it is told."""

    def __init__(self, scores):
        self.scores = scores

    def of_box(self, features):
        return list(self.scores)


class Prefers(MaskRanking):
    """Expects most of the mask with the greatest or the smallest value of a feature.

    Of a box as it is: one that is taken for smaller than drawn is expected less of.
    """

    def __init__(self, name, sign=1):
        sizes = {"features": 3}
        super().__init__(RankingNetworks(sizes, sizes), None, "k" * 64)
        self.name, self.sign, self.asked = name, sign, 0

    def of_box(self, features):
        self.asked += 1
        values = self.sign * column(features, self.name)
        order = np.lexsort((values, -column(features, "spared"))).argsort()
        return ((order + 1) / (len(order) + 1)).tolist()


class TestInBox:
    BOX = (2.0, 4.0, 12.0, 14.0)

    def filled(self, rows, cols):
        mask = np.zeros((20, 20), bool)
        mask[rows, cols] = True
        return dict(zip(BOXED, in_box(mask, self.BOX), strict=True))

    def test_a_mask_that_fills_it(self):
        told = self.filled(slice(2, 12), slice(4, 14))
        assert (told["box_overlap"], told["box_filled"], told["outside"]) == (1, 1, 0)
        assert (told["most_over"], told["most_room"]) == (0, 0)
        assert (told["least_filled"], told["most_filled"], told["log_aspect"]) == (1, 1, 0)

    def test_room_on_one_side(self):
        told = self.filled(slice(2, 12), slice(4, 9))
        assert told["box_overlap"] == told["box_filled"] == told["least_filled"] == 0.5
        assert (told["most_room"], told["room"], told["most_filled"]) == (0.5, 0, 1)

    def test_out_of_it(self):
        told = self.filled(slice(2, 12), slice(4, 19))
        assert told["outside"] == pytest.approx(1 / 3)
        assert told["most_over"] == -0.5
        assert told["box_overlap"] == pytest.approx(2 / 3)

    def test_nothing_in_it(self):
        told = self.filled(slice(0, 0), slice(0, 0))
        assert not any(told[name] for name in BOXED[:-1])


class TestBeside:
    def test_what_all_views_drew_alike(self):
        planes = np.zeros((4, 10, 10), bool)
        planes[:, :5] = True
        found = beside(planes, 2, 1)
        np.testing.assert_allclose(found[:, :3], 1)
        np.testing.assert_allclose(found[:, 3:], 0, atol=1e-6)

    def test_a_lower_level_grows(self):
        planes = np.zeros((2, 10, 10), bool)
        planes[0, :8], planes[1, :4] = True, True
        found = beside(planes, 1, 1)
        np.testing.assert_allclose(found[:, 6], [np.log(2), 0], atol=1e-6)
        np.testing.assert_allclose(found[:, 0], [2 / 3, 1], atol=1e-6)


class TestLooks:
    def test_a_tight_box_is_answered_once_a_view(self):
        looks = looks_in(DISC)
        assert not any(view.tighter for view in looks.views)
        assert [view.factor for view in looks.views if not view.spared] == list(FACTORS)
        features = looks.features()
        assert features.shape == (len(looks.masks), len(FEATURES))
        assert np.isfinite(features).all()

    def test_one_with_some_room_as_a_tighter_one_too(self):
        looks = looks_in(DISC, ROOMY)
        assert [view.factor for view in looks.views if view.tighter] == [
            FACTORS[n] for n in TIGHTER
        ]
        plain = next(view for view in looks.views if view.factor == FACTORS[TIGHTER[0]])
        tighter = next(view for view in looks.views if view.tighter)
        assert tighter.frame.region.shape[0] < plain.frame.region.shape[0]
        assert np.isfinite(looks.features()).all()

    @pytest.mark.parametrize("box", [TIGHT, ROOMY])
    def test_as_one_with_room_in_views_that_are_encoded_already(self, box):
        encoder = bright_encoder(DISC)
        looks = box_looks(SliceDecoder(encoder), 2, EVEN, 1, SlicePrompts(box=box))
        spared = [view for view in looks.views if view.spared]
        assert [view.frame for view in spared] == [looks.views[n].frame for n in SPARED]
        assert [view.factor for view in spared] == [pytest.approx(FACTORS[n] * 1.2) for n in SPARED]
        assert encoder.encoded == len({view.frame for view in looks.views})

    def test_a_box_taken_for_one_with_room_bounds_what_is_drawn(self):
        wide = (np.ones(SHAPE, np.float32), TIGHT)
        looks = looks_in(*wide)
        areas = {view.spared: (plane > 0).sum() for view, plane in
                 zip(looks.views, looks.planes, strict=True)}  # fmt: skip
        assert areas[True] == pytest.approx(areas[False] * (1 - 2 * SPARE) ** 2, rel=0.1)

    def test_masks_are_those_of_the_levels(self):
        looks = looks_in(DISC)
        areas = looks.masks.sum((1, 2)).reshape(len(looks.views), len(LEVELS))
        assert (np.diff(areas, axis=1) <= 0).all()
        assert dice(looks.masks[LEVELS.index(0.0)], DISC[:, :, 1]) > 0.9

    def test_the_storage_order_changes_nothing(self):
        box = tuple((high, low, place) for low, high, place in TIGHT)
        plain, other = looks_in(DISC), looks_in(DISC.transpose(1, 0, 2), box)
        np.testing.assert_allclose(plain.features(), other.features(), atol=2e-3)

    def test_an_image_without_anything(self):
        looks = looks_in(np.zeros(SHAPE, np.float32))
        assert np.isfinite(looks.features()).all()
        assert read_box(looks, Prefers("level", -1)) is None

    def test_more_than_a_box_is_refused(self):
        place = SlicePrompts([(40, 50, 1)], [1], [False], TIGHT)
        with pytest.raises(ValueError, match="nothing else"):
            box_looks(SliceDecoder(bright_encoder(DISC)), 2, EVEN, 1, place)


class TestWithoutRoom:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_takes_as_much_of_both_sides_in_the_plane_alone(self, axis):
        lo, hi = without_room(((0.0, 0.0, 0.0), (12.0, 24.0, 36.0)), axis)
        wanted_lo, wanted_hi = [1.0, 2.0, 3.0], [11.0, 22.0, 33.0]
        wanted_lo[axis], wanted_hi[axis] = 0.0, (12.0, 24.0, 36.0)[axis]
        assert lo == pytest.approx(wanted_lo)
        assert hi == pytest.approx(wanted_hi)


class TestChoice:
    def test_the_level_of_which_most_is_expected(self):
        looks = looks_in(DISC)
        low, high = (read_box(looks, Prefers("level", sign)).logits > 0 for sign in (-1, 1))
        assert (low >= high).all()
        assert low.sum() > high.sum()
        assert any((low == mask).all() for mask in looks.masks)

    @pytest.mark.parametrize("box", [TIGHT, ROOMY])
    def test_of_masks_that_are_as_good_the_usual_one(self, box):
        looks = looks_in(DISC, box)
        usual = usual_place(looks.views)
        view = looks.views[usual // len(LEVELS)]
        assert (view.factor, LEVELS[usual % len(LEVELS)]) == (1.7, 0.0)
        assert view.tighter == any(one.tighter for one in looks.views)
        scores = np.full(len(looks.masks), 0.6)
        scores[0] = 0.6 + 0.9 * MARGIN
        assert ((read_box(looks, Says(scores)).logits > 0) == looks.masks[usual]).all()
        scores[0] = 0.6 + 1.1 * MARGIN
        found = read_box(looks, Says(scores))
        assert ((found.logits > 0) == looks.masks[0]).all()
        assert found.dice == pytest.approx(scores[0])

    def test_an_empty_mask_is_never_meant(self):
        looks = looks_in(DISC)
        masks = looks.masks.copy()
        masks[1:] = False
        only = BoxLooks(looks.views, looks.planes, masks, looks.features)
        found = read_box(only, Prefers("level", 1))
        assert ((found.logits > 0) == masks[0]).all()

    def test_what_is_read_is_the_answer_in_any_view(self):
        encoder = bright_encoder(DISC)
        found = read_box(looks_in(DISC), Prefers("box_overlap"))
        for side in (40, 96):
            frame = frame_of(encoder, 2, Region((20, 20 + side), (20, 20 + side)), EVEN)
            mask = in_frame(found, frame, 64)
            drawn = frame.restore(mask.logits[None])[0].numpy() > 0
            assert dice(drawn, np.pad(DISC, 40)[60 : 60 + side, 60 : 60 + side, 41]) > 0.9
            assert mask.quality == pytest.approx(found.dice / (2 - found.dice))
            assert torch.isfinite(mask.logits).all()

    def test_a_small_outline_keeps_its_corners(self):
        encoder = bright_encoder(DISC)
        rng = np.random.default_rng(0)
        logits = ndimage.gaussian_filter(rng.normal(size=SHAPE[:2]), 1.0).astype(np.float32) * 20
        frame = frame_of(encoder, 2, Region((20, 54), (20, 54)), EVEN)
        back = frame.restore(in_frame(BoxAnswer(logits, 0.8, 1.0), frame, 64).logits[None])[0]
        assert dice(back.numpy() > 0, logits[20:54, 20:54] > 0) > 0.99


class TestAnswer:
    BOX = ps.Box((28, 38, 1), (53, 63, 2))

    def answered(self, ranking, *prompts):
        session = segmenter(BrightRegion(), ranking=ranking).session(bright_volume(DISC))
        session.add(*prompts)
        return session, session.answer(False)

    def test_a_box_is_read_once(self):
        ranking = Prefers("box_overlap")
        session, answer = self.answered(ranking, self.BOX)
        assert dice(answer.data > 0, DISC) > 0.9
        assert (ranking.asked, answer.report["ranking"]) == (1, "k" * 64)
        session.propagate()
        session.add(ps.Point((40, 61, 1), positive=False))
        session.answer(False)
        assert ranking.asked == 1

    def test_another_choice_is_another_answer(self):
        low, high = (
            int((self.answered(Prefers("level", sign), self.BOX)[1].data > 0).sum())
            for sign in (-1, 1)
        )
        assert low > high

    def test_the_score_is_what_is_expected(self):
        _, answer = self.answered(Prefers("level"), self.BOX)
        masks = (len(FACTORS) + len(SPARED)) * len(LEVELS)
        most = masks / (masks + 1)
        assert answer.score[1] == pytest.approx(most / (2 - most), abs=1e-3)

    def test_a_box_and_a_click_are_left_to_the_network(self):
        ranking = Prefers("level")
        _, answer = self.answered(ranking, self.BOX, ps.Point((40, 50, 1)))
        assert dice(answer.data > 0, DISC) > 0.9
        assert ranking.asked == 0

    def test_without_a_ranking_the_network_draws(self):
        _, answer = self.answered(None, self.BOX)
        assert dice(answer.data > 0, DISC) > 0.9
        assert answer.report["ranking"] is None


class TestTightened:
    def test_room_is_taken_off_a_box_that_has_a_little(self):
        found = tightened(ROOMY, Region((28, 53), (38, 63)), 2)
        assert found == TIGHT

    def test_nothing_is_taken_off_where_the_mask_is_far_smaller(self):
        assert tightened(ROOMY, Region((28, 40), (38, 63)), 2) == ROOMY
