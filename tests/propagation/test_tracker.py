import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, discs
from tracks_kit import ALONG, FRAME, TUBE, box, click, disc, propagator, reached, shown

from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.slice_prompts import GIVEN_MASK_LOGIT, SlicePrompts
from promptseg.propagation.stopping import StopCriteria
from promptseg.propagation.tracker import Tracker
from promptseg.volume.slicing import Frame


class TestHandingOn:
    @pytest.mark.parametrize("family", ["promptseg", "sam"])
    def test_only_that_reaches_the_network(self, family):
        backbone = BrightRegion(family=family)
        walker = propagator(backbone=backbone)
        anchor = walker.answer(6, click(6))
        backbone.asked.clear()
        walker.propagate({1: {6: anchor}}, {1: (0, 16)})
        assert backbone.asked
        for batch in backbone.asked:
            assert batch.has_mask.all() == (family == "promptseg")
            assert batch.has_box.all() == (family == "sam")
            assert not (batch.labels >= 0).any()


class TestAnswering:
    def test_a_slice_is_answered_once(self):
        walker = propagator()
        first = walker.answer(6, click(6))
        assert walker.answer(6, click(6)) is first
        assert walker.decoder.decoded == 1

    def test_a_given_mask_is_taken_as_it_is(self):
        backbone = BrightRegion()
        plane = np.zeros((32, 32), bool)
        plane[3:9, 4:20] = True
        walker = propagator(backbone=backbone)
        answer = walker.answer(6, SlicePrompts(mask=plane))
        np.testing.assert_array_equal(shown(answer), plane)
        assert answer.logits.abs().max() <= GIVEN_MASK_LOGIT
        assert (answer.quality, backbone.encoded, backbone.asked) == (1.0, 0, [])

    def test_corrections_come_with_the_answer_before_them(self):
        backbone = BrightRegion()
        walker = propagator(backbone=backbone)
        walker.answer(
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
        walker = propagator(backbone=backbone)
        prior = walker.answer(6, click(6))
        walker.answer(7, click(7, row=20, label=1, correction=True), prior)
        assert torch.equal(backbone.asked[-1].masks[0, 0], prior.logits)

    def test_a_single_click_is_ambiguous_and_its_correction_is_not(self):
        calls = []

        class Watching(BrightRegion):
            def decode(self, embedding, prompts, multimask=False):
                calls.append(multimask)
                return super().decode(embedding, prompts, multimask)

        walker = propagator(backbone=Watching())
        walker.answer(6, click(6))
        walker.answer(
            6,
            SlicePrompts(points=[(15, 15, 6), (2, 2, 6)], labels=[1, 0], correction=[False, True]),
        )
        walker.answer(7, box(7))
        assert calls == [True, False, False]


class TestPropagating:
    def test_reaches_what_is_there_and_no_more(self):
        found = reached(propagator(), {6: box(6)})
        assert sorted(found) == list(ALONG)
        for index, answer in found.items():
            np.testing.assert_array_equal(shown(answer), TUBE[:, :, index])

    def test_anchors_are_kept_as_they_are(self):
        walker = propagator()
        anchor = walker.answer(6, box(6))
        plane = np.zeros((32, 32), bool)
        plane[10:14, 10:14] = True
        given = walker.answer(9, SlicePrompts(mask=plane))
        found = walker.propagate({1: {6: anchor, 9: given}}, {1: (0, 16)})[1]
        assert found[6] is anchor
        assert found[9] is given

    def test_limits_are_kept(self):
        assert sorted(reached(propagator(), {6: box(6)}, (4, 9))) == [4, 5, 6, 7, 8]

    def test_progress_counts_answered_slices(self):
        extent_given = []
        walker = propagator()
        walker.progress = lambda *step: extent_given.append(step)
        reached(walker, {6: box(6)})
        assert {stage for stage, _, _ in extent_given} == {"propagate"}
        assert [done for _, done, _ in extent_given] == sorted(
            {done for _, done, _ in extent_given}
        )
        assert all(done <= total for _, done, total in extent_given)


class TestLaziness:
    def test_slices_beyond_the_target_are_hardly_encoded(self):
        shape = (32, 32, 80)
        image = discs(shape, 2, dict.fromkeys(range(40, 46), (15, 15, 6)))
        backbone = BrightRegion()
        encoder = bright_encoder(image, backbone, batch_size=4)
        frame = Frame(2, FRAME.region, shape, FRAME.spacing, 64)
        walker = Tracker(SliceDecoder(encoder), frame)
        walker.propagate({1: {42: walker.answer(42, box(42))}}, {1: (0, 80)})
        assert backbone.encoded <= 6 + 2 * (1 + 1) + 2 * 4

    def test_slices_ahead_are_encoded_in_batches_that_grow_with_the_walk(self):
        backbone = BrightRegion()
        walker = propagator(backbone=backbone, batch_size=4)
        reached(walker, {6: box(6)})
        assert backbone.batches[0] == 1
        assert backbone.batches[1:4] == [2, 4, 4]
        assert max(backbone.batches) == 4


class TestWalkingOnce:
    def count(self, walker, anchors):
        before = walker.decoder.decoded
        found = reached(walker, anchors)
        return walker.decoder.decoded - before, found

    def test_the_same_again_costs_nothing(self):
        walker = propagator()
        _, first = self.count(walker, {6: box(6)})
        again, second = self.count(walker, {6: box(6)})
        assert again == 0
        assert list(first) == list(second)
        assert all(torch.equal(first[i].logits, second[i].logits) for i in first)

    def test_a_new_anchor_costs_its_own_stretch(self):
        walker = propagator()
        self.count(walker, {6: box(6)})
        cost, _ = self.count(walker, {6: box(6), 9: click(9)})
        assert cost == 1 + 2 + (12 - 9) + 2

    def test_taking_the_anchor_back_costs_nothing_and_restores_all(self):
        walker = propagator()
        _, first = self.count(walker, {6: box(6)})
        self.count(walker, {6: box(6), 9: click(9)})
        cost, back = self.count(walker, {6: box(6)})
        assert cost == 0
        assert sorted(first) == sorted(back)
        assert all(torch.equal(first[i].logits, back[i].logits) for i in first)

    def test_a_wider_range_goes_on_where_the_walk_ended(self):
        walker = propagator()
        anchors = {1: {6: walker.answer(6, box(6))}}
        walker.propagate(anchors, {1: (5, 8)})
        before = walker.decoder.decoded
        wide = walker.propagate(anchors, {1: (3, 11)})[1]
        assert sorted(wide) == list(range(3, 11))
        assert walker.decoder.decoded - before == 5

    @pytest.mark.parametrize("gap", [7, 8, 9])
    @pytest.mark.parametrize("order", ["far first", "near first"])
    def test_what_was_walked_before_does_not_change_the_answer(self, gap, order):
        image = TUBE.copy()
        image[:, :, gap] = False
        fresh = reached(propagator(image), {4: box(4), 9: box(9)})
        walker = propagator(image)
        anchors = {4: walker.answer(4, box(4))}
        walker.propagate({1: anchors}, {1: (0, 16) if order == "far first" else (3, 6)})
        found = reached(walker, {4: box(4), 9: box(9)})
        assert sorted(found) == sorted(fresh)
        for index in fresh:
            assert torch.equal(found[index].logits, fresh[index].logits), index


class TestStraying:
    def corrected(self, anchor):
        walker = propagator(criteria=StopCriteria(similarity=0.0))
        before = {index: disc(9, 31, 31, size=64) for index in ALONG}
        return before, walker.correct(before, {7: anchor}, 1, 7, {1: (0, 16)})

    def test_a_small_correction_does_not_change_all_that_follows(self):
        anchor = disc(9.3, 31, 31, size=64)
        before, after = self.corrected(anchor)
        assert after == {**before, 7: anchor}

    def test_a_large_one_does(self):
        before, after = self.corrected(disc(12, 31, 31, size=64))
        for index in set(ALONG) - {7}:
            assert after[index].area > 1.5 * before[index].area


class Blind:
    """Other axes that see nothing on some slices and have no say elsewhere."""

    name = "blind"

    def __init__(self, slices):
        self.slices = slices

    def at(self, index):
        return torch.full((64, 64), -8.0) if index in self.slices else None

    def sees_nothing(self, index, least_area):
        return index in self.slices

    def lead(self, index, slices, carried):
        return carried

    def vote(self, index, slices, answer):
        return answer


class TestBridging:
    def corrected(self, image, blind):
        walker = propagator(image, criteria=StopCriteria(similarity=0.0))
        guides = {1: Blind(blind)}
        first = reached(walker, {4: box(4)}, guides=guides)
        anchors = {4: walker.answer(4, box(4)), 11: walker.answer(11, click(11))}
        return first, walker.correct(first, anchors, 1, 11, {1: (0, 16)}, guides)

    def test_no_gap_where_the_network_saw_the_target_and_was_overruled(self):
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
