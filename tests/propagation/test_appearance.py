from dataclasses import replace

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder
from tracks_kit import ALONG, EMPTY, FRAME, SHAPE, TUBE, box, disc, propagator, reached

from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.propagation.appearance import Greys, grey_levels
from promptseg.propagation.track import Track, TrackState
from promptseg.propagation.tracker import Tracker


class TestLikeness:
    def compared(self, grey, radius=7.0):
        """Likeness of a disc of `grey` on slice 6 to one of 0.8 on slice 5."""
        encoder = bright_encoder(np.zeros(SHAPE, bool))
        encoder.data[:, :, 5], encoder.data[:, :, 6] = 0.8, grey
        greys = Greys(encoder.data, FRAME, 64)
        state = TrackState(Track(1, 5, 1, 16), 6, disc(radius=14, size=64).logits)
        answer = disc(radius=2 * radius, size=64)
        return greys.similarity(state, answer)

    def test_the_same_levels_are_alike_and_others_are_not(self):
        assert self.compared(0.8) == pytest.approx(1.0)
        assert self.compared(0.72) < 0.97
        assert self.compared(0.3) < 0.05

    def beyond(self, grey, given=False, apart=3.0):
        """Likeness of `grey` on slice 6 to a bright disc with a dark hollow, in the dark."""
        encoder = bright_encoder(np.zeros(SHAPE, bool))
        rows, columns = np.indices(SHAPE[:2])
        away = np.hypot(rows - 15.5, columns - 15.5)
        encoder.data[:, :, 5] = np.where((away < 7) & (away > 2.5), 0.8, 0.2)
        encoder.data[:, :, 6] = grey
        frame = replace(FRAME, spacing=(1.0, 1.0, apart))
        greys = Greys(encoder.data, frame, 64)
        mask = disc(radius=14, size=64)
        state = TrackState(Track(1, 5, 1, 16), 6, mask.logits, given=given)
        if given:
            state.answers[6] = mask
        return greys.similarity(state, mask)

    def test_what_looks_like_the_surroundings_is_not_the_target(self):
        assert self.beyond(0.2) == 0.0
        assert self.beyond(0.8) > 0.8

    @pytest.mark.parametrize("apart", [1.0, 8.0])
    def test_but_other_rules_hold_for_thin_and_for_thick_slices(self, apart):
        assert self.beyond(0.2, apart=apart) > 0.1

    def test_but_a_given_mask_may_lie_well_inside_its_organ(self):
        assert self.beyond(0.2, given=True) > 0.9

    def test_a_given_mask_well_inside_its_organ_does_not_end_the_track(self):
        backbone = BrightRegion()
        encoder = bright_encoder(TUBE, backbone)
        rows, columns, _ = np.indices(SHAPE)
        away = np.hypot(rows - 15, columns - 15)
        encoder.data = np.where(TUBE, 0.55 + 0.06 * away, 0.0).astype(np.float32)
        tracker = Tracker(SliceDecoder(encoder), FRAME)
        plane = np.zeros((32, 32), bool)
        plane[away[:, :, 6] <= 4.6] = True
        found = reached(tracker, {6: SlicePrompts(mask=plane)})
        assert sorted(found) == list(ALONG)

    def test_a_mask_that_shrinks_is_forgiven(self):
        assert self.compared(0.7, radius=2) > self.compared(0.7) + 0.1

    def test_shares_add_up_and_an_empty_mask_has_no_preference(self):
        grey = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
        assert float(grey_levels(grey, disc().logits).sum()) == pytest.approx(1.0)
        empty = grey_levels(grey, EMPTY.logits)
        assert torch.all(empty == empty[0])

    def test_every_answer_of_a_track_carries_it(self):
        found = reached(propagator(), {6: box(6)})
        assert all(0.9 <= answer.similarity <= 1 for answer in found.values())
