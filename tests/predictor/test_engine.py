from dataclasses import replace

import numpy as np
import pytest
import torch
from support import (
    BrightRegion,
    bright_encoder,
    bright_volume,
    dice,
    discs,
    filled,
    segmenter,
    tiny_sam,
)

from promptseg.errors import PromptError
from promptseg.inference.labels import fuse_labels
from promptseg.inference.slice_prompts import REFINE
from promptseg.predictor.engine import Engine
from promptseg.prompts.types import Box, Mask, Point, PromptSet, Scribble, Text
from promptseg.propagation.stopping import StopCriteria
from promptseg.volume.slicing import Frame, Region

EVEN = (1.0, 1.0, 1.0)
SHAPE = (40, 44, 24)


def shape_along(axis, count=24, side=40):
    shape = [side, side, side]
    shape[axis] = count
    return tuple(shape)


def flat_box(mask, axis, index, target=1):
    """Tight box around a mask on one slice."""
    plane = np.zeros_like(mask)
    np.moveaxis(plane, axis, 0)[index] = np.moveaxis(mask, axis, 0)[index]
    inside = np.argwhere(plane)
    return Box(tuple(inside.min(0).tolist()), tuple((inside.max(0) + 1).tolist()), target)


def answer(image, *prompts, axis="auto", backbone=None, **options):
    """(I, J, K) labels of an image that is a bool mask."""
    volume = bright_volume(image)
    options.setdefault("consistency", "none")
    return segmenter(backbone).segment(volume, prompts, axis=axis, **options).data


class Doubtful(BrightRegion):
    """Does not see what its view cuts off, as a network is doubtful of half a target."""

    def decode(self, embedding, prompts, multimask=False):
        found = super().decode(embedding, prompts, multimask)
        inside = found.logits > 0
        cut = inside[..., [0, -1], :].any((1, 2, 3)) | inside[..., [0, -1]].any((1, 2, 3))
        return replace(found, presence=found.presence * ~cut)


def tube(indices, row=20, column=20, radius=5, shape=SHAPE, axis=2):
    return discs(shape, axis, dict.fromkeys(indices, (row, column, radius)))


class TestFollowing:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("start", [4, 10, 17])
    def test_a_moving_growing_blob_along_every_axis_both_ways(self, axis, start):
        shape = shape_along(axis)
        path = {n: (12 + 0.9 * (n - 4), 26 - 0.7 * (n - 4), 4 + 0.25 * (n - 4)) for n in
                range(4, 18)}  # fmt: skip
        blob = discs(shape, axis, path)
        found = answer(blob, flat_box(blob, axis, start)) > 0
        assert filled(found, axis) == list(range(4, 18))
        assert dice(found, blob) > 0.99

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_axis_follows_the_flat_box(self, axis):
        blob = tube(range(24), shape=shape_along(axis), axis=axis)
        result = segmenter().segment(bright_volume(blob), [flat_box(blob, axis, 9)])
        assert result.report["axis"] == axis

    def test_anisotropic_voxels(self):
        blob = discs((30, 60, 12), 2, dict.fromkeys(range(3, 10), (15, 30, 9)))
        volume = bright_volume(blob, (2.0, 0.7, 4.0))
        found = segmenter().segment(volume, [flat_box(blob, 2, 5)]).data > 0
        assert filled(found, 2) == list(range(3, 10))
        assert dice(found, blob) > 0.97

    def test_the_first_and_the_last_slice_are_reached(self):
        blob = tube(range(24))
        assert filled(answer(blob, flat_box(blob, 2, 11)) > 0, 2) == list(range(24))

    def test_a_volume_of_one_slice(self):
        blob = discs((40, 40, 1), 2, {0: (20, 20, 6)})
        np.testing.assert_array_equal(answer(blob, Point((20, 20, 0))) > 0, blob)

    def test_from_a_stroke_and_from_a_click(self):
        blob = tube(range(4, 18))
        stroke = Scribble.polyline([(17, 20, 9), (23, 20, 9)])
        for prompt in (stroke, Point((20, 20, 9))):
            assert dice(answer(blob, prompt) > 0, blob) > 0.99


class TestStopping:
    def test_nothing_beyond_the_end(self):
        blob = tube(range(6, 15))
        apart = tube([4, 16], row=34, column=34)
        found = answer(blob | apart, flat_box(blob, 2, 10)) > 0
        np.testing.assert_array_equal(found, blob)

    def test_a_larger_structure_behind_the_end_is_not_entered_where_growth_has_a_limit(self):
        blob = tube(range(6, 15), radius=4)
        behind = tube(range(15, 24), radius=14)
        engine = Engine(bright_encoder(blob | behind), 2, EVEN, StopCriteria(growth=2.5))
        found = engine.run(PromptSet([flat_box(blob, 2, 10)]))[0].answers[1]
        assert sorted(found) == list(range(6, 15))

    def test_a_gap_of_one_slice_is_bridged(self):
        whole = tube(range(6, 15))
        image = whole.copy()
        image[:, :, 12] = False
        found = answer(image, flat_box(whole, 2, 9)) > 0
        assert filled(found, 2) == list(range(6, 15))
        assert dice(found, whole) > 0.99

    @pytest.mark.parametrize(("patience", "end"), [(1, 10), (2, 14)])
    def test_a_wider_gap_needs_more_patience(self, patience, end):
        image = tube(range(6, 15))
        image[:, :, 11:13] = False
        engine = Engine(bright_encoder(image), 2, EVEN, StopCriteria(patience=patience))
        prompts = PromptSet([Point((20, 20, 9))]).to_voxel(bright_volume(image))
        found = fuse_labels(engine.run(prompts), SHAPE).labels > 0
        assert filled(found, 2) == list(range(6, end + 1))

    def test_without_propagation_only_prompted_slices_are_answered(self):
        blob = tube(range(6, 15))
        found = answer(blob, flat_box(blob, 2, 9), Point((20, 20, 12)), propagate=False) > 0
        assert filled(found, 2) == [9, 12]
        np.testing.assert_array_equal(found[:, :, [9, 12]], blob[:, :, [9, 12]])

    def test_thick_box_limits_the_range(self):
        blob = tube(range(24))
        found = answer(blob, Box((14, 14, 6), (27, 27, 15)), axis=2) > 0
        assert filled(found, 2) == list(range(6, 15))
        np.testing.assert_array_equal(found[:, :, 6:15], blob[:, :, 6:15])

    def test_an_empty_answer_is_an_empty_mask(self):
        blob = tube(range(6, 15))
        result = segmenter().segment(bright_volume(blob), [Point((2, 2, 9))])
        assert not result.data.any()
        assert result.targets == (1,)


class TestMeeting:
    def test_boxes_apart_are_parts_that_do_not_meet(self):
        left = tube(range(24), row=12, column=20)
        right = tube(range(24), row=28, column=20)
        prompts = flat_box(left, 2, 4), flat_box(right, 2, 12)
        found = answer(left | right, *prompts) > 0
        assert dice(found, left | right) > 0.98

    def test_key_slices_at_both_ends_close_a_gap_too_wide_for_one(self):
        image = tube(range(6, 18))
        image[:, :, 10:14] = False
        assert filled(answer(image, Point((20, 20, 8))) > 0, 2) == [6, 7, 8, 9]
        found = answer(image, Point((20, 20, 8)), Point((20, 20, 16))) > 0
        assert filled(found, 2) == filled(image, 2)
        assert dice(found, image) > 0.99


class TestPromptedSlices:
    def test_a_given_mask_stays_exactly_whatever_the_image(self):
        blob = tube(range(4, 18))
        plane = np.zeros(SHAPE[:2], bool)
        plane[15:26:2, 14:27:3] = True
        plane[18:23, 18:23] = True
        found = answer(blob, Mask(plane, axis=2, index=9)) > 0
        np.testing.assert_array_equal(found[:, :, 9], plane)

    def test_a_given_mask_finer_than_the_network_stays_exactly(self):
        shape = (200, 180, 5)
        rng = np.random.default_rng(0)
        plane = rng.random(shape[:2]) < 0.5
        blob = discs(shape, 2, dict.fromkeys(range(5), (100, 90, 70)))
        found = answer(blob, Mask(plane, axis=2, index=2), axis=2) > 0
        np.testing.assert_array_equal(found[:, :, 2], plane)

    def test_given_masks_of_two_targets_stay_where_a_third_claims_them(self):
        blob = tube(range(4, 18), radius=10)
        one, two = np.zeros(SHAPE[:2], bool), np.zeros(SHAPE[:2], bool)
        one[12:18, 14:20], two[22:28, 14:20] = True, True
        found = answer(
            blob,
            Mask(one, target=1, axis=2, index=9),
            Mask(two, target=7, axis=2, index=9),
            flat_box(blob, 2, 9, target=3),
        )
        np.testing.assert_array_equal(found[:, :, 9] == 1, one)
        np.testing.assert_array_equal(found[:, :, 9] == 7, two)
        np.testing.assert_array_equal(found[:, :, 9] > 0, blob[:, :, 9] | one | two)

    def test_masks_of_three_dimensions_bound_their_target(self):
        blob = tube(range(24))
        given = tube([6, 12])
        found = answer(blob, Mask(given), axis=2) > 0
        assert filled(found, 2) == list(range(6, 13))
        np.testing.assert_array_equal(found[:, :, [6, 12]], given[:, :, [6, 12]])

    def test_propagation_keeps_the_answers_on_prompted_slices(self):
        blob = tube(range(4, 18)) | tube(range(4, 18), row=33)
        prompts = flat_box(blob, 2, 6), Point((20, 20, 12))
        alone, through = (answer(blob, *prompts, propagate=p) for p in (False, True))
        np.testing.assert_array_equal(alone[:, :, [6, 12]], through[:, :, [6, 12]])
        assert alone[:, :, 6].sum() > alone[:, :, 12].sum() > 0

    def test_a_background_click_far_from_the_target_changes_nothing(self):
        blob = tube(range(4, 18))
        plain = answer(blob, flat_box(blob, 2, 9))
        clicked = answer(blob, flat_box(blob, 2, 9), Point((2, 2, 22), positive=False))
        np.testing.assert_array_equal(plain, clicked)


class TestSeveralTargets:
    def test_each_gets_its_own_label(self):
        one, two = tube(range(4, 12), row=10), tube(range(8, 20), row=30)
        found = answer(one | two, flat_box(one, 2, 8, 2), flat_box(two, 2, 15, 300))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, one * 2 + two * 300)

    def test_small_targets_use_a_byte(self):
        one = tube(range(4, 12))
        assert answer(one, flat_box(one, 2, 8, 255)).dtype == np.uint8

    def test_the_same_region_is_given_once(self):
        one = tube(range(4, 12))
        found = answer(one, flat_box(one, 2, 8, 1), flat_box(one, 2, 6, 2))
        np.testing.assert_array_equal(found > 0, one)

    def test_targets_of_different_size_in_views_of_their_own(self):
        shape = (120, 120, 8)
        large = discs(shape, 2, dict.fromkeys(range(8), (50, 50, 40)))
        small = discs(shape, 2, dict.fromkeys(range(2, 6), (104, 104, 5)))
        backbone = BrightRegion()
        prompts = flat_box(large, 2, 4, 1), flat_box(small, 2, 4, 2)
        found = answer(large | small, *prompts, backbone=backbone)
        assert dice(found == 1, large) > 0.98
        assert dice(found == 2, small) > 0.98

    def test_a_score_for_each(self):
        one, two = tube(range(4, 12), row=10), tube(range(4, 12), row=30)
        volume = bright_volume(one | two)
        prompts = [flat_box(one, 2, 8, 1), flat_box(two, 2, 8, 2)]
        assert segmenter().segment(volume, prompts).score == pytest.approx({1: 0.9, 2: 0.9})


class TestRegionOfInterest:
    def test_grows_where_the_target_reaches_its_edge(self):
        shape = (96, 96, 20)
        blob = discs(shape, 2, {n: (46, 48, 5 + 1.7 * n) for n in range(20)})
        backbone = BrightRegion()
        found = answer(blob, flat_box(blob, 2, 0), backbone=backbone) > 0
        assert filled(found, 2) == list(range(20))
        assert dice(found, blob) > 0.98

    def test_follows_a_target_that_leaves_it(self):
        shape = (120, 60, 20)
        blob = discs(shape, 2, {n: (12 + 4.5 * n, 30, 8) for n in range(20)})
        found = answer(blob, flat_box(blob, 2, 10)) > 0
        assert dice(found, blob) > 0.97

    def test_follows_a_target_that_is_lost_before_it_reaches_the_edge(self):
        blob = discs((120, 60, 20), 2, {n: (25 + 3.5 * n, 30, 8) for n in range(20)})
        found = answer(blob, flat_box(blob, 2, 10), backbone=Doubtful()) > 0
        assert dice(found, blob) > 0.97

    def test_stays_where_nothing_is_found_outside_of_it(self):
        blob = discs((120, 60, 20), 2, {n: (48 + 1.5 * n, 30, 8) for n in range(5, 12)})
        engine = Engine(bright_encoder(blob), 2, EVEN)
        (key,) = engine.run(PromptSet([flat_box(blob, 2, 8)]), False)
        (whole,) = engine.run(PromptSet([flat_box(blob, 2, 8)]))
        assert engine._answerer.views.leaves(key.frame, whole.answers, {1: (0, 20)})
        assert whole.frame == key.frame
        assert sorted(whole.answers[1]) == list(range(5, 12))

    def test_says_so_where_a_target_goes_further_than_views_grow(self):
        shape = (400, 40, 60)
        far = discs(shape, 2, {n: (60 + 5 * n, 20, 9) for n in range(60)})
        near = discs(shape, 2, dict.fromkeys(range(60), (60, 20, 9)))
        for blob, cut in ((far, [1]), (near, [])):
            prompts = [flat_box(blob, 2, 2)]
            result = segmenter().segment(bright_volume(blob), prompts, consistency="none")
            assert result.report["cut_by_view"] == cut

    def test_the_border_of_the_image_is_no_reason_to_grow(self):
        blob = discs((60, 60, 8), 2, dict.fromkeys(range(8), (0, 59, 9)))
        backbone = BrightRegion()
        found = answer(blob, flat_box(blob, 2, 4), backbone=backbone) > 0
        np.testing.assert_array_equal(found, blob)
        assert backbone.encoded == 8

    def test_a_click_outside_widens_the_view(self):
        shape = (100, 100, 8)
        near, far = (discs(shape, 2, {4: at}) for at in ((20, 20, 5), (80, 80, 5)))
        box = flat_box(near, 2, 4)
        for role in (None, "correction"):
            found = answer(near | far, box, Point((80, 80, 4), role=role)) > 0
            assert dice(found, near | far) > 0.95

    @pytest.mark.parametrize("propagate", [True, False])
    def test_a_correction_that_would_run_out_of_it_does_not_widen_it(self, propagate):
        shape = (120, 120, 16)
        organ = discs(shape, 2, dict.fromkeys(range(16), (60, 60, 14)))
        bar = np.zeros(shape, bool)
        bar[:, 76:78, 6:10] = True
        engine = Engine(bright_encoder(organ | bar), 2, EVEN)
        box, click = flat_box(organ, 2, 8), Point((60, 76, 8), role="correction")
        (before,) = engine.run(PromptSet([box]), propagate)
        (after,) = engine.run(PromptSet([box, click]), propagate)
        assert after.frame == before.frame
        assert after.cut == ()
        for index, mask in after.answers[1].items():
            grown = mask.area > before.answers[1][index].area
            assert grown == bar[:, :, index].any()

    def test_there_is_room_about_a_correction_near_its_edge(self):
        organ = discs((120, 120, 16), 2, dict.fromkeys(range(16), (60, 60, 14)))
        engine = Engine(bright_encoder(organ), 2, EVEN)
        prompts = [flat_box(organ, 2, 8)]
        (plain,) = engine.run(PromptSet(prompts))
        edge = plain.frame.region.cols[1] - 1
        (wider,) = engine.run(PromptSet([*prompts, Point((60, edge, 8), role="correction")]))
        assert wider.frame.region.cols[1] == edge + 1 + round(max(plain.frame.region.shape) / 6)
        assert wider.frame.region.rows == plain.frame.region.rows

    def test_room_about_a_correction_ends_with_the_image(self):
        blob = tube(range(1, 23), row=26, column=30, radius=7)
        for backbone in (BrightRegion(family="sam", crop=False), BrightRegion()):
            engine = Engine(bright_encoder(blob, backbone), 2, EVEN)
            corner = Point((39, 43, 9), role="correction")
            (found,) = engine.run(PromptSet([flat_box(blob, 2, 9), corner]))
            assert (found.frame.region.rows[1], found.frame.region.cols[1]) == SHAPE[:2]

    def test_whole_slice_networks_see_the_whole_slice(self):
        blob = tube(range(4, 18))
        backbone = BrightRegion(family="sam", crop=False)
        found = answer(blob, flat_box(blob, 2, 9), backbone=backbone) > 0
        np.testing.assert_array_equal(found, blob)
        frame = Frame(2, Region((0, 40), (0, 44)), SHAPE, EVEN, 64)
        seen = torch.cat(backbone.images)
        everything = frame.extract(blob.astype(np.float32), range(24))
        for image in seen:
            assert any(torch.equal(image, one) for one in everything)

    def test_networks_that_take_boxes_follow_too(self):
        path = {n: (12 + 0.9 * n, 26 - 0.7 * n, 4 + 0.2 * n) for n in range(14)}
        blob = discs(SHAPE, 2, path)
        backbone = BrightRegion(family="sam", crop=False)
        found = answer(blob, flat_box(blob, 2, 5), backbone=backbone) > 0
        assert filled(found, 2) == list(range(14))
        assert dice(found, blob) > 0.98

    def test_a_real_sam_runs_through(self):
        blob = tube(range(4, 10), shape=(40, 44, 10))
        found = answer(blob, flat_box(blob, 2, 6), backbone=tiny_sam())
        assert set(np.unique(found)) <= {0, 1}


class TestRefusals:
    @pytest.mark.parametrize(
        ("prompts", "words"),
        [
            ([Point((1, 1, 1), positive=False)], "target 1 has no foreground prompt"),
            ([Scribble(np.array([(1, 1, 1)]), positive=False)], "target 1 has no foreground"),
            ([Point((1, 1, 1)), Point((1, 1, 1), False, target=4)], "target 4 has no foreground"),
            ([Point((1, 1, 1), role=REFINE)], "target 1 has no foreground prompt"),
            ([Text("spleen")], "text 'spleen'"),
            ([Box((1, 1, 1), (2, 9, 9)), Box((1, 1, 1), (9, 2, 9))], "flat along axis 1"),
        ],
    )
    def test_before_anything_is_encoded(self, prompts, words):
        backbone = BrightRegion()
        with pytest.raises(PromptError, match=words):
            answer(tube(range(4, 18)), *prompts, backbone=backbone)
        assert backbone.encoded == 0
