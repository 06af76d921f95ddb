"""What a lone click could mean, seen from several distances."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, bright_volume, dice, discs, segmenter

import promptseg as ps
from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.multimask import (
    ALIKE,
    EMPTY,
    OFFERED,
    VIEWS,
    MaskCandidate,
    distinct,
    judged,
    mask_candidates,
    overlap,
    stability,
    views,
)
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.predictor.engine import Engine
from promptseg.prompts.types import PromptSet
from promptseg.volume.slicing import Frame, Region

SHAPE = (160, 140, 4)
EVEN = (1.0, 1.0, 1.0)
DISC = discs(SHAPE, 2, {2: (60, 70, 12)})
FRAME = Frame(2, Region((0, 64), (0, 64)), (64, 64, 4), EVEN, 64)


def click(row, col, index=2):
    return SlicePrompts(points=[(row, col, index)], labels=[1], correction=[False])


def found_for(image, row, col, backbone=None):
    decoder = SliceDecoder(bright_encoder(image, backbone))
    return mask_candidates(decoder, 2, EVEN, 2, click(row, col))


def cone(radius, slope):
    """(64, 64) logits that cross zero at a radius, the flatter the more doubtful."""
    rows, cols = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return slope * (radius - torch.hypot(rows - 32, cols - 32))


class FillsItsView(BrightRegion):
    """Finds the target in a view that it fills by about a half; else draws a doubtful blob."""

    def decode(self, embedding, prompts, multimask=False):
        found = super().decode(embedding, prompts, multimask)
        if not multimask:
            return found
        share = (found.logits[:, 1] > 0).float().mean((1, 2)).sqrt()
        fits = ((share > 0.35) & (share < 0.7))[:, None, None, None]
        blob = cone(16, 0.1).expand_as(found.logits)
        return replace(found, logits=torch.where(fits, found.logits, blob))


class TestViews:
    def test_they_shrink_from_the_whole_slice_about_the_click(self):
        decoder = SliceDecoder(bright_encoder(DISC))
        seen = views(decoder, 2, EVEN, click(60, 70))
        sides = [view.shape[0] for view in seen]
        assert len(seen) == VIEWS
        assert seen[0].shape == (160, 160)
        assert all(0.65 < b / a < 0.78 for a, b in pairwise(sides))
        assert all(view.contains(Region((60, 61), (70, 71))) for view in seen)

    def test_small_slices_are_not_seen_twice_alike(self):
        decoder = SliceDecoder(bright_encoder(DISC[:30, :30]))
        seen = views(decoder, 2, EVEN, click(10, 10))
        assert len(seen) == len(set(seen)) < VIEWS

    def test_all_are_encoded_in_one_batch(self):
        backbone = BrightRegion()
        found_for(DISC, 60, 70, backbone)
        assert backbone.batches == [VIEWS]


class TestTrust:
    def test_stability_is_the_share_that_any_threshold_keeps(self):
        logits = torch.full((8, 8), -8.0)
        logits[:2, :4] = 8
        assert stability(logits) == 1.0
        logits[2, :4] = 0.5
        logits[3, :4] = -0.5
        assert stability(logits) == pytest.approx(8 / 16)
        assert stability(torch.full((8, 8), -8.0)) == 0.0

    def test_a_sharp_candidate_goes_before_a_doubtful_one_of_greater_quality(self):
        logits = torch.stack([cone(16, 0.1), cone(16, 4.0)])
        doubtful, sharp = judged(FRAME, logits, torch.tensor([0.8, 0.7]))
        assert sharp.trust > doubtful.trust
        assert (doubtful.quality, sharp.quality) == pytest.approx((0.8, 0.7))

    def test_a_better_view_goes_before_a_worse_one(self):
        logits = cone(16, 4.0)[None]
        (good,) = judged(FRAME, logits, torch.tensor([0.9]))
        (poor,) = judged(FRAME, logits, torch.tensor([0.4]))
        assert good.trust == pytest.approx(poor.trust + 0.5)

    def test_a_mask_that_leaves_its_view_is_trusted_less(self):
        frame = Frame(2, Region((20, 84), (20, 84)), SHAPE, EVEN, 64)
        inner = cone(16, 50.0)
        cut = inner.clone()
        cut[30:34] = 50
        kept, leaving = judged(frame, torch.stack([inner, cut]), torch.tensor([0.8, 0.8]))
        assert leaving.trust < kept.trust

    def test_a_view_whose_best_is_empty_counts_for_nothing(self):
        logits = torch.stack([torch.full((64, 64), -8.0), cone(16, 4.0)])
        assert [m.trust for m in judged(FRAME, logits, torch.tensor([0.9, 0.5]))] == [EMPTY] * 2
        assert judged(FRAME, logits, torch.tensor([0.5, 0.9]))[1].trust > 0


class TestMeanings:
    def test_the_first_is_the_target(self):
        found = found_for(DISC, 62, 66)
        assert len(found) == OFFERED
        assert dice(found[0].mask, DISC[:, :, 2]) > 0.97

    @pytest.mark.parametrize("radius", [10, 20, 40])
    def test_the_right_distance_is_found_whatever_the_size(self, radius):
        image = discs(SHAPE, 2, {2: (70, 70, radius)})
        found = found_for(image, 70, 70, FillsItsView())
        assert dice(found[0].mask, image[:, :, 2]) > 0.95

    def test_what_holds_the_click_goes_first(self):
        class Elsewhere(BrightRegion):
            """Is surest of the background."""

            def decode(self, embedding, prompts, multimask=False):
                found = super().decode(embedding, prompts, multimask)
                quality = torch.tensor([[0.9, 0.3, 0.5]]) if multimask else found.quality
                return replace(
                    found, quality=quality.expand(len(prompts), -1), logits=found.logits.roll(1, 1)
                )

        assert dice(found_for(DISC, 60, 70, Elsewhere())[0].mask, DISC[:, :, 2]) > 0.97

    def test_a_click_on_nothing_means_nothing(self):
        assert found_for(DISC, 10, 10) == []

    def test_a_click_at_the_rim_of_the_slice_is_inside(self):
        image = discs(SHAPE, 2, {2: (159, 139, 12)})
        assert dice(found_for(image, 159.4, 139.4)[0].mask, image[:, :, 2]) > 0.9


class TestDistinct:
    def meaning(self, stop, trust):
        mask = np.zeros((10, 10), bool)
        mask[:stop] = True
        return MaskCandidate(mask, 0.5, trust)

    def test_near_doubles_are_left_out(self):
        ranked = [self.meaning(10, 0.9), self.meaning(9, 0.8), self.meaning(5, 0.7),
                  self.meaning(2, 0.6)]  # fmt: skip
        assert overlap(ranked[0].mask, ranked[1].mask) > ALIKE
        assert [m.trust for m in distinct(ranked, 3)] == [0.9, 0.7, 0.6]

    def test_doubles_fill_up_what_is_missing(self):
        ranked = [self.meaning(10, 0.9), self.meaning(10, 0.8), self.meaning(5, 0.7)]
        assert [m.trust for m in distinct(ranked, 3)] == [0.9, 0.7, 0.8]


def engine_of(image, backbone):
    return Engine(bright_encoder(image, backbone), 2, EVEN)


def run(engine, *prompts):
    return engine.run(PromptSet(prompts).to_voxel(bright_volume(DISC)), propagate=False)


class TestEngine:
    def test_the_network_is_told_of_the_guess(self):
        backbone = BrightRegion()
        run(engine_of(DISC, backbone), ps.Point((60, 70, 2)))
        assert not backbone.asked[0].has_mask.any()
        assert backbone.asked[-1].has_mask.tolist() == [True]
        assert backbone.asked[-1].labels.tolist() == [[1]]

    def test_the_view_fits_the_guess(self):
        (answered,) = run(engine_of(DISC, BrightRegion()), ps.Point((60, 70, 2)))
        assert answered.frame.region.shape == pytest.approx((25 * 1.7, 25 * 1.7), abs=3)

    def test_asking_again_computes_nothing(self):
        backbone = BrightRegion()
        engine = engine_of(DISC, backbone)
        run(engine, ps.Point((60, 70, 2)))
        before = len(backbone.asked), backbone.encoded
        run(engine, ps.Point((60, 70, 2)))
        assert (len(backbone.asked), backbone.encoded) == before

    @pytest.mark.parametrize(
        "prompts",
        [
            (ps.Box((45, 55, 2), (76, 86, 3)),),
            (ps.Point((60, 70, 2)), ps.Point((55, 70, 2))),
            (ps.Point((60, 70, 2)), ps.Box((45, 55, 1), (76, 86, 2))),
            (ps.Scribble(np.array([[60, 68, 2], [60, 69, 2]])), ps.Point((60, 70, 1))),
        ],
    )
    def test_other_prompts_are_not_guessed_at(self, prompts):
        backbone = BrightRegion()
        run(engine_of(DISC, backbone), *prompts)
        assert not any(bool(batch.has_mask.any()) for batch in backbone.asked)

    def test_networks_of_whole_slices_are_asked_once(self):
        backbone = BrightRegion(family="sam", crop=False)
        run(engine_of(DISC, backbone), ps.Point((60, 70, 2)))
        assert len(backbone.asked) == 1

    def test_a_correction_builds_on_the_answer_to_the_click(self):
        clicked = segmenter().session(bright_volume(DISC))
        clicked.add(ps.Point((60, 70, 2)))
        before = clicked.answer(propagate=False).data
        clicked.add(ps.Point((5, 5, 2), positive=False))
        np.testing.assert_array_equal(clicked.answer(propagate=False).data, before)
        clicked.undo()
        np.testing.assert_array_equal(clicked.answer(propagate=False).data, before)
