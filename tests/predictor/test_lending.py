"""A network without a slice step, and the one that goes through the slices for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, bright_volume, dice, discs, filled, segmenter

import promptseg as ps
from promptseg.backbones.memory import MemorySpan
from promptseg.inference.decoder import SliceMask
from promptseg.predictor.engine import Engine
from promptseg.prompts.types import PromptSet
from promptseg.propagation.postprocessing import Consistency
from promptseg.propagation.slice_step import SliceStep

SHAPE = (96, 96, 16)
TUBE = discs(SHAPE, 2, dict.fromkeys(range(3, 12), (40, 44, 9)))
BOX = ps.Box((31, 35, 7), (50, 54, 8))


class Carrying(SliceStep):
    """A step that hands on what it is handed, as far as the image is bright."""

    def __init__(self):
        super().__init__(torch.nn.Identity(), "lent", "c" * 64)

    def answers(self, embedding, places, precision, batch_size=16):
        bright = embedding.features[0].amax((1, 2, 3)) > 0.5
        return [
            SliceMask(place.neighbour[0], 0.9, float(seen))
            for place, seen in zip(places, bright, strict=True)
        ]


class Small(BrightRegion):
    """Answers what it is asked with a mask of half its size, however it is asked."""

    def _answer(self, grey, prompts, row):
        found = super()._answer(grey, prompts, row)
        inside = np.argwhere(found > 0)
        if len(inside):
            low, high = inside.min(0), inside.max(0) + 1
            middle, half = (low + high) / 2, (high - low) / 4
            away = np.abs(np.argwhere(np.ones_like(found)) + 0.5 - middle)
            found = np.where((away <= half).all(1).reshape(found.shape), found, -8.0)
        return found


def engine_of(borrower, image=TUBE, owner=None):
    lent = bright_encoder(image, BrightRegion(name="lent") if owner is None else owner)
    return Engine(
        bright_encoder(image, borrower), 2, np.ones(3), None, Consistency(coarse=True), None,
        Carrying(), lent,
    )  # fmt: skip


def labels_of(engine, *prompts):
    groups = engine.run(PromptSet(prompts))
    found = np.zeros(SHAPE, bool)
    for group in groups:
        image, region = group.frame.paste_slices()
        for masks in group.answers.values():
            for index, mask in masks.items():
                restored = group.frame.restore(mask.logits[None])[0].numpy()
                found[:, :, index][image] |= restored[region] > 0
    return found


class TestWhole:
    @pytest.mark.parametrize("crop", [True, False])
    @pytest.mark.parametrize("family", ["promptseg", "sam"])
    def test_it_goes_as_far_as_the_step_sees_the_target(self, crop, family):
        found = labels_of(engine_of(BrightRegion(crop=crop, family=family)), BOX)
        assert filled(found, 2) == filled(TUBE, 2)
        assert dice(found, TUBE) > 0.9

    def test_the_borrower_says_what_is_inside(self):
        found = labels_of(engine_of(Small()), BOX)
        areas = found.sum((0, 1))
        assert filled(found, 2) == filled(TUBE, 2)
        assert areas[7] < 0.5 * TUBE[:, :, 7].sum()
        assert areas.max() < 0.7 * TUBE[:, :, 7].sum()

    def test_its_prompted_slice_is_asked_once_and_the_others_of_what_arrived(self):
        borrower = BrightRegion()
        labels_of(engine_of(borrower), BOX)
        first, *rest = borrower.asked
        assert first.has_box.tolist() == [True]
        assert not first.has_mask.any()
        assert sum(len(batch.has_mask) for batch in rest) == len(filled(TUBE, 2)) - 1
        assert all(batch.has_mask.all() for batch in rest)

    def test_a_family_that_takes_boxes_is_shown_boxes(self):
        borrower = BrightRegion(family="sam")
        labels_of(engine_of(borrower), BOX)
        assert all(batch.has_box.all() and not batch.has_mask.any() for batch in borrower.asked)

    def test_the_lender_is_never_asked_of_a_prompted_slice(self):
        owner = BrightRegion(name="lent")
        labels_of(engine_of(BrightRegion(), owner=owner), BOX)
        assert all(not batch.has_box.any() for batch in owner.asked)
        assert sum(len(batch.has_mask) for batch in owner.asked) >= len(filled(TUBE, 2)) - 1

    def test_a_given_mask_is_kept_as_it_is(self):
        plane = np.zeros(SHAPE[:2], bool)
        plane[33:47, 38:50] = True
        found = labels_of(engine_of(BrightRegion()), ps.Mask(plane, axis=2, index=7))
        np.testing.assert_array_equal(found[:, :, 7], plane)
        assert filled(found, 2) == filled(TUBE, 2)

    def test_a_target_that_grows_out_of_its_view_is_seen_whole(self):
        cone = discs(SHAPE, 2, {k: (40, 44, 4 + 3 * (k - 2)) for k in range(3, 12)})
        found = labels_of(engine_of(BrightRegion(), cone), ps.Box((34, 38, 3), (47, 51, 4)))
        assert dice(found, cone) > 0.8

    def test_two_targets_are_told_apart(self):
        two = TUBE | discs(SHAPE, 2, dict.fromkeys(range(5, 9), (75, 20, 6)))
        other = ps.Box((69, 14, 6), (82, 27, 7), target=2)
        groups = engine_of(BrightRegion(), two).run(PromptSet([BOX, other]))
        slices = {t: sorted(m) for group in groups for t, m in group.answers.items()}
        assert slices == {1: list(range(3, 12)), 2: list(range(5, 9))}


class TestAskedOnce:
    def test_the_same_again_costs_nothing(self):
        borrower, owner = BrightRegion(), BrightRegion(name="lent")
        engine = engine_of(borrower, owner=owner)
        click = ps.Point((40, 44, 9), positive=False)
        first = labels_of(engine, BOX, click)
        asked = len(borrower.asked), len(owner.asked)
        np.testing.assert_array_equal(labels_of(engine, BOX, click), first)
        assert (len(borrower.asked), len(owner.asked)) == asked

    def test_a_click_asks_no_slice_that_it_does_not_reach(self):
        borrower = BrightRegion()
        engine = engine_of(borrower)
        labels_of(engine, BOX)
        borrower.asked.clear()
        labels_of(engine, BOX, ps.Point((40, 44, 9), positive=False))
        assert sum(len(batch.has_mask) for batch in borrower.asked) < len(filled(TUBE, 2))


class TestCorrect:
    def test_a_click_changes_its_stretch_and_keeps_the_prompted_slice(self):
        two = TUBE | discs(SHAPE, 2, dict.fromkeys(range(3, 12), (57, 44, 6)))
        engine = engine_of(BrightRegion(), two)
        before = labels_of(engine, BOX)
        click = ps.Point((57, 44, 9), role="correction")
        after = labels_of(engine, BOX, click)
        assert dice(before, TUBE) > 0.9
        np.testing.assert_array_equal(after[:, :, 7], before[:, :, 7])
        assert dice(after[:, :, 9:], two[:, :, 9:]) > 0.9

    def test_taking_it_back_gives_what_there_was(self):
        engine = engine_of(BrightRegion())
        before = labels_of(engine, BOX)
        labels_of(engine, BOX, ps.Point((40, 44, 9), positive=False))
        np.testing.assert_array_equal(labels_of(engine, BOX), before)


class TestRuntime:
    def test_the_shipped_network_and_its_step_are_lent(self):
        lent = segmenter(step="auto").runtime.lent
        assert lent.step.base == lent.backbone.spec.sha256 != "bright"

    def test_not_where_none_is_wanted(self):
        assert segmenter().runtime.lent is None

    def test_not_to_a_network_with_a_step(self):
        own = SliceStep(torch.nn.Identity(), "bright", "0" * 64)
        assert segmenter(step=own).runtime.lent is None

    def test_not_to_a_network_with_a_memory(self):
        remembering = BrightRegion(name="memory")
        remembering.span = MemorySpan(6, 16, 4)
        remembering.spec = replace(remembering.spec, propagates="memory")
        assert segmenter(remembering, step="auto").runtime.lent is None


class TestSegment:
    def test_the_shipped_step_follows_what_another_network_found(self):
        owner = segmenter(step="auto")
        found = owner.segment(bright_volume(TUBE), [BOX])
        assert dice(found.data == 1, TUBE) > 0.85
        assert found.report["step"] == owner.runtime.lent.step.sha256
        plain = owner.segment(bright_volume(TUBE), [BOX], consistency="none")
        assert plain.report["step"] is None
        assert found.report["lent"] == owner.runtime.lent.backbone.spec.sha256
        assert plain.report["lent"] is None
        assert found.report["model"]["name"] == plain.report["model"]["name"] == "bright"
