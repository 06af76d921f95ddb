"""Every mask that an ambiguous prompt could mean."""

import numpy as np
import pytest
from support import bright_volume, discs, segmenter, tiny_default

import promptseg as ps

SHAPE = (24, 28, 10)
ONE = discs(SHAPE, 2, dict.fromkeys(range(2, 8), (13, 15, 5)))


@pytest.fixture
def clicked():
    session = segmenter(tiny_default()).session(bright_volume(ONE))
    session.add(ps.Point((13, 15, 4)))
    session.segment()
    return session


class TestCandidates:
    def test_there_are_three_in_the_order_of_trust(self, clicked):
        found = clicked.candidates()
        assert len(found) == 3
        assert [c.quality for c in found] == sorted((c.quality for c in found), reverse=True)

    def test_the_first_is_the_answer(self, clicked):
        answer = clicked.segment().data[:, :, 4] == 1
        np.testing.assert_array_equal(clicked.candidates()[0].mask[:, :, 4], answer)

    def test_they_fill_the_prompted_slice_only(self, clicked):
        for candidate in clicked.candidates():
            assert candidate.mask.shape == clicked.volume.shape
            assert not np.delete(candidate.mask, 4, axis=2).any()

    def test_nothing_is_encoded(self, clicked):
        before = clicked.segment().report["encoded_slices"]
        clicked.candidates()
        assert clicked.segment().report["encoded_slices"] == before

    def test_there_are_none_before_an_answer(self):
        session = segmenter(tiny_default()).session(bright_volume(ONE))
        with pytest.raises(ps.PromptError, match="nothing was answered"):
            session.candidates()

    def test_a_target_without_prompts_is_refused(self, clicked):
        with pytest.raises(ps.PromptError, match="target 7"):
            clicked.candidates(7)


class TestBoxes:
    @pytest.fixture
    def boxed(self):
        session = segmenter(tiny_default()).session(bright_volume(ONE))
        session.add(ps.Box((7, 9, 4), (20, 22, 5)))
        return session

    def test_the_first_is_the_answer(self, boxed):
        answer = boxed.segment().data[:, :, 4] == 1
        found = boxed.candidates()
        np.testing.assert_array_equal(found[0].mask[:, :, 4], answer)
        assert [c.quality for c in found] == sorted((c.quality for c in found), reverse=True)

    def test_what_a_ring_surrounds_is_the_second(self, boxed, monkeypatch):
        boxed.segment()
        before = boxed.candidates()
        monkeypatch.setattr("promptseg.predictor.candidates.surrounds", lambda *_: True)
        after = boxed.candidates()
        assert len(after) == len(before) + 1
        clicked = segmenter(tiny_default()).session(bright_volume(ONE))
        clicked.add(ps.Box((7, 9, 4), (20, 22, 5)), ps.Point((13, 15, 4)))
        assert after[1].mask.any() == clicked.segment().data.any()
