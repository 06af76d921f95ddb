import numpy as np
import pytest
from scipy import ndimage
from support import BrightRegion, bright_volume, discs, segmenter

from promptseg.inference.slice_prompts import CORRECTION, REFINE
from promptseg.prompts.types import Box, Point, PromptSet, Scribble
from promptseg.refine.strokes import REACH_ELEMENTS, obeyed, stroked

SHAPE = (40, 44, 16)
BLOB = discs(SHAPE, 2, dict.fromkeys(range(3, 13), (18, 20, 9)))
BOX = Box((9, 11, 7), (28, 30, 8))
LINE = np.array([(j, 28, 8) for j in range(12, 25)])
EVEN = (1.0, 1.0, 1.0)


def session(network=None):
    running = segmenter(network or BrightRegion()).session(bright_volume(BLOB), consistency="none")
    running.add(BOX)
    running.propagate()
    return running


def distance_to(voxels, shape=SHAPE):
    drawn = np.zeros(shape, bool)
    drawn[tuple(np.asarray(voxels).T)] = True
    return ndimage.distance_transform_edt(~drawn)


class TestStrokesOutsideTheTarget:
    @pytest.mark.parametrize("mode", ["propagate", "graph_cut", "network", "both"])
    def test_are_obeyed_and_change_nothing_far_away(self, mode):
        running = session()
        before = running.result.data.copy()
        running.add(Scribble(LINE, positive=False))
        result = running.propagate() if mode == "propagate" else running.refine(mode)
        after = result.data
        assert (before[tuple(LINE.T)] == 1).any()
        assert not after[tuple(LINE.T)].any()
        changed = np.argwhere(before != after)
        assert distance_to(LINE)[tuple(changed.T)].max() <= REACH_ELEMENTS
        assert not ((after == 1) & (before == 0)).any()

    def test_encode_and_decode_nothing(self):
        network = BrightRegion()
        running = session(network)
        asked = network.encoded, len(network.asked)
        running.add(Scribble(LINE, positive=False))
        running.propagate()
        assert (network.encoded, len(network.asked)) == asked

    def test_stay_when_a_click_follows(self):
        running = session()
        running.add(Scribble(LINE, positive=False))
        running.propagate()
        running.add(Point((18, 20, 11), positive=False))
        after = running.refine("graph_cut").data
        assert not after[tuple(LINE.T)].any()
        assert after[18, 20, 11] == 0

    def test_are_given_way_by_a_later_one(self):
        running = session()
        running.add(Scribble(LINE, positive=False))
        running.propagate()
        running.add(Scribble(LINE[:4]))
        after = running.refine("graph_cut").data
        assert after[tuple(LINE[:4].T)].all()
        assert not after[tuple(LINE[4:].T)].any()

    def test_replay(self):
        running = session()
        running.add(Scribble(LINE, positive=False))
        after = running.propagate().data
        again = segmenter().segment(bright_volume(BLOB), running.prompts, consistency="none")
        np.testing.assert_array_equal(again.data, after)
        running.undo()
        assert running.propagate().data[tuple(LINE.T)].any()


class TestStrokesInside:
    @pytest.mark.parametrize("mode", ["propagate", "graph_cut", "network", "both"])
    def test_come_out_as_drawn(self, mode):
        line = np.array([(30, j, 8) for j in range(16, 24)])
        running = session()
        running.add(Scribble(line))
        result = running.propagate() if mode == "propagate" else running.refine(mode)
        assert (result.data[tuple(line.T)] == 1).all()
        assert result.data[18, 20, 8] == 1


class TestClicks:
    @pytest.mark.parametrize("mode", ["propagate", "graph_cut", "network", "both"])
    def test_are_obeyed(self, mode):
        running = session()
        inside, outside = (30, 20, 8), (18, 24, 6)
        running.add(Point(inside), Point(outside, positive=False))
        result = running.propagate() if mode == "propagate" else running.refine(mode)
        assert result.data[inside] == 1
        assert result.data[outside] == 0


class TestStroked:
    IMAGE = BLOB.astype(np.float32)

    def stroke(self, voxels, positive, labels=None, spacing=EVEN):
        labels = BLOB.astype(np.uint8) if labels is None else labels
        stroke = Scribble(np.asarray(voxels), positive)
        return stroked(labels, BLOB.astype(np.float32), self.IMAGE, stroke, spacing)

    def test_slices_that_are_too_far_are_not_touched(self):
        after = self.stroke(LINE, False, spacing=(1.0, 1.0, 4.0))
        assert set(np.argwhere(after != BLOB)[:, 2]) == {8}

    def test_other_targets_lose_only_what_is_drawn(self):
        labels = BLOB.astype(np.uint8)
        labels[28:34, 14:26, 8] = 2
        line = np.array([(28, j, 8) for j in range(16, 24)])
        after = self.stroke(line, True, labels)
        assert (after[tuple(line.T)] == 1).all()
        np.testing.assert_array_equal(after[29:34, 14:26, 8], labels[29:34, 14:26, 8])

    def test_at_a_corner_of_the_image(self):
        after = self.stroke([(0, 0, 0), (1, 0, 0)], True)
        assert after[0, 0, 0] == after[1, 0, 0] == 1


class TestObeyed:
    def test_later_prompts_win(self):
        labels = BLOB.astype(np.uint8)
        clicks = PromptSet([Point((18, 20, 8), positive=False), Point((18, 20, 8)),
                            Point((17, 20, 8), target=2), Point((5, 5, 5))])  # fmt: skip
        found = obeyed(labels, clicks)
        assert (found[18, 20, 8], found[17, 20, 8], found[5, 5, 5]) == (1, 1, 1)
        np.testing.assert_array_equal(labels, BLOB)

    def test_nothing_to_do_is_the_same_array(self):
        labels = BLOB.astype(np.uint8)
        assert obeyed(labels, PromptSet([Point((18, 20, 8)), BOX])) is labels

    def test_a_click_where_nothing_was_found_makes_no_target_of_one_voxel(self):
        empty = np.zeros(SHAPE, np.uint8)
        assert obeyed(empty, PromptSet([Point((5, 5, 5))])) is empty
        assert obeyed(empty, PromptSet([Scribble(LINE)])).sum() == len(LINE)


class TestRoles:
    def test_of_corrections(self):
        running = session()
        running.add(Scribble(LINE, positive=False), Scribble(LINE[:2] + [0, -3, 0]))
        assert [p.role for p in list(running.prompts)[1:]] == [REFINE, CORRECTION]
