from dataclasses import replace

import numpy as np
import pytest
import torch
from support import bright_volume, discs

from promptseg.errors import PromptError
from promptseg.inference.slice_prompts import (
    CORRECTION,
    GIVEN_MASK_LOGIT,
    REFINE,
    SlicePrompts,
    sort_prompts,
    target_limits,
)
from promptseg.prompts.types import Box, Mask, Point, PromptSet, Scribble, Text
from promptseg.volume.slicing import Frame, Region

SHAPE = (20, 24, 12)


def sort(*prompts, axis=2):
    resolved = PromptSet(prompts).to_voxel(bright_volume(np.zeros(SHAPE, bool)))
    return sort_prompts(resolved, axis, SHAPE)


def limits(*prompts, axis=2):
    resolved = PromptSet(prompts).to_voxel(bright_volume(np.zeros(SHAPE, bool)))
    return target_limits(resolved, axis, SHAPE[axis])


def drawn(*voxels):
    return [np.array(voxels)], []


class TestSorting:
    def test_points_by_target_and_nearest_slice(self):
        found = sort(
            Point((3, 4, 5.4)), Point((9, 9, 5.6)), Point((1, 2, 5), positive=False), Point(
                (7, 7, 7), target=3))  # fmt: skip
        assert {target: list(slices) for target, slices in found.items()} == {1: [5, 6], 3: [7]}
        assert found[1][5].points == [(3, 4, 5.4), (1, 2, 5)]
        assert found[1][5].labels == [1, 0]

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_slices_are_counted_along_the_axis(self, axis):
        assert list(sort(Point((3, 4, 5)), axis=axis)[1]) == [(3, 4, 5)[axis]]

    def test_corrections_are_background_clicks_and_marked_clicks(self):
        place = sort(
            Point((1, 1, 1)), Point((2, 2, 1), positive=False), Point((3, 3, 1), role=CORRECTION)
        )[1][1]
        assert place.correction == [False, True, True]

    def test_points_of_the_graph_cut_are_left_out(self):
        assert sort(Point((1, 1, 1)), Point((2, 2, 2), role=REFINE)).keys() == {1}
        assert list(sort(Point((1, 1, 1)), Point((2, 2, 2), role=REFINE))[1]) == [1]

    def test_flat_box_stays_on_its_slice(self):
        assert sort(Box((2, 3, 4), (8, 9, 5)))[1][4].box == ((2, 3, 4), (8, 9, 5))

    @pytest.mark.parametrize(("lo", "hi", "middle"), [(2, 9, 5), (2, 8, 4), (0, 2, 0)])
    def test_thick_box_goes_to_its_middle_slice(self, lo, hi, middle):
        assert list(sort(Box((2, 3, lo), (8, 9, hi)))[1]) == [middle]

    def test_strokes_are_cut_at_slices_and_kept_apart_by_sign(self):
        stroke = np.array([(1, 1, 3), (1, 2, 3), (1, 3, 4)])
        found = sort(Scribble(stroke), Scribble(stroke + 2, positive=False))[1]
        assert {i: [len(side) for side in p.strokes] for i, p in found.items()} == {
            3: [1, 0], 4: [1, 0], 5: [0, 1], 6: [0, 1]}  # fmt: skip
        np.testing.assert_array_equal(found[3].strokes[0][0], stroke[:2])

    def test_mask_in_three_dimensions_fills_its_slices(self):
        mask = discs(SHAPE, 2, {4: (9, 9, 3), 6: (8, 8, 2)})
        found = sort(Mask(mask))[1]
        assert list(found) == [4, 6]
        np.testing.assert_array_equal(found[6].mask, mask[:, :, 6])

    def test_mask_of_one_slice(self):
        plane = np.zeros((SHAPE[0], SHAPE[2]), bool)
        plane[3:5, 6:8] = True
        found = sort(Mask(plane, axis=1, index=7), axis=1)[1]
        assert list(found) == [7]
        np.testing.assert_array_equal(found[7].mask, plane)

    def test_box_that_is_flat_along_another_axis_is_refused(self):
        with pytest.raises(PromptError, match=r"flat along axis 0.*axis 2.*use axis 0"):
            sort(Box((2, 3, 4), (3, 9, 9)))

    def test_the_same_box_again_and_one_of_another_target(self):
        one = Box((2, 3, 4), (8, 9, 5))
        assert sort(one, one)[1][4].box == (one.lo, one.hi)
        assert list(sort(one, Box((5, 3, 4), (9, 9, 5), target=2))) == [1, 2]

    def test_several_masks_of_a_slice_add_up(self):
        first, second = (np.zeros(SHAPE[:2], bool) for _ in range(2))
        first[2:5, 2:5], second[4:8, 4:8] = True, True
        found = sort(Mask(first, axis=2, index=4), Mask(second, axis=2, index=4))[1]
        np.testing.assert_array_equal(found[4].mask, first | second)

    def test_strokes_marked_as_corrections_are_kept_apart(self):
        stroke = np.array([(1, 1, 3), (1, 2, 3)])
        late = Scribble(stroke + [4, 4, 0], role="correction")
        place = sort(Scribble(stroke), late)[1][3]
        assert [len(side) for side in (*place.strokes, *place.late)] == [1, 0, 1, 0]
        first = place.without_corrections()
        assert (first.starts, first.late) == (True, ([], []))
        assert place.signature() != first.signature()
        alone = sort(Point((1, 1, 1)), late)[1][3]
        assert not alone.starts
        assert alone.includes

    def test_words_point_at_no_slice(self):
        assert list(sort(Point((1, 1, 1)), Text("left atrium", target=2))) == [1]


class TestLimits:
    def test_thick_box_bounds_its_target_alone(self):
        assert limits(Box((2, 3, 4), (8, 9, 10)), Point((1, 1, 1), target=2)) == {
            1: (4, 10), 2: (0, 12)}  # fmt: skip

    def test_flat_box_and_clicks_bound_nothing(self):
        assert limits(Box((2, 3, 4), (8, 9, 5)), Point((1, 1, 1))) == {1: (0, 12)}

    def test_two_boxes_bound_together(self):
        assert limits(Box((2, 3, 4), (8, 9, 7)), Box((2, 3, 1), (8, 9, 3))) == {1: (1, 7)}

    def test_mask_bounds_where_it_has_several_slices(self):
        several = discs(SHAPE, 2, {4: (9, 9, 3), 6: (9, 9, 3)})
        single = discs(SHAPE, 2, {4: (9, 9, 3)})
        assert limits(Mask(several)) == {1: (4, 7)}
        assert limits(Mask(single)) == {1: (0, 12)}


class TestWhatWasSaid:
    def test_starts_where_something_says_where_the_target_is(self):
        voxel = np.array([(1, 1, 1)])
        assert SlicePrompts(points=[(1, 1, 1)], labels=[1], correction=[False]).starts
        assert SlicePrompts(box=((1, 1, 1), (4, 4, 2))).starts
        assert SlicePrompts(mask=np.ones((3, 3), bool)).starts
        assert SlicePrompts(strokes=([voxel], [])).starts

    def test_does_not_start_from_background_or_corrections(self):
        assert not SlicePrompts(points=[(1, 1, 1)], labels=[0], correction=[True]).starts
        assert not SlicePrompts(points=[(1, 1, 1)], labels=[1], correction=[True]).starts
        assert not SlicePrompts(strokes=([], [np.array([(1, 1, 1)])])).starts

    def test_verbatim_is_a_mask_and_nothing_else(self):
        mask = np.ones((3, 3), bool)
        assert SlicePrompts(mask=mask).verbatim
        assert not SlicePrompts(mask=mask, box=((0, 0, 0), (2, 2, 1))).verbatim
        clicked = SlicePrompts(points=[(1, 1, 1)], labels=[0], correction=[True], mask=mask)
        assert not clicked.verbatim

    def test_one_foreground_click_alone_is_ambiguous(self):
        click = SlicePrompts(points=[(1, 1, 1)], labels=[1], correction=[False])
        assert click.ambiguous
        assert not SlicePrompts(
            points=[(1, 1, 1)], labels=[1], correction=[False], box=((0, 0, 0), (2, 2, 1))
        ).ambiguous
        assert not SlicePrompts(points=[(1, 1, 1)], labels=[0], correction=[True]).ambiguous

    def test_a_guess_makes_a_lone_click_clear(self):
        guess = np.zeros((32, 32), bool)
        guess[4:12, 6:20] = True
        click = SlicePrompts(points=[(8, 8, 1)], labels=[1], correction=[False], guess=guess)
        frame = Frame(2, Region((0, 32), (0, 32)), (32, 32, 4), (1.0, 1.0, 1.0), 32)
        assert click.lone
        assert not click.ambiguous
        assert click.extent(2) == Region((4, 12), (6, 20))
        told = click.to_pixels(frame, 1, 32).mask
        np.testing.assert_array_equal(told > 0, guess)
        assert click.signature() != replace(click, guess=None).signature()

    def test_a_guess_is_not_told_once_the_click_is_corrected(self):
        guess = np.ones((32, 32), bool)
        frame = Frame(2, Region((0, 32), (0, 32)), (32, 32, 4), (1.0, 1.0, 1.0), 32)
        place = SlicePrompts(
            points=[(8, 8, 1), (9, 9, 1)], labels=[1, 0], correction=[False, True], guess=guess
        )
        assert place.to_pixels(frame, 1, 32).mask is None
        assert place.without_corrections().to_pixels(frame, 1, 32).mask is not None

    def test_corrections_can_be_taken_away(self):
        place = SlicePrompts(
            points=[(1, 1, 1), (2, 2, 1), (3, 3, 1)],
            labels=[1, 0, 1],
            correction=[False, True, True],
        )
        before = place.without_corrections()
        assert (before.points, before.labels) == ([(1, 1, 1)], [1])
        assert before.without_corrections() is None
        assert place.labels == [1, 0, 1]

    def test_nothing_remains_where_all_are_corrections(self):
        late = SlicePrompts(points=[(1, 1, 1)], labels=[0], correction=[True])
        assert late.without_corrections() is None

    def test_signature_differs_with_every_part(self):
        points = {"points": [(1, 1, 1)], "correction": [False]}
        mask = np.zeros((4, 4), bool)
        other = mask.copy()
        other[0, 0] = True
        places = [
            SlicePrompts(),
            SlicePrompts(**points, labels=[1]),
            SlicePrompts(**points, labels=[0]),
            SlicePrompts(points=[(1, 1, 1)], labels=[1], correction=[True]),
            SlicePrompts(box=((1, 1, 1), (4, 4, 2))),
            SlicePrompts(box=((1, 1, 1), (4, 5, 2))),
            SlicePrompts(strokes=([np.array([(1, 1, 1)])], [])),
            SlicePrompts(strokes=([], [np.array([(1, 1, 1)])])),
            SlicePrompts(mask=mask),
            SlicePrompts(mask=other),
        ]
        assert len({place.signature() for place in places}) == len(places)
        assert SlicePrompts(mask=mask).signature() == SlicePrompts(mask=mask.copy()).signature()


class TestExtent:
    def test_covers_foreground_of_every_kind(self):
        mask = np.zeros(SHAPE[:2], bool)
        mask[15, 20] = True
        place = SlicePrompts(
            points=[(2, 9, 5), (19, 23, 5)],
            labels=[1, 0],
            correction=[False, True],
            box=((4, 3, 5), (8, 9, 6)),
            strokes=([np.array([(9, 1, 5), (10, 2, 5)])], [np.array([(0, 0, 5)])]),
            mask=mask,
        )
        assert place.extent(2) == Region((2, 16), (1, 21))

    def test_half_open_box_is_its_own_extent(self):
        assert SlicePrompts(box=((4, 3, 5), (8, 9, 6))).extent(2) == Region((4, 8), (3, 9))

    def test_nothing_in_the_foreground(self):
        assert SlicePrompts(points=[(1, 1, 1)], labels=[0], correction=[True]).extent(2) is None


class TestPixels:
    FRAME = Frame(2, Region((4, 12), (8, 16)), SHAPE, (1.0, 1.0, 3.0), 64)

    def test_points_and_boxes_are_scaled_into_the_region(self):
        place = SlicePrompts(
            points=[(4, 8, 5), (11, 15, 5)],
            labels=[1, 0],
            correction=[False, True],
            box=((5, 8, 5), (7, 16, 6)),
        )
        pixels = place.to_pixels(self.FRAME, 5, 32)
        assert pixels.points.tolist() == [[4, 4], [60, 60]]
        assert pixels.labels.tolist() == [1, 0]
        assert pixels.box.tolist() == [0, 8, 64, 24]
        assert pixels.mask is None
        assert pixels.scribbles is None

    def test_mask_becomes_logits_of_the_region(self):
        plane = np.zeros(SHAPE[:2], bool)
        plane[4:8, 8:16] = True
        logits = SlicePrompts(mask=plane).to_pixels(self.FRAME, 5, 16).mask
        assert logits.shape == (16, 16)
        assert torch.all(logits[:7] == GIVEN_MASK_LOGIT)
        assert torch.all(logits[9:] == -GIVEN_MASK_LOGIT)

    def test_strokes_are_drawn_one_layer_a_sign(self):
        place = SlicePrompts(strokes=([np.array([(4, 8, 5)])], [np.array([(11, 15, 5)])]))
        layers = place.to_pixels(self.FRAME, 5, 32).scribbles
        assert layers.shape == (2, 64, 64)
        assert layers[0, 4, 4] == 1
        assert layers[1, 60, 60] == 1
        assert 40 <= layers[0].sum() <= 160
        assert layers[0, 32:].sum() == layers[1, :32].sum() == 0
        assert set(layers.unique().tolist()) == {0.0, 1.0}

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_voxels_follow_the_axis(self, axis):
        place = SlicePrompts(points=[(2, 3, 5)], labels=[1], correction=[False])
        whole = [(0, side) for side in SHAPE]
        rows, cols = (a for a in range(3) if a != axis)
        frame = Frame(axis, Region(whole[rows], whole[cols]), SHAPE, (1, 1, 1), 24)
        x, y = place.to_pixels(frame, 0, 12).points[0].tolist()
        at = frame.to_voxels(np.array([[x, y]]), (2, 3, 5)[axis])[0]
        np.testing.assert_allclose(at, (2, 3, 5), atol=1e-6)


class TestThinStrokes:
    def test_a_stroke_survives_a_wide_view(self):
        shape = (300, 300, 4)
        voxels = np.array([(10 + n, 150, 2) for n in range(200)])
        frame = Frame(2, Region((0, 300), (0, 300)), shape, (1, 1, 1), 64)
        layers = SlicePrompts(strokes=([voxels], [])).to_pixels(frame, 2, 32).scribbles
        assert layers[0].any(1).sum() >= 40
