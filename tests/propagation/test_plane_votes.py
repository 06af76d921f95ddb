import numpy as np
import pytest
from tracks_kit import ALONG, FRAME, TUBE, box, propagator

from promptseg.propagation import plane_votes as plane_votes
from promptseg.propagation.multiplanar import LIMIT
from promptseg.propagation.plane_votes import PlaneVotes, TargetTrack, logit_volume, whole_mask
from promptseg.propagation.stopping import StopCriteria
from promptseg.volume.slicing import take_slice

RULES = StopCriteria()


class Said:
    """What the other axes say: the target is where `seen` is."""

    def __init__(self, seen, name):
        self.seen, self.name = seen, name

    def project(self, frame, index, side):
        share = take_slice(self.seen, frame.axis, index).astype(np.float32)
        return frame.project(share, side)[None] * 2 * LIMIT - LIMIT


@pytest.fixture
def asked(monkeypatch):
    """A call answers with what the given image shows, and gives the guide and the names asked."""

    def ask(seen, times=1):
        names = []

        def cross(decoder, axis, spacing, known, name, earlier=None):
            names.append(name)
            return Said(seen, name)

        monkeypatch.setattr(plane_votes, "cross", cross)
        tracking = propagator(criteria=RULES)
        known = PlaneVotes(tracking.decoder, 2, (1.0, 1.0, 1.0), RULES)
        track = TargetTrack(tracking, 1, {7: tracking.answer(7, box(7))}, (0, 16))
        guides = [known.guide(track) for _ in range(times)]
        return guides, names

    return ask


class TestHearing:
    def test_asked_twice_and_kept(self, asked):
        guides, names = asked(TUBE, times=3)
        assert [name.endswith("again") for name in names] == [False, True]
        assert {guide.name for guide in guides} == {names[1]}

    def test_not_heard_where_they_see_nothing_of_what_a_track_is_sure_of(self, asked):
        short = TUBE.copy()
        short[:, :, :6] = False
        guides, names = asked(short, times=2)
        assert guides == [None, None]
        assert len(names) == 1

    def test_heard_where_they_cut_an_end(self, asked):
        short = TUBE.copy()
        short[:, :, 12:] = False
        (guide,), _ = asked(short)
        assert guide.sees_nothing(12, RULES.least_area)
        assert not guide.sees_nothing(11, RULES.least_area)


class TestTargetWalk:
    def track(self):
        tracking = propagator(criteria=RULES)
        return TargetTrack(tracking, 1, {7: tracking.answer(7, box(7))}, (4, 16))

    def test_sure_of_the_tube_within_its_limits(self):
        assert self.track().sure(RULES) == {i for i in ALONG if i >= 4} - {7}

    def test_answers_on_the_whole_volume(self):
        track = self.track()
        found = track.answers(track.propagator)
        volume = logit_volume(FRAME, found, TUBE.shape)
        assert np.array_equal(volume[:, :, 4:] > 0, TUBE[:, :, 4:])
        assert not (volume[:, :, :4] > 0).any()
        assert np.array_equal(whole_mask(FRAME, found[7]), TUBE[:, :, 7])


class TestOtherAxesCutShort:
    def tracks(self, indices):
        """A propagator whose led track finds the target on some slices."""

        class Walks:
            def propagate(self, key_masks, limits, guides):
                return {1: dict.fromkeys(indices)}

        return Walks()

    def led(self, found, sure):
        return TargetTrack(self.tracks(found), 1, {}, (0, 60)).led(None, set(sure))

    def test_not_heard_where_they_miss_what_the_track_is_sure_of(self):
        assert self.led(range(38, 46), range(20, 52)) is None

    def test_heard_where_only_the_ends_go(self):
        assert set(self.led(range(22, 50), range(20, 52))) == set(range(22, 50))
