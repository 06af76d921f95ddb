from dataclasses import replace

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, discs

from promptseg.decoding import SliceDecoder, SliceMask
from promptseg.propagation import (
    Propagator,
    StopRules,
    Walk,
    WalkState,
    box_of,
    carried_by,
    grey_levels,
    lag_of,
    meet,
    plan_walks,
    rules_for,
    tensor_key,
)
from promptseg.slice_prompts import GIVEN_MASK_LOGIT, SlicePrompts
from promptseg.slicing import Frame, Region

SHAPE = (32, 32, 16)
FRAME = Frame(2, Region((0, 32), (0, 32)), SHAPE, (1.0, 1.0, 1.0), 64)
ALONG = range(2, 13)
TUBE = discs(SHAPE, 2, dict.fromkeys(ALONG, (15, 15, 6)))


def disc(radius=8, row=None, column=None, quality=0.9, presence=1.0, size=32):
    row = size / 2 if row is None else row
    column = size / 2 if column is None else column
    rows, columns = np.indices((size, size))
    inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return SliceMask(torch.from_numpy(inside * 16.0 - 8).float(), quality, presence)


EMPTY = SliceMask(torch.full((32, 32), -8.0), 0.9)


def flat(value, quality=0.9):
    return SliceMask(torch.full((4, 4), float(value)), quality)


def click(index, row=15, col=15, label=1, correction=False):
    return SlicePrompts(points=[(row, col, index)], labels=[label], correction=[correction])


def box(index, low=8, high=23):
    return SlicePrompts(box=((low, low, index), (high, high, index + 1)))


def propagator(image=TUBE, backbone=None, rules=None, batch_size=4):
    encoder = bright_encoder(image, backbone, batch_size=batch_size)
    return Propagator(SliceDecoder(encoder), FRAME, rules)


def reached(walker, anchors, limits=(0, 16)):
    masks = {i: walker.answer(i, p) for i, p in anchors.items()}
    return walker.propagate({1: masks}, {1: limits})[1]


def shown(answer):
    return FRAME.restore(answer.logits[None])[0].numpy() > 0


class TestStopRules:
    def test_the_same_again_is_trusted(self):
        assert not StopRules().poor(disc(), disc().logits)

    @pytest.mark.parametrize(
        "answer",
        [
            disc(presence=0.4),
            disc(quality=0.2),
            disc(column=28),
            disc(radius=13.5),
            disc(radius=3),
            disc(radius=1),
            EMPTY,
        ],
        ids=["absent", "poor quality", "jumped", "burst", "shrunk", "speck", "empty"],
    )
    def test_a_sudden_change_is_not(self, answer):
        assert StopRules().poor(answer, disc().logits)

    @pytest.mark.parametrize("answer", [disc(radius=10), disc(radius=5), disc(column=20)])
    def test_a_gradual_change_is(self, answer):
        assert not StopRules().poor(answer, disc().logits)

    def test_other_grey_levels_inside_are_not(self):
        rules = StopRules()
        doubtful = replace(disc(), quality=0.6)
        assert rules.poor(replace(doubtful, likeness=0.8), disc().logits)
        assert not rules.poor(replace(doubtful, likeness=0.95), disc().logits)

    def test_a_good_answer_on_a_thick_slice_may_look_different(self):
        odd = replace(disc(), likeness=0.5, quality=0.8)
        assert not rules_for(StopRules(), lag=1).poor(odd, disc().logits)
        assert rules_for(StopRules(), lag=3).poor(odd, disc().logits)

    def test_a_slice_unlike_the_target_is_poor_however_sure_the_answer(self):
        thick = rules_for(StopRules(), lag=1)
        sure = replace(disc(), quality=0.95)
        assert thick.poor(replace(sure, likeness=0.05), disc().logits)
        assert not thick.poor(replace(sure, likeness=0.3), disc().logits)

    def test_grey_levels_count_for_nothing_where_likeness_is_off(self):
        odd = replace(disc(), likeness=0.0)
        assert not StopRules(likeness=0).poor(odd, disc().logits)
        assert StopRules().poor(odd, disc().logits)

    def test_every_limit_can_be_set(self):
        burst = disc(radius=13.5)
        assert not StopRules(growth=4, overlap=0).poor(burst, disc().logits)
        assert StopRules(growth=1.2).poor(disc(radius=10), disc().logits)
        assert StopRules(least_area=500).poor(disc(), disc().logits)


class TestWalk:
    def state(self, **changes):
        return WalkState(Walk(1, 5, 1, 12), 6, disc().logits, **changes)

    def test_one_poor_slice_is_bridged_by_its_neighbours(self):
        state, rules = self.state(), StopRules()
        for answer in (EMPTY, disc(radius=10)):
            state.take(answer, rules)
        assert list(state.answers) == [6, 7]
        expected = (disc(radius=8).logits + disc(radius=10).logits) / 2
        assert torch.equal(state.answers[6].logits, expected)
        assert (state.misses, state.pending, state.active) == (0, {}, True)

    def test_the_walk_ends_after_its_patience(self):
        state = self.state()
        state.take(EMPTY, StopRules())
        assert state.active
        state.take(EMPTY, StopRules())
        assert not state.active
        assert state.answers == {}

    @pytest.mark.parametrize("patience", [0, 1, 2, 3])
    def test_patience_counts_poor_slices_in_a_row(self, patience):
        state, rules = self.state(), StopRules(patience=patience)
        for _ in range(patience):
            state.take(EMPTY, rules)
        assert state.active
        state.take(disc(), rules)
        assert sorted(state.answers) == list(range(6, 7 + patience))
        for _ in range(patience + 1):
            state.take(EMPTY, rules)
        assert not state.active

    def test_poor_slices_hand_nothing_on(self):
        state = self.state()
        state.take(disc(column=28), StopRules())
        assert torch.equal(state.carried, disc().logits)

    def test_a_walk_ends_at_its_stop(self):
        state = WalkState(Walk(1, 5, -1, 3), 4, disc().logits)
        state.take(disc(), StopRules())
        assert (state.index, state.active, state.lost) == (3, False, False)


class TestThinSlices:
    """On thin slices the mask that is handed on lies some slices back."""

    @pytest.mark.parametrize(("spacing", "lag"), [(0.4, 5), (1.0, 3), (2.0, 2), (5.0, 1)])
    def test_how_far_back_follows_the_spacing(self, spacing, lag):
        assert lag_of(Frame(2, FRAME.region, SHAPE, (1.0, 1.0, spacing), 64)) == lag

    @pytest.mark.parametrize("step", [1, -1])
    def test_the_anchor_first_and_then_what_lies_far_enough_back(self, step):
        state = WalkState(Walk(1, 8, step, 8 + 8 * step), 8 + step, disc(radius=5).logits)
        handed = []
        for radius in (6, 7, 8, 9, 10):
            handed.append(int((state.handed_on(3) > 0).sum()))
            state.take(disc(radius=radius), StopRules())
        assert handed == [disc(radius=r).area for r in (5, 5, 5, 6, 7)]

    def test_poor_slices_are_never_handed_on(self):
        state = WalkState(Walk(1, 5, 1, 16), 6, disc().logits)
        for answer in (disc(radius=7), EMPTY):
            state.take(answer, StopRules(patience=3))
        for _ in range(2):
            state.take(EMPTY, StopRules(patience=3))
            assert torch.equal(state.handed_on(1), disc(radius=7).logits)

    def test_networks_that_take_boxes_get_the_neighbour(self):
        thin = Frame(2, FRAME.region, SHAPE, (1.0, 1.0, 0.5), 64)
        for family, lag in (("promptseg", 5), ("sam", 1)):
            decoder = SliceDecoder(bright_encoder(TUBE, BrightRegion(family=family)))
            assert Propagator(decoder, thin).lag == lag


class TestLikeness:
    def compared(self, grey, radius=7.0):
        """Likeness of a disc of `grey` on slice 6 to one of 0.8 on slice 5."""
        encoder = bright_encoder(np.zeros(SHAPE, bool))
        encoder.data[:, :, 5], encoder.data[:, :, 6] = 0.8, grey
        walker = Propagator(SliceDecoder(encoder), FRAME)
        state = WalkState(Walk(1, 5, 1, 16), 6, disc(radius=14, size=64).logits)
        answer = disc(radius=2 * radius, size=64)
        return walker._likeness(state, answer)

    def test_the_same_levels_are_alike_and_others_are_not(self):
        assert self.compared(0.8) == pytest.approx(1.0)
        assert self.compared(0.72) < 0.97
        assert self.compared(0.3) < 0.05

    def test_a_given_mask_well_inside_its_organ_does_not_end_the_walk(self):
        backbone = BrightRegion()
        encoder = bright_encoder(TUBE, backbone)
        rows, columns, _ = np.indices(SHAPE)
        away = np.hypot(rows - 15, columns - 15)
        encoder.data = np.where(TUBE, 0.55 + 0.06 * away, 0.0).astype(np.float32)
        walker = Propagator(SliceDecoder(encoder), FRAME)
        plane = np.zeros((32, 32), bool)
        plane[away[:, :, 6] <= 4.6] = True
        found = reached(walker, {6: SlicePrompts(mask=plane)})
        assert sorted(found) == list(ALONG)

    def test_a_mask_that_shrinks_is_forgiven(self):
        assert self.compared(0.7, radius=2) > self.compared(0.7) + 0.1

    def test_shares_add_up_and_an_empty_mask_has_no_preference(self):
        grey = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
        assert float(grey_levels(grey, disc().logits).sum()) == pytest.approx(1.0)
        empty = grey_levels(grey, EMPTY.logits)
        assert torch.all(empty == empty[0])

    def test_every_answer_of_a_walk_carries_it(self):
        found = reached(propagator(), {6: box(6)})
        assert all(0.9 <= answer.likeness <= 1 for answer in found.values())


class TestPlan:
    def test_both_ways_to_the_ends(self):
        walks = plan_walks({1: {5: disc()}}, {1: (0, 16)})
        assert walks == [Walk(1, 5, 1, 16), Walk(1, 5, -1, -1)]

    def test_between_anchors_up_to_the_next(self):
        walks = plan_walks({1: {9: disc(), 3: disc()}}, {1: (0, 16)})
        assert walks == [Walk(1, 3, 1, 9), Walk(1, 3, -1, -1), Walk(1, 9, 1, 16), Walk(1, 9, -1, 3)]

    def test_limits_end_the_outer_walks(self):
        walks = plan_walks({1: {5: disc()}}, {1: (4, 8)})
        assert walks == [Walk(1, 5, 1, 8), Walk(1, 5, -1, 3)]

    def test_an_anchor_outside_the_limits_walks_inwards_only(self):
        states = [
            WalkState(w, w.start + w.step, disc().logits)
            for w in plan_walks({1: {2: disc(), 6: disc()}}, {1: (5, 8)})
        ]
        assert [s.walk for s in states if s.active] == [
            Walk(1, 2, 1, 6), Walk(1, 6, 1, 8), Walk(1, 6, -1, 2)]  # fmt: skip

    def test_empty_anchors_send_nobody_and_still_stop_others(self):
        walks = plan_walks({1: {3: disc(), 9: EMPTY}}, {1: (0, 16)})
        assert walks == [Walk(1, 3, 1, 9), Walk(1, 3, -1, -1)]

    def test_targets_walk_apart(self):
        walks = plan_walks({1: {3: disc()}, 2: {9: disc()}}, {1: (0, 16), 2: (8, 10)})
        assert [w.stop for w in walks if w.target == 1] == [16, -1]
        assert [w.stop for w in walks if w.target == 2] == [10, 7]


class TestMeeting:
    def states(self, left, right):
        forward = WalkState(Walk(1, 0, 1, 8), 8, flat(0).logits, answers=left)
        backward = WalkState(Walk(1, 8, -1, 0), 0, flat(0).logits, answers=right)
        return [forward, backward]

    @pytest.mark.parametrize(("index", "expected"), [(2, 4.0), (4, 0.0), (6, -4.0), (1, 6.0)])
    def test_the_nearer_anchor_weighs_more(self, index, expected):
        states = self.states({index: flat(8)}, {index: flat(-8)})
        found = meet(index, states)
        assert float(found.logits[0, 0]) == pytest.approx(expected)

    def test_quality_and_presence_are_weighted_alike(self):
        states = self.states({2: flat(8, quality=1.0)}, {2: flat(8, quality=0.2)})
        assert meet(2, states).quality == pytest.approx(0.8)

    @pytest.mark.parametrize("index", [1, 4, 7])
    def test_a_lost_walk_has_no_vote(self, index):
        found = flat(3, quality=0.8)
        for left, right in (({index: found}, {}), ({}, {index: found})):
            met = meet(index, self.states(left, right))
            assert torch.equal(met.logits, found.logits)
            assert met.quality == pytest.approx(0.8)

    def test_beyond_the_last_anchor_one_walk_decides(self):
        outer = WalkState(Walk(1, 8, 1, 16), 10, flat(0).logits, answers={9: flat(3)})
        assert float(meet(9, [outer]).logits[0, 0]) == 3


class TestHandingOn:
    def test_ours_gets_masks_and_others_boxes(self):
        assert carried_by(BrightRegion().spec) == "mask"
        assert carried_by(BrightRegion(family="sam2").spec) == "box"

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

    def test_box_surrounds_the_mask_in_pixels_of_the_input(self):
        logits = torch.full((32, 32), -8.0)
        logits[4:12, 10:20] = 8
        x0, y0, x1, y1 = box_of(logits, 64, grow=0.0).tolist()
        assert (x0, y0, x1, y1) == (20, 8, 40, 24)
        assert box_of(logits, 64, grow=0.1).tolist() == pytest.approx([18, 6.4, 42, 25.6])

    def test_box_stays_inside_the_input(self):
        assert box_of(torch.ones(32, 32), 64, grow=0.5).tolist() == [0, 0, 64, 64]


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
        told = []
        walker = propagator()
        walker.progress = lambda *step: told.append(step)
        reached(walker, {6: box(6)})
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
        walker = Propagator(SliceDecoder(encoder), frame)
        walker.propagate({1: {42: walker.answer(42, box(42))}}, {1: (0, 80)})
        assert backbone.encoded <= 6 + 2 * (1 + 1) + 2 * 4

    def test_slices_ahead_are_encoded_in_full_batches(self):
        backbone = BrightRegion()
        walker = propagator(backbone=backbone, batch_size=4)
        reached(walker, {6: box(6)})
        assert backbone.batches[0] == 1
        assert backbone.batches[1:-1] == [4] * (len(backbone.batches) - 2)


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


class TestKey:
    def test_differs_with_the_logits_alone(self):
        assert tensor_key(None) == 0
        assert tensor_key(disc()) == tensor_key(disc(quality=0.1))
        assert tensor_key(disc()) != tensor_key(disc(radius=7))
