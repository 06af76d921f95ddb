import pytest
import torch
from tracks_kit import EMPTY, disc

from promptseg.propagation.stopping import StopCriteria
from promptseg.propagation.track import Track, TrackState, plan_tracks, tensor_key


class TestWalk:
    def state(self, **changes):
        return TrackState(Track(1, 5, 1, 12), 6, disc().logits, **changes)

    def test_one_poor_slice_is_bridged_by_its_neighbours(self):
        state, criteria = self.state(), StopCriteria()
        for answer in (EMPTY, disc(radius=10)):
            state.take(answer, criteria)
        assert list(state.answers) == [6, 7]
        expected = (disc(radius=8).logits + disc(radius=10).logits) / 2
        assert torch.equal(state.answers[6].logits, expected)
        assert (state.misses, state.pending, state.active) == (0, {}, True)

    def test_the_track_ends_after_its_patience(self):
        state = self.state()
        state.take(EMPTY, StopCriteria())
        assert state.active
        state.take(EMPTY, StopCriteria())
        assert not state.active
        assert state.answers == {}

    @pytest.mark.parametrize("patience", [0, 1, 2, 3])
    def test_patience_counts_poor_slices_in_a_row(self, patience):
        state, criteria = self.state(), StopCriteria(patience=patience)
        for _ in range(patience):
            state.take(EMPTY, criteria)
        assert state.active
        state.take(disc(), criteria)
        assert sorted(state.answers) == list(range(6, 7 + patience))
        for _ in range(patience + 1):
            state.take(EMPTY, criteria)
        assert not state.active

    def test_poor_slices_hand_nothing_on(self):
        state = self.state()
        state.take(disc(column=28, quality=0.2), StopCriteria())
        assert torch.equal(state.carried, disc().logits)

    def test_a_track_ends_at_its_stop(self):
        state = TrackState(Track(1, 5, -1, 3), 4, disc().logits)
        state.take(disc(), StopCriteria())
        assert (state.index, state.active, state.lost) == (3, False, False)


class TestHandingOn:
    """On thin slices the mask that is handed on lies some slices back."""

    @pytest.mark.parametrize("step", [1, -1])
    def test_the_key_slice_first_and_then_what_lies_far_enough_back(self, step):
        state = TrackState(Track(1, 8, step, 8 + 8 * step), 8 + step, disc(radius=5).logits)
        handed = []
        for radius in (6, 7, 8, 9, 10):
            handed.append(int((state.handed_on(3) > 0).sum()))
            state.take(disc(radius=radius), StopCriteria())
        assert handed == [disc(radius=r).area for r in (5, 5, 5, 6, 7)]

    def test_poor_slices_are_never_handed_on(self):
        state = TrackState(Track(1, 5, 1, 16), 6, disc().logits)
        for answer in (disc(radius=7), EMPTY):
            state.take(answer, StopCriteria(patience=3))
        for _ in range(2):
            state.take(EMPTY, StopCriteria(patience=3))
            assert torch.equal(state.handed_on(1), disc(radius=7).logits)


class TestPlan:
    def test_both_ways_to_the_ends(self):
        tracks = plan_tracks({1: {5: disc()}}, {1: (0, 16)})
        assert tracks == [Track(1, 5, 1, 16), Track(1, 5, -1, -1)]

    def test_between_key_slices_up_to_the_next(self):
        tracks = plan_tracks({1: {9: disc(), 3: disc()}}, {1: (0, 16)})
        assert tracks == [
            Track(1, 3, 1, 9),
            Track(1, 3, -1, -1),
            Track(1, 9, 1, 16),
            Track(1, 9, -1, 3),
        ]

    def test_limits_end_the_outer_tracks(self):
        tracks = plan_tracks({1: {5: disc()}}, {1: (4, 8)})
        assert tracks == [Track(1, 5, 1, 8), Track(1, 5, -1, 3)]

    def test_a_key_slice_outside_the_limits_tracks_inwards_only(self):
        states = [
            TrackState(w, w.start + w.step, disc().logits)
            for w in plan_tracks({1: {2: disc(), 6: disc()}}, {1: (5, 8)})
        ]
        assert [s.track for s in states if s.active] == [
            Track(1, 2, 1, 6), Track(1, 6, 1, 8), Track(1, 6, -1, 2)]  # fmt: skip

    def test_empty_key_slices_send_nobody_and_still_stop_others(self):
        tracks = plan_tracks({1: {3: disc(), 9: EMPTY}}, {1: (0, 16)})
        assert tracks == [Track(1, 3, 1, 9), Track(1, 3, -1, -1)]

    def test_targets_track_apart(self):
        tracks = plan_tracks({1: {3: disc()}, 2: {9: disc()}}, {1: (0, 16), 2: (8, 10)})
        assert [w.stop for w in tracks if w.target == 1] == [16, -1]
        assert [w.stop for w in tracks if w.target == 2] == [10, 7]


class TestKey:
    def test_differs_with_the_logits_alone(self):
        assert tensor_key(None) == 0
        assert tensor_key(disc()) == tensor_key(disc(quality=0.1))
        assert tensor_key(disc()) != tensor_key(disc(radius=7))
