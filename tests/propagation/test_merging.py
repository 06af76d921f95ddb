import pytest
import torch
from tracks_kit import disc, flat

from promptseg.propagation.merging import bridged, changed, meet, strays
from promptseg.propagation.track import Track, TrackState


class TestMeeting:
    def states(self, left, right):
        forward = TrackState(Track(1, 0, 1, 8), 8, flat(0).logits, answers=left)
        backward = TrackState(Track(1, 8, -1, 0), 0, flat(0).logits, answers=right)
        return [forward, backward]

    @pytest.mark.parametrize(("index", "expected"), [(2, 4.0), (4, 0.0), (6, -4.0), (1, 6.0)])
    def test_the_nearer_key_slice_weighs_more(self, index, expected):
        states = self.states({index: flat(8)}, {index: flat(-8)})
        found = meet(index, states)
        assert float(found.logits[0, 0]) == pytest.approx(expected)

    def test_quality_and_presence_are_weighted_alike(self):
        states = self.states({2: flat(8, quality=1.0)}, {2: flat(8, quality=0.2)})
        assert meet(2, states).quality == pytest.approx(0.8)

    @pytest.mark.parametrize("index", [1, 4, 7])
    def test_a_lost_track_has_no_vote(self, index):
        found = flat(3, quality=0.8)
        for left, right in (({index: found}, {}), ({}, {index: found})):
            met = meet(index, self.states(left, right))
            assert torch.equal(met.logits, found.logits)
            assert met.quality == pytest.approx(0.8)

    def test_beyond_the_last_key_slice_one_track_decides(self):
        outer = TrackState(Track(1, 8, 1, 16), 10, flat(0).logits, answers={9: flat(3)})
        assert float(meet(9, [outer]).logits[0, 0]) == 3


class TestStraying:
    def test_pixels_inside_one_only_are_changed(self):
        small, large = disc(3), disc(6)
        rim = large.area - small.area
        assert changed(small, large) == changed(large, small) == rim > 0
        assert changed(large, large) == changed(None, None) == 0
        assert changed(None, large) == changed(large, None) == large.area

    def test_more_than_the_correction_and_much_of_the_mask(self):
        small, large = disc(3), disc(6)
        rim = large.area - small.area
        assert strays(large, small, moved=rim // 2 - 1)
        assert not strays(large, small, moved=rim // 2 + 1)
        assert not strays(disc(6.4), disc(6), moved=0)
        assert not strays(large, large, moved=0)

    def test_where_nothing_was_before(self):
        assert strays(disc(6), None, moved=3)
        assert not strays(disc(6), None, moved=disc(6).area)


class TestBridging:
    @pytest.mark.parametrize("start", [2, 9])
    def test_what_two_slices_see_is_between_them(self, start):
        ends = {2: disc(8), 3: disc(8), 8: disc(5), 9: disc(5), 12: disc(5)}
        found = bridged(ends, start, 11 - start, 6)
        assert sorted(found) == [4, 5, 6, 7]
        areas = [found[index].area for index in sorted(found)]
        assert areas == sorted(areas, reverse=True)
        assert ends[8].area <= areas[-1] < areas[0] <= ends[3].area

    def test_nothing_where_they_do_not_overlap_or_nothing_is_missing(self):
        apart = {3: disc(5, row=8, column=8), 8: disc(5, row=24, column=24)}
        assert bridged(apart, 3, 8, 6) == {}
        assert bridged({3: disc(8), 4: disc(8)}, 3, 4, 6) == {}

    def test_nothing_where_no_other_slice_sees_it(self):
        assert bridged({3: disc(8)}, 3, 8, 6) == {}
        assert bridged({3: disc(8), 12: disc(8)}, 3, 8, 6) == {}
