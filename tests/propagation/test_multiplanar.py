import numpy as np
import pytest
import torch
from support import BrightRegion, bright_encoder, dice, discs

from promptseg.inference.decoder import SliceDecoder
from promptseg.propagation.multiplanar import (
    UNSEEN,
    agreement,
    between,
    cross,
    crossed,
    line_prompts,
    view_along,
    within_reach,
)
from promptseg.volume.slicing import Frame, Region, take_slice

SHAPE = (40, 44, 36)
EVEN = (1.0, 1.0, 1.0)
PATH = {n: (18, 22, 8 - 0.06 * (n - 16) ** 2 + 2) for n in range(6, 28)}


def ball(axis=2):
    order = {0: (1, 2, 0), 1: (0, 2, 1), 2: (0, 1, 2)}[axis]
    shape = [0, 0, 0]
    for place, side in zip(order, SHAPE, strict=True):
        shape[place] = side
    return discs(tuple(shape), axis, PATH)


def asked(mask, axis=2, place=16, spacing=EVEN, backbone=None):
    decoder = SliceDecoder(bright_encoder(mask, backbone))
    known = {place: take_slice(mask, axis, place).copy()}
    return cross(decoder, axis, spacing, known, "name"), known


class TestCrossing:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_one_known_slice_shows_how_far_the_target_goes(self, axis):
        mask = ball(axis)
        crossing, _ = asked(mask, axis)
        assert len(crossing.views) == 2
        for index in (9, 12, 20, 25):
            truth = take_slice(mask, axis, index)
            for plane in crossing.planes(index):
                assert dice(plane > 0, truth) > 0.85
        for index in (0, 3, 31):
            assert all(not (plane > 0).any() for plane in crossing.planes(index))

    def test_in_the_frame_of_the_track(self):
        mask = ball()
        crossing, _ = asked(mask)
        frame = Frame(2, Region((0, 40), (0, 44)), SHAPE, EVEN, 64)
        seen = crossing.project(frame, 14, 64).mean(0)
        assert dice(frame.restore(seen[None])[0].numpy() > 0, mask[:, :, 14]) > 0.85

    def test_a_view_grows_along_a_long_target(self):
        mask = discs((40, 44, 80), 2, dict.fromkeys(range(5, 75), (18, 22, 6)))
        crossing, _ = asked(mask, place=40)
        for index in (6, 73):
            assert all((plane > 0).any() for plane in crossing.planes(index))

    def test_beyond_a_view_nothing_is_said(self):
        mask = discs((40, 44, 80), 2, dict.fromkeys(range(36, 44), (18, 22, 6)))
        crossing, _ = asked(mask, place=40)
        assert crossing.planes(79) == []

    def test_small_targets_are_not_crossed(self):
        mask = np.zeros(SHAPE, bool)
        mask[10:12, 10:12, 10:20] = True
        assert asked(mask, place=14)[0] is None

    def test_a_network_that_does_not_find_the_lines_again_is_not_heard(self):
        class Blind(BrightRegion):
            def decode(self, embedding, prompts, multimask=False):
                decoded = super().decode(embedding, prompts, multimask)
                decoded.logits.fill_(-8.0)
                return decoded

        assert asked(ball(), backbone=Blind())[0] is None


class TestLines:
    def test_positive_inside_and_negative_beside_with_a_gap(self):
        mask = ball()
        prompts = line_prompts(0, 2, {16: mask[:, :, 16]}, 18)
        inside, outside = prompts.strokes[0][0], prompts.strokes[1][0]
        assert np.all(mask[tuple(inside.T)])
        assert set(inside[:, 2]) == {16}
        assert set(inside[:, 0]) == {18}
        assert not mask[tuple(outside.T)].any()
        gaps = np.abs(outside[:, None, 1] - inside[None, :, 1]).min(1)
        assert gaps.min() == 2
        assert gaps.max() < 12

    def test_every_known_slice_gives_a_line(self):
        mask = ball()
        prompts = line_prompts(1, 2, {k: mask[:, :, k] for k in (10, 16, 20)}, 22)
        assert [int(stroke[0, 2]) for stroke in prompts.strokes[0]] == [10, 16, 20]

    def test_slices_are_spread_and_leave_out_the_rim(self):
        mask = ball()
        indices = crossed(0, 2, EVEN, {16: mask[:, :, 16]})
        filled = np.flatnonzero(mask[:, :, 16].any(1))
        assert indices[0] > filled[0] or mask[filled[0], :, 16].sum() >= 3
        assert len(indices) == 6
        assert len(crossed(0, 2, (10.0, 1.0, 1.0), {16: mask[:, :, 16]})) > 6

    def test_reach_is_a_tenth_of_the_extent(self):
        extent = np.zeros(100, bool)
        extent[30:71] = True
        assert np.flatnonzero(within_reach(extent)).tolist() == list(range(26, 75))


class TestInterpolation:
    def test_between_two_rows(self):
        rows = np.array([[0.0, 4.0], [8.0, 0.0], [8.0, 2.0]], np.float32)
        found = between(rows, np.array([3, 7, 8]))
        assert found[:, 0].tolist() == [0, 2, 4, 6, 8, 8]
        assert found[:, 1].tolist() == [4, 3, 2, 1, 0, 2]

    def test_one_row_is_itself(self):
        assert between(np.ones((1, 3), np.float32), np.array([5])).shape == (1, 3)

    def test_planes_say_where_they_do_not_look(self):
        mask = ball()
        known = {16: mask[:, :, 16]}
        view = view_along(SliceDecoder(bright_encoder(mask)), 0, 2, EVEN, known)
        plane = view.plane(2, 16)
        assert np.all(plane[: view.indices[0]] == UNSEEN)
        assert np.all(plane[view.indices[-1] + 1 :] == UNSEEN)
        assert agreement(view, 2, known) > 0.9


def test_the_network_gets_the_earlier_answer_too():
    mask = ball()
    backbone = BrightRegion()
    decoder = SliceDecoder(bright_encoder(mask, backbone))
    earlier = np.where(mask, 6.0, -8.0).astype(np.float16)
    cross(decoder, 2, EVEN, {16: mask[:, :, 16]}, "", earlier)
    assert all(bool(batch.has_mask.all()) for batch in backbone.asked)
    assert torch.cat([b.masks for b in backbone.asked]).max() > 4
