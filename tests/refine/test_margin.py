"""Margin points from prompt to mask."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from margin_kit import extremes, on_slice, overlap
from session_kit import ONE, SHAPE, TWO, session
from support import BrightRegion

import promptseg as ps
from promptseg.inference.encoder import SliceEncoder
from promptseg.inference.slice_prompts import margin_bounds, sort_prompts
from promptseg.predictor.engine import Engine
from promptseg.prompts.types import Box, MarginPoints, Point, PromptSet, Scribble
from promptseg.refine.volume import certain_places, click_voxels, margin_maps
from promptseg.session import Segmenter


class TestSegmenting:
    def test_six_points_give_the_target_in_3d(self):
        running = session(ONE | TWO)
        running.add(extremes(ONE))
        found = running.propagate().data == 1
        assert overlap(found, ONE) > 0.9
        assert not (found & TWO).any()

    def test_points_on_a_slice_give_the_target_there(self):
        middle = int(np.argwhere(ONE)[:, 2].mean())
        running = session(ONE | TWO)
        running.add(extremes(on_slice(ONE, middle)))
        found = running.segment().data == 1
        np.testing.assert_array_equal(found, on_slice(ONE, middle))

    def test_every_point_is_inside_and_nothing_lies_beyond_the_grown_box(self):
        running = session(ONE | TWO)
        margin = extremes(ONE)
        running.add(margin)
        found = running.propagate().data == 1
        assert found[tuple(margin.points.T)].all()
        (bound,) = margin_bounds(PromptSet([margin]).to_voxel(running.volume), SHAPE).values()
        outside = np.ones(SHAPE, bool)
        outside[bound] = False
        assert not (found & outside).any()

    def test_replay_and_undo(self, tmp_path):
        running = session(ONE | TWO)
        running.add(extremes(ONE))
        first = running.propagate().data
        running.prompts.save(tmp_path / "p.json")
        again = running.segmenter.segment(
            running.volume, PromptSet.load(tmp_path / "p.json"), window="1,0.5"
        )
        np.testing.assert_array_equal(again.data, first)
        running.add(Point(tuple(np.argwhere(TWO)[0])))
        running.refine("graph_cut")
        running.undo()
        np.testing.assert_array_equal(running.propagate().data, first)

    def test_a_refused_one_leaves_the_session_as_it_was(self):
        running = session(ONE)
        with pytest.raises(ps.PromptError, match="MarginPoints"):
            running.add(MarginPoints([(1, 1, 1), (2, 2, 1)]))
        assert not running.prompts


class TestSorting:
    def resolved(self, points):
        return PromptSet([MarginPoints(points)]).to_voxel(ps.Volume(np.zeros(SHAPE), np.eye(4)))

    def test_on_a_slice_points_stand_beside_their_box(self):
        prompts = self.resolved([(5, 9, 7), (9, 5, 7), (12, 11, 7)])
        place = sort_prompts(prompts, 2, SHAPE)[1][7]
        assert place.box == ((4, 4, 7), (14, 13, 8))
        assert place.labels == [1, 1, 1]

    def test_in_3d_only_the_box_is_shown(self):
        points = [(5, 9, 7), (9, 5, 7), (12, 11, 6), (9, 9, 3), (9, 9, 13)]
        places = sort_prompts(self.resolved(points), 2, SHAPE)[1]
        assert list(places) == [8]
        assert places[8].box is not None
        assert not places[8].points

    def test_bounds_of_flat_points_say_nothing_of_the_volume(self):
        assert not margin_bounds(self.resolved([(5, 9, 7), (9, 5, 7), (12, 11, 7)]), SHAPE)


class Geodesic(BrightRegion):
    """Says that it was trained with geodesic maps."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, geodesic=True)


class TestGeodesicMaps:
    def test_are_one_at_the_points_and_nothing_far_away(self):
        image = (ONE * 0.8).astype(np.float32)
        margin = extremes(ONE)
        prompts = PromptSet([margin]).to_voxel(ps.Volume(image, np.eye(4)))
        found = margin_maps(prompts, image, (1, 1, 1))[1]
        assert (found[tuple(margin.points.T)] == 1).all()
        assert found[ONE].min() > 0.99
        (bound,) = margin_bounds(prompts, SHAPE).values()
        around = np.zeros(SHAPE, bool)
        around[bound] = True
        assert 0 < found[around & ~ONE].max() < 0.5
        assert not found[~around].any()

    @pytest.mark.parametrize("network", [BrightRegion, Geodesic])
    def test_reach_a_network_that_was_trained_with_them(self, network):
        backbone = network()
        running = Segmenter(backbone, "cpu").session(
            ps.Volume((ONE * 100).astype(np.float32), np.eye(4)), window="100,50"
        )
        middle = int(np.argwhere(ONE)[:, 2].mean())
        running.add(extremes(on_slice(ONE, middle)))
        running.segment()
        drawn = backbone.asked[-1].scribbles
        if network is BrightRegion:
            assert drawn is None
        else:
            assert drawn is not None
            assert drawn[0, 0].max() == 1
            assert not drawn[0, 1].any()

    def test_are_part_of_what_is_asked(self):
        backbone = Geodesic()
        encoder = SliceEncoder(
            backbone, (ONE * 1.0).astype(np.float32), "x", torch.device("cpu"), "fp32"
        )
        engine = Engine(encoder, 2, np.ones(3))
        box = PromptSet([Box((2, 2, 9), (20, 20, 10))])
        for level in (0.0, 0.5):
            engine.run(box, False, dense={1: np.full(SHAPE, level, np.float32)})
        shown = [
            float(asked.scribbles[0, 0].max())
            for asked in backbone.asked
            if asked.scribbles is not None
        ]
        assert {0.0, 0.5} <= set(shown)


class TestCertainPlaces:
    def test_a_box_tells_a_place_inside_and_the_frame_outside(self):
        labels = (ONE * 1).astype(np.uint8)
        given = PromptSet([Box((7, 15, 10), (18, 26, 11)), Point((3, 3, 3), positive=False)])
        frame, start, click = certain_places(given, labels, 2)
        assert start == Point((12, 20, 10))
        assert click == given[1]
        assert isinstance(frame, Scribble)
        assert not frame.positive
        assert frame.voxels.min(0).tolist() == [3, 11, 10]
        assert frame.voxels.max(0).tolist() == [21, 29, 10]
        assert len(frame.voxels) == 4 * 18

    def test_not_where_nothing_was_found_or_margin_points_say_more(self):
        box = Box((7, 15, 10), (18, 26, 11))
        (frame,) = certain_places(PromptSet([box]), np.zeros(SHAPE, np.uint8), 2)
        assert isinstance(frame, Scribble)
        margin = PromptSet([box, Point((12, 20, 10), role="margin")])
        assert list(certain_places(margin, (ONE * 1).astype(np.uint8), 2)) == [margin[1]]

    def test_strokes_count_voxel_by_voxel_and_the_later_word_holds(self):
        stroke = Scribble(np.array([(1, 1, 1), (2, 1, 1)]))
        inside, outside = click_voxels(PromptSet([stroke, Point((2, 1, 1), positive=False)]))
        assert inside.tolist() == [[1, 1, 1]]
        assert outside.tolist() == [[2, 1, 1]]


class TestAhead:
    def test_is_prepared_once(self, monkeypatch):
        from promptseg.refine import warmup as ahead

        started = []
        monkeypatch.setattr(ahead, "_started", ahead.threading.Event())
        monkeypatch.setattr(ahead, "_refine_once", lambda: started.append(1))
        ahead.prepare_refinement()
        ahead.prepare_refinement()
        for thread in ahead.threading.enumerate():
            if thread.name == "promptseg-ahead":
                thread.join()
        assert started == [1]
