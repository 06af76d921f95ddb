from dataclasses import replace

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, discs
from tracks_kit import ALONG, FRAME, TUBE, box, click, disc, propagator, reached, shown

from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.slice_prompts import GIVEN_MASK_LOGIT, SlicePrompts
from promptseg.propagation.tracker import Tracker
from promptseg.volume.slicing import Frame


class TestHandingOn:
    @pytest.mark.parametrize("family", ["promptseg", "sam"])
    def test_only_that_reaches_the_network(self, family):
        backbone = BrightRegion(family=family)
        tracker = propagator(backbone=backbone)
        key_mask = tracker.answer(6, click(6))
        backbone.asked.clear()
        tracker.propagate({1: {6: key_mask}}, {1: (0, 16)})
        assert backbone.asked
        for batch in backbone.asked:
            assert batch.has_mask.all() == (family == "promptseg")
            assert batch.has_box.all() == (family == "sam")
            assert not (batch.labels >= 0).any()


class TestAnswering:
    def test_a_slice_is_answered_once(self):
        tracker = propagator()
        first = tracker.answer(6, click(6))
        assert tracker.answer(6, click(6)) is first
        assert tracker.decoder.decoded == 1

    def test_a_given_mask_is_taken_as_it_is(self):
        backbone = BrightRegion()
        plane = np.zeros((32, 32), bool)
        plane[3:9, 4:20] = True
        tracker = propagator(backbone=backbone)
        answer = tracker.answer(6, SlicePrompts(mask=plane))
        np.testing.assert_array_equal(shown(answer), plane)
        assert answer.logits.abs().max() <= GIVEN_MASK_LOGIT
        assert (answer.quality, backbone.encoded, backbone.asked) == (1.0, 0, [])

    def test_corrections_come_with_the_answer_before_them(self):
        backbone = BrightRegion()
        tracker = propagator(backbone=backbone)
        tracker.answer(
            6,
            SlicePrompts(
                points=[(15, 15, 6), (18, 15, 6)], labels=[1, 0], correction=[False, True]
            ),
        )
        first, second = backbone.asked
        assert not first.has_mask.any()
        assert second.has_mask.all()
        assert (second.labels >= 0).sum() == 2

    def test_the_given_prior_is_what_a_late_correction_refers_to(self):
        backbone = BrightRegion()
        tracker = propagator(backbone=backbone)
        prior = tracker.answer(6, click(6))
        tracker.answer(7, click(7, row=20, label=1, correction=True), prior)
        assert torch.equal(backbone.asked[-1].masks[0, 0], prior.logits)

    def test_a_single_click_is_ambiguous_and_its_correction_is_not(self):
        calls = []

        class Watching(BrightRegion):
            def decode(self, embedding, prompts, multimask=False):
                calls.append(multimask)
                return super().decode(embedding, prompts, multimask)

        tracker = propagator(backbone=Watching())
        tracker.answer(6, click(6))
        tracker.answer(
            6,
            SlicePrompts(points=[(15, 15, 6), (2, 2, 6)], labels=[1, 0], correction=[False, True]),
        )
        tracker.answer(7, box(7))
        assert calls == [True, False, False]


class TestPropagating:
    def test_reaches_what_is_there_and_no_more(self):
        found = reached(propagator(), {6: box(6)})
        assert sorted(found) == list(ALONG)
        for index, answer in found.items():
            np.testing.assert_array_equal(shown(answer), TUBE[:, :, index])

    def test_key_slices_are_kept_as_they_are(self):
        tracker = propagator()
        key_mask = tracker.answer(6, box(6))
        plane = np.zeros((32, 32), bool)
        plane[10:14, 10:14] = True
        given = tracker.answer(9, SlicePrompts(mask=plane))
        found = tracker.propagate({1: {6: key_mask, 9: given}}, {1: (0, 16)})[1]
        assert found[6] is key_mask
        assert found[9] is given

    def test_limits_are_kept(self):
        assert sorted(reached(propagator(), {6: box(6)}, (4, 9))) == [4, 5, 6, 7, 8]

    def test_progress_counts_answered_slices(self):
        told = []
        tracker = propagator()
        tracker.progress = lambda *step: told.append(step)
        reached(tracker, {6: box(6)})
        assert {stage for stage, _, _ in told} == {"propagate"}
        assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})
        assert all(done <= total for _, done, total in told)


class TestLaziness:
    def test_slices_beyond_the_target_are_hardly_encoded(self):
        shape = (32, 32, 80)
        image = discs(shape, 2, dict.fromkeys(range(40, 46), (15, 15, 6)))
        backbone = BrightRegion()
        encoder = bright_encoder(image, backbone, batch_size=4)
        frame = Frame(2, FRAME.region, shape, FRAME.spacing, 64)
        tracker = Tracker(SliceDecoder(encoder), frame)
        tracker.propagate({1: {42: tracker.answer(42, box(42))}}, {1: (0, 80)})
        assert backbone.encoded <= 6 + 2 * (1 + 1) + 2 * 4

    def test_slices_ahead_are_encoded_in_batches_that_grow_with_the_track(self):
        backbone = BrightRegion()
        tracker = propagator(backbone=backbone, batch_size=4)
        reached(tracker, {6: box(6)})
        assert backbone.batches[0] == 1
        assert backbone.batches[1:4] == [2, 4, 4]
        assert max(backbone.batches) == 4


class TestWalkingOnce:
    def count(self, tracker, key_masks):
        before = tracker.decoder.decoded
        found = reached(tracker, key_masks)
        return tracker.decoder.decoded - before, found

    def test_the_same_again_costs_nothing(self):
        tracker = propagator()
        _, first = self.count(tracker, {6: box(6)})
        again, second = self.count(tracker, {6: box(6)})
        assert again == 0
        assert list(first) == list(second)
        assert all(torch.equal(first[i].logits, second[i].logits) for i in first)

    def test_a_new_key_slice_costs_its_own_stretch(self):
        tracker = propagator()
        self.count(tracker, {6: box(6)})
        cost, _ = self.count(tracker, {6: box(6), 9: click(9)})
        assert cost == 1 + 2 + (12 - 9) + 2

    def test_taking_the_key_slice_back_costs_nothing_and_restores_all(self):
        tracker = propagator()
        _, first = self.count(tracker, {6: box(6)})
        self.count(tracker, {6: box(6), 9: click(9)})
        cost, back = self.count(tracker, {6: box(6)})
        assert cost == 0
        assert sorted(first) == sorted(back)
        assert all(torch.equal(first[i].logits, back[i].logits) for i in first)

    def test_a_wider_range_goes_on_where_the_track_ended(self):
        tracker = propagator()
        key_masks = {1: {6: tracker.answer(6, box(6))}}
        tracker.propagate(key_masks, {1: (5, 8)})
        before = tracker.decoder.decoded
        wide = tracker.propagate(key_masks, {1: (3, 11)})[1]
        assert sorted(wide) == list(range(3, 11))
        assert tracker.decoder.decoded - before == 5

    @pytest.mark.parametrize("gap", [7, 8, 9])
    @pytest.mark.parametrize("order", ["far first", "near first"])
    def test_what_was_tracked_before_does_not_change_the_answer(self, gap, order):
        image = TUBE.copy()
        image[:, :, gap] = False
        fresh = reached(propagator(image), {4: box(4), 9: box(9)})
        tracker = propagator(image)
        key_masks = {4: tracker.answer(4, box(4))}
        tracker.propagate({1: key_masks}, {1: (0, 16) if order == "far first" else (3, 6)})
        found = reached(tracker, {4: box(4), 9: box(9)})
        assert sorted(found) == sorted(fresh)
        for index in fresh:
            assert torch.equal(found[index].logits, fresh[index].logits), index


class TestStraying:
    def corrected(self, key_mask):
        tracker = propagator()
        before = {index: disc(9, 31, 31, size=64) for index in ALONG}
        return before, tracker.correct(before, {7: key_mask}, 1, 7, {1: (0, 16)})

    def test_a_small_correction_does_not_change_all_that_follows(self):
        key_mask = disc(9.3, 31, 31, size=64)
        before, after = self.corrected(key_mask)
        assert after == {**before, 7: key_mask}

    def test_a_large_one_does(self):
        before, after = self.corrected(disc(12, 31, 31, size=64))
        for index in set(ALONG) - {7}:
            assert after[index].area > 1.5 * before[index].area


class Doubtful(BrightRegion):
    """Sees the target on dim slices too, and expects little of its masks there."""

    def decode(self, embedding, prompts, multimask=False):
        found = super().decode(embedding, prompts, multimask)
        dim = embedding.features[0].amax((1, 2, 3)) < 0.7
        return replace(found, quality=torch.where(dim[:, None], 0.1, found.quality))


class TestBridging:
    def corrected(self, image, dim):
        tracker = propagator(image, Doubtful())
        data = tracker.decoder.encoder.data
        data[:, :, list(dim)] = np.minimum(data[:, :, list(dim)], 0.6)
        first = reached(tracker, {4: box(4)})
        key_masks = {4: tracker.answer(4, box(4)), 11: tracker.answer(11, click(11))}
        return first, tracker.correct(first, key_masks, 1, 11, {1: (0, 16)})

    def test_no_gap_where_the_network_saw_the_target_and_doubted_its_mask(self):
        first, after = self.corrected(TUBE, (7, 8, 9))
        assert sorted(first) == list(range(2, 7))
        assert sorted(after) == list(ALONG)
        assert all(after[index].area >= after[11].area for index in (7, 8, 9))
        assert {i: after[i] for i in first} == first

    def test_a_part_apart_stays_apart(self):
        image = TUBE.copy()
        image[:, :, 7:10] = False
        _, after = self.corrected(image, ())
        assert sorted(after) == [i for i in ALONG if i not in (7, 8, 9)]
