from dataclasses import replace

import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, discs

from promptseg.inference.crop import (
    CROP,
    LEAST_VOXELS,
    choose_region,
    frame_of,
    group_regions,
    mask_extent,
    squared,
    stored_or,
    touches_edge,
    whole_slice,
    zoomed,
)
from promptseg.inference.decoder import SliceDecoder, SliceMask
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.volume.slicing import Frame, Region

SHAPE = (96, 80, 6)
EVEN = (1.0, 1.0, 1.0)


def box_on(index, rows, cols):
    lo, hi = (rows[0], cols[0], index), (rows[1], cols[1], index + 1)
    return SlicePrompts(box=(lo, hi))


def click_on(index, row, col):
    return SlicePrompts(points=[(row, col, index)], labels=[1], correction=[False])


def region_for(image, prompted, spacing=EVEN, **options):
    decoder = SliceDecoder(bright_encoder(image, BrightRegion(**options)))
    return choose_region(decoder, 2, spacing, prompted)


def middle(region):
    return sum(region.rows) / 2, sum(region.cols) / 2


class TestSquare:
    def test_is_square_and_grown_about_the_middle(self):
        found = squared(Region((10, 30), (20, 60)), 2, EVEN, 1.5)
        assert found.shape == (60, 60)
        assert middle(found) == (20, 40)

    def test_is_square_in_millimetres(self):
        found = squared(Region((10, 40), (20, 50)), 2, (2.0, 1.0, 5.0), 1.0)
        assert found.shape == (30, 60)

    def test_is_never_tiny(self):
        assert squared(Region((10, 11), (20, 21)), 2, EVEN, 1.0).shape == (LEAST_VOXELS,) * 2

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_spacing_is_that_of_the_slice(self, axis):
        spacing = [4.0, 4.0, 4.0]
        spacing[axis] = 100.0
        assert squared(Region((0, 30), (0, 30)), axis, spacing, 1.0).shape == (30, 30)


class TestEdge:
    FRAME = Frame(2, Region((10, 42), (0, 32)), SHAPE, EVEN, 64)

    def mask(self, rows, cols):
        logits = torch.full((64, 64), -8.0)
        logits[slice(*rows), slice(*cols)] = 8
        return SliceMask(logits, 0.9)

    def test_extent_is_in_voxels_of_the_slice(self):
        assert mask_extent(self.mask((8, 20), (30, 40)), self.FRAME) == Region((14, 20), (15, 20))

    def test_empty_mask_has_none(self):
        empty = self.mask((0, 0), (0, 0))
        assert mask_extent(empty, self.FRAME) is None
        assert not touches_edge(empty, self.FRAME)

    @pytest.mark.parametrize(
        ("rows", "cols", "cut"),
        [
            ((20, 40), (20, 40), False),
            ((0, 20), (20, 40), True),
            ((40, 64), (20, 40), True),
            ((20, 40), (40, 64), True),
            ((20, 40), (0, 20), False),
        ],
    )
    def test_counts_where_the_image_goes_on(self, rows, cols, cut):
        assert touches_edge(self.mask(rows, cols), self.FRAME) is cut

    @pytest.mark.parametrize(("first", "near"), [(12, True), (14, False)])
    def test_a_share_of_the_side_may_count_as_edge(self, first, near):
        mask = self.mask((first, 40), (0, 40))
        assert not touches_edge(mask, self.FRAME)
        assert touches_edge(mask, self.FRAME, 0.2) is near


class TestChoice:
    EMPTY = np.zeros(SHAPE, bool)

    def test_whole_slice_networks_see_the_whole_slice(self):
        found = region_for(self.EMPTY, {2: box_on(2, (40, 50), (30, 44))}, crop=False)
        assert found == Region((0, 96), (0, 80))

    def test_box_gets_a_margin(self):
        found = region_for(self.EMPTY, {2: box_on(2, (40, 50), (30, 60))})
        assert found.shape == (round(30 * CROP.trained),) * 2
        assert middle(found) == pytest.approx((45, 45), abs=0.5)

    def test_an_adapted_network_sees_more_around_it(self):
        decoder = SliceDecoder(bright_encoder(self.EMPTY, adapter="heart 12ab"))
        found = choose_region(decoder, 2, EVEN, {2: box_on(2, (40, 50), (30, 60))})
        assert found.shape == (round(30 * CROP.adapted),) * 2
        assert middle(found) == pytest.approx((45, 45), abs=0.5)

    @pytest.mark.parametrize("adapter", ["", "heart 12ab"])
    def test_a_stored_factor_is_the_same_for_every_use(self, adapter):
        encoder = bright_encoder(self.EMPTY, adapter=adapter, crop_factor=2.0)
        found = choose_region(SliceDecoder(encoder), 2, EVEN, {2: box_on(2, (40, 50), (30, 60))})
        assert found.shape == (60, 60)
        assert {stored_or(encoder, usual) for usual in (CROP.unprompted, CROP.margin_points)} == {2}

    def test_all_prompted_slices_are_shown(self):
        prompted = {2: box_on(2, (10, 20), (10, 20)), 4: click_on(4, 60, 70)}
        found = region_for(self.EMPTY, prompted)
        assert found.contains(Region((10, 61), (10, 71)))

    def test_mask_counts_as_a_box(self):
        plane = np.zeros(SHAPE[:2], bool)
        plane[40:60, 30:50] = True
        found = region_for(self.EMPTY, {2: SlicePrompts(mask=plane)})
        assert found == squared(Region((40, 60), (30, 50)), 2, EVEN, CROP.trained)

    def test_click_is_answered_first_to_learn_the_size(self):
        image = discs(SHAPE, 2, {2: (40, 40, 10)})
        found = region_for(image, {2: click_on(2, 40, 40)})
        assert found == squared(Region((30, 51), (30, 51)), 2, EVEN, CROP.trained)

    def test_click_in_a_large_target_gets_a_large_view(self):
        image = discs(SHAPE, 2, {2: (45, 40, 33)})
        found = region_for(image, {2: click_on(2, 40, 40)})
        assert found.contains(Region((12, 79), (7, 74)))

    def test_answer_that_leaves_its_view_is_trusted_less(self):
        class Overrating(BrightRegion):
            """Thinks best of answers that its view cuts."""

            def decode(self, embedding, prompts, multimask=False):
                found = super().decode(embedding, prompts, multimask)
                inner = found.logits[..., 1:-1, 1:-1].flatten(2) > 0
                cut = (found.logits > 0).sum((2, 3)) > inner.sum(2)
                return replace(found, quality=torch.where(cut, found.quality, found.quality - 0.1))

        wide = np.zeros(SHAPE, bool)
        wide[46:50, 4:76, 2] = True
        decoder = SliceDecoder(bright_encoder(wide, Overrating()))
        found = choose_region(decoder, 2, EVEN, {2: click_on(2, 48, 40)})
        assert found == squared(Region((46, 50), (4, 76)), 2, EVEN, CROP.trained)

    def test_click_on_nothing_still_gives_a_view(self):
        found = region_for(self.EMPTY, {2: click_on(2, 40, 40)})
        assert found.contains(Region((40, 41), (40, 41)))


class TestViews:
    def test_zoom_shrinks_the_whole_about_the_prompt(self):
        whole = Region((0, 96), (0, 96))
        found = zoomed(whole, Region((40, 41), (60, 61)), 2, EVEN, 0.5)
        assert found.shape == pytest.approx((48, 48), abs=1)
        assert middle(found) == pytest.approx((40.5, 60.5), abs=1)
        assert zoomed(whole, Region((40, 41), (60, 61)), 2, EVEN, 1.0) == whole

    def test_zoom_never_cuts_the_prompt(self):
        found = zoomed(Region((0, 96), (0, 96)), Region((10, 70), (20, 40)), 2, EVEN, 0.25)
        assert found.contains(Region((10, 70), (20, 40)))

    def test_frame_has_the_input_size_of_the_network(self):
        encoder = bright_encoder(np.zeros(SHAPE, bool), BrightRegion(size=48))
        frame = frame_of(encoder, 1, whole_slice(encoder, 1), (1.0, 2.0, 3.0))
        assert (frame.axis, frame.size, frame.shape) == (1, 48, SHAPE)
        assert frame.region == Region((0, 96), (0, 6))
        assert frame.spacing == (1.0, 2.0, 3.0)


class TestGroups:
    def test_targets_side_by_side_share_a_view(self):
        regions = {1: Region((0, 40), (0, 40)), 2: Region((5, 45), (5, 45))}
        assert group_regions(regions) == [(Region((0, 45), (0, 45)), [1, 2])]

    def test_small_target_in_a_large_view_keeps_its_own(self):
        regions = {1: Region((20, 40), (20, 40)), 2: Region((0, 100), (0, 100))}
        assert [targets for _, targets in group_regions(regions)] == [[2], [1]]

    def test_every_target_is_in_one_view_that_holds_it(self):
        rng = np.random.default_rng(0)
        low = rng.integers(0, 60, (12, 2))
        side = rng.integers(5, 60, (12, 2))
        regions = {
            n: Region((a, a + h), (b, b + w))
            for n, ((a, b), (h, w)) in enumerate(zip(low, side, strict=True), start=1)
        }
        groups = group_regions(regions)
        assert sorted(t for _, targets in groups for t in targets) == list(regions)
        assert all(view.contains(regions[t]) for view, targets in groups for t in targets)
