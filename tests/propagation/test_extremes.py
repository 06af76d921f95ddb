"""Sections of a target between its extremes, and the vote of three axes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from margin_kit import extremes, overlap
from session_kit import ONE, SHAPE, TWO
from support import BrightRegion

import promptseg as ps
from promptseg.inference.decoder import SliceDecoder
from promptseg.inference.encoder import SliceEncoder
from promptseg.inference.slice_prompts import CORRECTION, REFINE, margin_bounds
from promptseg.predictor.engine import Engine
from promptseg.prompts.types import Point, PromptSet
from promptseg.propagation.extremes import axes_asked, section
from promptseg.refine.volume import enclosed, refined_labels

SIDE = 40
AT = np.stack(np.indices((SIDE, SIDE, SIDE)), -1)


def ball(centre, radii):
    return (((AT - centre) / radii) ** 2).sum(-1) <= 1


def engine_on(target, backbone=None):
    encoder = SliceEncoder(
        backbone or BrightRegion(), target.astype(np.float32), "x", torch.device("cpu"), "fp32"
    )
    return Engine(encoder, 2, np.ones(3))


def margin_of(target):
    prompts = PromptSet([extremes(target)]).to_voxel(ps.Volume(np.zeros(target.shape), np.eye(4)))
    (bound,) = margin_bounds(prompts, target.shape).values()
    return prompts, bound


class TestSection:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_of_an_ellipsoid_holds_it_and_little_more(self, axis):
        target = ball((20, 18, 22), (14, 9, 12))
        points = extremes(target).points
        inside = np.argwhere(target)
        for index in np.unique(inside[:, axis]):
            here = inside[inside[:, axis] == index]
            low, high = section(points, axis, int(index))
            assert (low[axis], high[axis]) == (index, index + 1)
            others = [a for a in range(3) if a != axis]
            assert (low[others] <= here.min(0)[others] + 0.5).all()
            assert (high[others] >= here.max(0)[others] + 0.5).all()
            if np.ptp(inside[:, axis]) / 2 > abs(index - inside[:, axis].mean()) + 3:
                assert (high[others] - low[others] <= np.ptp(here, 0)[others] + 6).all()

    def test_follows_an_oblique_target(self):
        points = np.array([(5, 10, 5), (30, 25, 30), (12, 5, 10), (22, 30, 25), (10, 9, 2),
                           (25, 24, 33)])  # fmt: skip
        first, last = section(points, 2, 3), section(points, 2, 32)
        assert sum(corner[0] for corner in last) / 2 > sum(corner[0] for corner in first) / 2 + 10

    def test_beyond_the_points_is_next_to_the_last_of_them(self):
        points = extremes(ball((20, 20, 20), (8, 8, 8))).points
        low, high = section(points, 0, int(points[:, 0].max()) + 1)
        tip = points[points[:, 0].argmax()]
        np.testing.assert_allclose(low[1:], tip[1:], atol=1e-6)
        np.testing.assert_allclose(high[1:], tip[1:] + 1, atol=1e-6)


class TestSpanned:
    def test_gives_the_target_and_not_its_neighbour(self):
        prompts, bound = margin_of(ONE)
        found = engine_on(ONE | TWO).spanned(prompts, bound)
        assert found.shape == SHAPE
        assert found.min() >= 0
        assert found.max() <= 1
        assert overlap(found > 0.5, ONE) > 0.9

    def test_asks_anew_only_when_the_network_is_told_something(self):
        backbone = BrightRegion()
        engine = engine_on(ONE, backbone)
        prompts, bound = margin_of(ONE)
        engine.spanned(prompts, bound)
        asked = len(backbone.asked)
        inside = tuple(np.argwhere(ONE).mean(0).round())
        engine.spanned(prompts + [Point(inside, role=REFINE)], bound)
        assert len(backbone.asked) == asked
        engine.spanned(prompts + [Point(inside, role=CORRECTION)], bound)
        assert len(backbone.asked) > asked

    def test_at_a_corner_of_the_volume(self):
        target = np.zeros(SHAPE, bool)
        target[:6, :7, :5] = True
        prompts, bound = margin_of(target)
        assert overlap(engine_on(target).spanned(prompts, bound) > 0.5, target) > 0.9


class TestWidening:
    def test_a_click_beyond_the_points_widens_what_they_bound(self):
        target = ball((20, 18, 22), (14, 9, 12))
        prompts, bound = margin_of(target)
        more = prompts + [Point((20, 32, 22), role=CORRECTION)]
        wider = margin_bounds(more, target.shape)[1]
        assert wider[1].stop > 32 + 1 > bound[1].stop
        assert wider[0] == bound[0]
        assert margin_bounds(prompts + [Point((20, 18, 22))], target.shape)[1] == bound
        whole = target | ball((20, 28, 22), (4, 6, 4))
        assert engine_on(whole).spanned(more, wider)[20, 31, 22] > 0.5


class TestAxesAsked:
    def test_thick_slices_are_asked_along_their_axis_alone(self):
        decoder = SliceDecoder(engine_on(ONE).encoder)
        assert axes_asked(decoder, 1, (1, 1, 1)) == [0, 1, 2]
        assert axes_asked(decoder, 2, (1, 1, 5)) == [2]

    def test_a_network_of_whole_slices_sees_one_axis(self):
        backbone = BrightRegion()
        backbone.spec = replace(backbone.spec, crop=False)
        assert axes_asked(SliceDecoder(engine_on(ONE, backbone).encoder), 1, (1, 1, 1)) == [1]


class TestEnclosed:
    def test_is_one_voxel_wider_but_not_beyond_the_volume(self):
        region, shell = enclosed((slice(0, 4), slice(3, 6), slice(2, 10)), (20, 20, 10))
        assert region == (slice(0, 5), slice(2, 7), slice(1, 10))
        assert len(shell) == 5 * 5 * 9 - 4 * 3 * 8
        assert (shell[:, 0] == 4).sum() == 5 * 9

    def test_a_ring_takes_in_its_dark_centre_and_nothing_around(self):
        whole, hole = ball((20, 20, 20), (10, 10, 10)), ball((20, 20, 20), (7, 7, 7))
        image = np.where(hole, 0.1, np.where(whole, 0.9, 0.4)).astype(np.float32)
        prompts, bound = margin_of(whole)
        labels = refined_labels(
            np.zeros(whole.shape, np.uint8),
            {1: np.full(whole.shape, 0.5, np.float32)},
            image,
            prompts,
            (1, 1, 1),
            bounds={1: bound},
        )
        assert overlap(labels == 1, whole) > 0.95
