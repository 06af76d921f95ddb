"""The dashed outline of how far a target seems to reach."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from demo_kit import BrightModels, BrightServer, tubes
from support import BrightRegion, Looks, dice, segmenter

from promptseg.demo import actions, looking
from promptseg.demo.display import draw_slice, plane_of
from promptseg.demo.showing import picture_json
from promptseg.demo.sketching import sketch, sketchable, sketched_plane
from promptseg.demo.visit_parts import Sketch
from promptseg.prompts.types import Box, Point
from promptseg.propagation.coarse import CoarseView

BOX = Box((7, 9, 5), (22, 24, 6))


class LookingModels(BrightModels):
    """The network comes with a coarse view."""

    def _open(self, model, adapter):
        return segmenter(BrightRegion(crop=True), coarse=CoarseView(Looks()))


@pytest.fixture
def server(tmp_path):
    return BrightServer(models=LookingModels("cpu", "fp32"), folder=tmp_path)


@pytest.fixture
def visit(server):
    opened = server.visits.of("one")
    looking.open_volume(opened, tubes(), "tubes.nii.gz", server.visits)
    return opened


class TestSketch:
    def test_planes_are_those_of_the_whole_array(self):
        labels = np.zeros((5, 6, 7), np.uint8)
        labels[1:3, 2:5, 3:6] = 2
        kept = Sketch.of(labels)
        assert kept.labels.size == 2 * 3 * 3
        for axis in range(3):
            for index in range(labels.shape[axis]):
                plane, wanted = kept.plane(axis, index), np.take(labels, index, axis)
                if plane is None:
                    assert not wanted.any()
                else:
                    np.testing.assert_array_equal(plane, wanted)

    def test_nothing_found_is_on_no_slice(self):
        kept = Sketch.of(np.zeros((5, 6, 7), np.uint8))
        assert all(kept.plane(axis, 0) is None for axis in range(3))


class TestSketching:
    def test_the_slices_without_a_prompt_are_outlined(self, server, visit):
        actions.give(visit, server.models, BOX)
        assert sketched_plane(visit, 2, 6) is None
        sketch(visit)
        assert not sketched_plane(visit, 2, 5).any()
        assert dice(sketched_plane(visit, 2, 6) == 1, tubes().data[:, :, 6] > 60) > 0.5

    def test_it_says_how_far(self, server, visit):
        actions.give(visit, server.models, BOX)
        sketch(visit)
        assert "from slice 2 to 11" in visit.message[1]

    def test_it_says_so_of_the_target_that_prompts_are_for(self, server, visit, monkeypatch):
        actions.give(visit, server.models, BOX)
        labels = np.zeros(tubes().shape, np.uint8)
        labels[14, 16, 2:11] = 1
        labels[28, 34, :] = 2
        monkeypatch.setattr(visit.session, "preview", lambda: SimpleNamespace(data=labels))
        sketch(visit)
        assert "from slice 3 to 11" in visit.message[1]

    def test_it_changes_no_mask(self, server, visit):
        actions.give(visit, server.models, BOX)
        before = visit.labels.copy()
        sketch(visit)
        np.testing.assert_array_equal(visit.labels, before)

    def test_another_prompt_makes_it_anew(self, server, visit):
        actions.give(visit, server.models, BOX)
        sketch(visit)
        assert not sketchable(visit)
        actions.give(visit, server.models, Point((14, 16, 7)))
        assert visit.sketch is None
        assert sketchable(visit)

    def test_it_goes_once_the_mask_is_carried_through(self, server, visit):
        actions.give(visit, server.models, BOX)
        sketch(visit)
        actions.propagate(visit, server.models)
        assert visit.sketch is None
        assert not sketchable(visit)

    def test_undo_of_clear_brings_it_back(self, server, visit):
        actions.give(visit, server.models, BOX)
        sketch(visit)
        actions.clear(visit)
        assert visit.sketch is None
        actions.undo(visit)
        assert sketched_plane(visit, 2, 6).any()

    def test_without_a_coarse_view_there_is_none(self, tmp_path):
        server = BrightServer(models=BrightModels("cpu", "fp32"), folder=tmp_path)
        visit = server.visits.of("one")
        looking.open_volume(visit, tubes(), "tubes.nii.gz", server.visits)
        actions.give(visit, server.models, BOX)
        assert not sketchable(visit)
        sketch(visit)
        assert visit.sketch is None


class TestDrawing:
    def test_the_outline_is_dashed_and_the_inside_is_seen(self):
        image = tubes()
        plane = plane_of(image, 2, longest=480)
        mask = np.zeros((40, 48), np.uint8)
        mask[5:25, 10:40] = 1
        empty = np.asarray(draw_slice(image.data, plane, 5, (0, 100)))
        drawn = np.asarray(
            draw_slice(image.data, plane, 5, (0, 100), None, {1: "#26c6da"}, outlined=mask)
        )
        changed = (drawn != empty).any(-1)
        full = np.asarray(draw_slice(image.data, plane, 5, (0, 100), mask, {1: "#26c6da"}, 0.0))
        whole = (full != empty).any(-1)
        assert not (changed & ~whole).any()
        assert 0.3 < changed.sum() / whole.sum() < 0.7
        x, y = (int(value) for value in plane.place((15, 25, 5)))
        assert not changed[y, x]

    def test_the_page_shows_it(self, server, visit):
        actions.give(visit, server.models, BOX)
        looking.show_slice(visit, 7)
        before = picture_json(visit)
        sketch(visit)
        after = picture_json(visit)
        assert json.loads(before)["src"] != json.loads(after)["src"]
