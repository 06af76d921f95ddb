import nibabel as nib
import numpy as np
import pytest
from support import bright_volume, discs, segmenter

import promptseg as ps
from promptseg.predictor.rings import notes_on_rings
from promptseg.prompts.types import Box, Point, PromptSet, Text

SHAPE = (30, 26, 8)
BLOB = discs(SHAPE, 2, dict.fromkeys(range(2, 6), (12, 11, 5)))
BOX = Box((7, 6, 4), (18, 17, 5))


def notes(prompts, volume=None, **options):
    volume = bright_volume(BLOB) if volume is None else volume
    return segmenter().segment(volume, prompts, **options).report["notes"]


class TestNothingToSay:
    def test_of_a_usual_answer(self):
        assert notes([BOX]) == []

    def test_of_two_targets_with_boxes_of_their_own(self):
        two = BLOB | discs(SHAPE, 2, dict.fromkeys(range(2, 6), (25, 21, 3)))
        other = Box((22, 18, 3), (29, 25, 4), target=2)
        assert notes([BOX, other], bright_volume(two)) == []


class TestImage:
    @pytest.mark.parametrize("value", [0, 7])
    def test_that_is_constant(self, value):
        flat = ps.Volume(np.full(SHAPE, value, np.int16), np.eye(4), "MR")
        assert notes([BOX], flat)[0] == (
            f"every voxel of the image is {value}: there is nothing to be seen in it"
        )


class TestBoxes:
    def test_of_one_voxel(self):
        found = notes([Box((12, 11, 4), (13, 12, 5))], axis=2)
        assert "the box of target 1 is the single voxel (12, 11, 4)" in found

    def test_of_two_targets_that_are_the_same(self):
        found = notes([BOX, Box(BOX.lo, BOX.hi, target=3)])
        assert found[0].startswith("targets 1 and 3 have the same box")

    def test_given_twice_for_one_target(self):
        assert notes([BOX, BOX]) == []


def ring_answer(lo=(4, 4, 3), hi=(21, 21, 4), hollow=True, closed=True):
    rows, cols = np.indices(SHAPE[:2])
    away = np.hypot(rows - 12, cols - 12)
    plane = (away < 8) & ((away > 4) | (not hollow))
    plane &= (cols > 12) | closed
    data = np.zeros(SHAPE, np.uint8)
    data[..., 3] = plane * 2
    answer = ps.Segmentation(data, np.eye(4), report={"axis": 2})
    return answer, [Box(lo, hi, target=2)]


class TestRings:
    def said(self, more=(), **options):
        answer, prompts = ring_answer(**options)
        return list(notes_on_rings(PromptSet([*prompts, *more]), answer))

    @pytest.mark.parametrize("depth", [(3, 4), (2, 5)], ids=["flat", "deep"])
    def test_of_a_box_whose_middle_is_left_out(self, depth):
        (note,) = self.said(lo=(4, 4, depth[0]), hi=(21, 21, depth[1]))
        assert note == (
            "target 2 is a ring around the middle of its box: if what lies inside is meant, click "
            "there, or draw the box closer to it"
        )

    def test_not_of_a_full_one_or_one_that_is_open(self):
        assert self.said(hollow=False) == self.said(closed=False) == []

    @pytest.mark.parametrize("more", [Point((12, 5, 3), target=2),
                                      Point((12, 12, 3), positive=False, target=2)])  # fmt: skip
    def test_not_where_more_was_said(self, more):
        assert self.said([more]) == []

    def test_not_where_another_target_lies_inside(self):
        answer, prompts = ring_answer()
        answer.data[12, 12, 3] = 1
        assert list(notes_on_rings(PromptSet(prompts), answer)) == []

    def test_a_box_beyond_the_image_is_no_error(self):
        assert self.said(lo=(28, 4, 3), hi=(40, 21, 4)) == []


class TestEmptyTargets:
    def test_one_of_two(self):
        found = notes([BOX, Point((1, 1, 4), target=2)])
        assert [line for line in found if line.startswith("target 2 came out empty: ")]
        assert not [line for line in found if line.startswith("target 1 ")]


class TestWhereTheFileLies:
    def read(self, tmp_path, shift, codes=(1, 1)):
        image = nib.Nifti1Image((BLOB * 100).astype(np.int16), np.eye(4))
        moved = np.eye(4)
        moved[1, 3] = shift
        image.set_sform(np.eye(4), codes[0])
        image.set_qform(moved, codes[1])
        nib.save(image, tmp_path / "image.nii.gz")
        return ps.read(tmp_path / "image.nii.gz")

    def test_qform_and_sform_apart_and_millimetres_asked_for(self, tmp_path):
        volume = self.read(tmp_path, 25)
        (line,) = notes([Point((12, 11, 4), frame="ras")], volume)
        assert line.startswith("the file's qform and sform lie 25.0 mm apart")

    def test_without_millimetres_nothing_hangs_on_it(self, tmp_path):
        assert notes([BOX], self.read(tmp_path, 25)) == []

    @pytest.mark.parametrize(("shift", "codes"), [(0.2, (1, 1)), (25, (1, 0)), (25, (0, 1))])
    def test_where_they_agree_or_one_is_not_said(self, tmp_path, shift, codes):
        volume = self.read(tmp_path, shift, codes)
        at = tuple(volume.to_world(np.array([[12, 11, 4]]))[0].tolist())
        assert notes([Point(at, frame="ras")], volume) == []


class TestWords:
    def test_why_a_target_is_empty_is_said_once(self):
        from promptseg.predictor.notes import notes_on
        from promptseg.prompts.types import PromptSet

        volume = bright_volume(BLOB)
        told = [{"target": 1, "reason": "'liver' was judged absent"}]
        result = ps.Segmentation(np.zeros(SHAPE, np.uint8), np.eye(4), {1: 0.0},
                                 report={"text": told})  # fmt: skip
        assert notes_on(volume, PromptSet([Text("liver")]), result) == [
            "target 1 came out empty: 'liver' was judged absent"
        ]


class TestAdapters:
    def test_that_does_not_say_its_orientation(self):
        from promptseg.predictor.notes import notes_on
        from promptseg.prompts.types import PromptSet

        result = ps.Segmentation(BLOB.astype(np.uint8), np.eye(4), {1: 0.9})
        (line,) = notes_on(bright_volume(BLOB), PromptSet([BOX]), result, "mine")
        assert line.startswith("the adapter mine does not say which orientation")


class TestSize:
    def test_what_is_larger_than_in_training_is_said(self):
        from promptseg.predictor.notes import notes_on
        from promptseg.prompts.types import PromptSet

        report = {"larger_than_trained": {1: (212.4, 90.5)}}
        result = ps.Segmentation(BLOB.astype(np.uint8), np.eye(4), {1: 0.9}, report=report)
        assert notes_on(bright_volume(BLOB), PromptSet(), result) == [
            "target 1 has a cross-section of 212.4 cm², the largest in training was 90.5: check "
            "that it is not something else"
        ]


class TestSmallHoles:
    def test_a_small_hole_in_the_middle_is_no_ring(self):
        from promptseg.predictor.rings import surrounds

        grid = np.hypot(*(np.indices((41, 41)) - 20))
        lo, hi = (0.0, 0.0, 0.0), (41.0, 41.0, 1.0)
        wall, sinus = ((grid < 20) & (grid > inner) for inner in (14, 6))
        assert surrounds(wall[..., None], 2, lo, hi)
        assert not surrounds(sinus[..., None], 2, lo, hi)
