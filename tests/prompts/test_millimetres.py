"""Places in the world mean the same voxels, whatever order and directions a file stores them in."""

from dataclasses import replace

import numpy as np
import pytest
from orders import ORDERS, restored, stored

from promptseg.prompts.types import Box, MarginPoints, Point, Scribble
from promptseg.volume import Volume

SHAPE = (9, 11, 6)
THICK = np.diag([1.0, 1.0, 2.0])
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
TILT = np.array([[1.0, 0.0, 0.0], [0.0, 0.936, -0.352], [0.0, 0.352, 0.936]])


def placed(matrix, shape=SHAPE, at=(-20.3, 14.7, 100.0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, at
    return Volume(np.zeros(shape, np.uint8), affine)


STRAIGHT = placed(THICK)
OBLIQUE = placed(TURN @ TILT @ np.diag([0.7, 1.1, 3.0]))


def voxels_of(prompt, volume):
    """(I, J, K) bool of what a prompt marks."""
    marked, found = np.zeros(volume.shape, bool), prompt.resolve(volume)
    if isinstance(found, Box):
        marked[tuple(slice(a, b) for a, b in zip(found.lo, found.hi, strict=True))] = True
    else:
        places = {Point: "at", Scribble: "voxels", MarginPoints: "points"}[type(found)]
        at = np.floor(np.atleast_2d(getattr(found, places)) + 0.5).astype(int)
        marked[tuple(at.T)] = True
    return marked


class TestABoxIsFromFaceToFace:
    def test_the_example_of_the_issue(self):
        volume = placed(THICK, (64, 64, 20), (0, 0, 0))
        box = Box((15.5, 15.5, 23), (47.5, 47.5, 25), frame="ras")
        assert box.resolve(volume) == Box((16, 16, 12), (48, 48, 13))

    def test_on_a_mirrored_file(self):
        volume = placed(THICK, (64, 64, 20), (0, 0, 0))
        mirrored = stored(volume, "LPI")
        box = Box((15.5, 15.5, 23), (47.5, 47.5, 25), frame="ras")
        assert box.resolve(mirrored) == Box((16, 16, 7), (48, 48, 8))
        there = Box((-15.5, -15.5, 23), (-47.5, -47.5, 25), frame="lps")
        assert there.resolve(mirrored) == Box((16, 16, 7), (48, 48, 8))

    @pytest.mark.parametrize("shift", [-0.9, -0.4, 0.0, 0.4, 0.9])
    def test_as_thick_as_a_slice_is_one_slice_wherever_it_lies(self, shift):
        volume = placed(THICK, (64, 64, 20), (0, 0, 0))
        box = Box((15.5, 15.5, 23 + shift), (47.5, 47.5, 25 + shift), frame="ras")
        assert box.resolve(volume) == Box((16, 16, 12), (48, 48, 13))

    def test_thinner_than_a_slice_is_the_slice_it_lies_in(self):
        volume = placed(THICK, (64, 64, 20), (0, 0, 0))
        for low, high, index in ((23.1, 23.6, 12), (24.2, 24.9, 12), (25.1, 25.2, 13)):
            box = Box((15.5, 15.5, low), (47.5, 47.5, high), frame="ras")
            assert box.resolve(volume) == Box((16, 16, index), (48, 48, index + 1))

    def test_the_whole_image(self):
        corners = STRAIGHT.to_world(np.array([(-0.5, -0.5, -0.5), np.array(SHAPE) - 0.5]))
        assert voxels_of(Box(*corners, frame="ras"), STRAIGHT).all()


class TestTheSameInAllOrders:
    def check(self, prompt, original):
        first = voxels_of(prompt, original)
        assert first.any()
        for codes in ORDERS:
            volume = stored(original, codes)
            there = restored(voxels_of(prompt, volume), volume, original)
            np.testing.assert_array_equal(there, first, err_msg=f"{codes} {prompt}")
        return first

    @pytest.mark.parametrize("volume", [STRAIGHT, OBLIQUE])
    def test_boxes_on_faces_centres_and_between(self, volume):
        rng = np.random.default_rng(0)
        for corners in (
            [(1.5, 2.5, 1.5), (6.5, 8.5, 2.5)],
            [(1, 2, 1), (6, 8, 2)],
            [(1.3, 2.2, 3), (6.9, 8, 3)],
            *rng.uniform(0, 5, (5, 2, 3)),
        ):
            low, high = volume.to_world(np.array(corners))
            self.check(Box(tuple(high), tuple(low), frame="ras"), volume)

    @pytest.mark.parametrize("volume", [STRAIGHT, OBLIQUE])
    def test_a_box_covers_the_voxels_whose_centres_it_holds(self, volume):
        corners = np.array([(1.2, 2.7, 0.9), (6.4, 8.1, 4.2)])
        found = self.check(Box(*volume.to_world(corners), frame="ras"), volume)
        centres = np.argwhere(np.ones(SHAPE))
        held = np.all((centres > corners[0]) & (centres < corners[1]), axis=1)
        np.testing.assert_array_equal(np.argwhere(found), centres[held])

    @pytest.mark.parametrize("frame", ["ras", "lps"])
    @pytest.mark.parametrize("volume", [STRAIGHT, OBLIQUE])
    def test_points_lines_and_margin_points(self, volume, frame):
        at = volume.to_world(np.array([(2, 3, 1), (6, 3.5, 1), (3.5, 8.5, 1.5)]), frame)
        for place in at:
            assert self.check(Point(tuple(place), frame=frame), volume).sum() == 1
        self.check(Scribble(at, frame=frame), volume)
        self.check(Scribble.polyline(at, frame=frame), volume)
        around = volume.to_world(np.array([(2, 3, 1), (6, 3, 1), (4, 1, 1), (4, 6, 1)]), frame)
        self.check(MarginPoints(around, frame=frame), volume)


class TestFineVoxels:
    def test_a_line_in_millimetres_has_no_gaps_on_a_micrometre_image(self):
        volume = placed(np.eye(3) * 0.005, (300, 40, 3), (0, 0, 0))
        ends = volume.to_world(np.array([(5, 5, 1), (290, 30, 1)]))
        stroke = Scribble.polyline(ends, frame="ras").resolve(volume).voxels
        assert np.unique(stroke[:, 0]).tolist() == list(range(5, 291))

    def test_a_box_of_a_micrometre_image(self):
        fine = replace(STRAIGHT, affine=np.diag([0.003, 0.003, 0.003, 1.0]))
        corners = fine.to_world(np.array([(0.5, 1.5, 2.5), (4.5, 6.5, 3.5)]))
        assert Box(*corners, frame="ras").resolve(fine) == Box((1, 2, 3), (5, 7, 4))
