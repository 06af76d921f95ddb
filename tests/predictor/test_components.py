import numpy as np
import pytest
from support import BrightRegion, bright_volume, dice, discs, segmenter

import promptseg as ps
from promptseg.inference.box_reading import tightened
from promptseg.inference.slice_prompts import CORRECTION
from promptseg.predictor.components import box_bounds, boxed_parts
from promptseg.prompts.types import Box, Point, PromptSet, Scribble
from promptseg.volume.slicing import Region

SHAPE = (64, 60, 20)
ONE = discs(SHAPE, 2, dict.fromkeys(range(4, 10), (14, 16, 5)))
TWO = discs(SHAPE, 2, dict.fromkeys(range(6, 15), (48, 40, 6)))
BOX_ONE, BOX_TWO = Box((8, 10, 7), (21, 23, 8)), Box((41, 33, 7), (56, 48, 8))


def session(image=ONE | TWO, **options):
    return segmenter(BrightRegion()).session(bright_volume(image), consistency="none", **options)


class TestTwoBoxesOfOneLabelOnOneSlice:
    def test_give_the_union_of_both_parts(self):
        result = segmenter().segment(bright_volume(ONE | TWO), [BOX_ONE, BOX_TWO])
        assert dice(result.data == 1, ONE | TWO) > 0.99
        assert result.targets == (1,)
        assert 0 < result.score[1] <= 1

    def test_beside_another_target(self):
        third = discs(SHAPE, 2, dict.fromkeys(range(6, 9), (14, 48, 4)))
        box = Box((9, 43, 7), (20, 54, 8), target=2)
        result = segmenter().segment(bright_volume(ONE | TWO | third), [BOX_ONE, box, BOX_TWO])
        assert dice(result.data == 1, ONE | TWO) > 0.99
        assert dice(result.data == 2, third) > 0.99

    def test_a_correction_changes_the_part_that_it_lies_in(self):
        running = session()
        running.add(BOX_ONE, BOX_TWO)
        before = running.propagate().data == 1
        running.add(Point((48, 40, 12), positive=False))
        after = running.propagate().data == 1
        np.testing.assert_array_equal(after[:32], before[:32])
        assert after[:, :, 12].sum() < before[:, :, 12].sum()

    def test_uncertainty_candidates_and_suggestion(self):
        running = session()
        running.add(BOX_ONE, BOX_TWO)
        running.propagate()
        doubt = running.uncertainty()
        assert doubt.shape == SHAPE
        assert float(doubt[14, 16, 7]) < 0.2
        assert float(doubt[48, 40, 7]) < 0.2
        assert running.suggest().target == 1
        assert dice(running.candidates()[0].mask[:, :, 7], ONE[:, :, 7]) > 0.9
        assert dice(running.probability() > 0.5, ONE | TWO) > 0.99


class TestAClickInASecondLesion:
    @pytest.mark.parametrize("first", [BOX_ONE, Point((14, 16, 7))])
    def test_starts_a_part_of_its_own(self, first):
        running = session()
        running.add(first)
        before = running.propagate().data == 1
        running.add(Point((48, 40, 9)))
        after = running.propagate().data == 1
        np.testing.assert_array_equal(after[:32], before[:32])
        assert dice(after[32:], TWO[32:]) > 0.99

    def test_gives_the_same_when_replayed(self):
        running = session()
        running.add(BOX_ONE)
        running.propagate()
        running.add(Point((48, 40, 9)))
        after = running.propagate().data
        again = segmenter().segment(bright_volume(ONE | TWO), running.prompts, consistency="none")
        np.testing.assert_array_equal(again.data, after)

    def test_a_click_near_by_corrects_what_is_there(self):
        running = session()
        running.add(BOX_ONE)
        running.propagate()
        running.add(Point((22, 16, 7)))
        running.propagate()
        assert len({g.keys[1] for g in running.asker.asked.answered}) == 1

    def test_undo_takes_it_away(self):
        running = session()
        running.add(BOX_ONE)
        before = running.propagate().data
        running.add(Point((48, 40, 9)))
        running.propagate()
        running.undo()
        np.testing.assert_array_equal(running.propagate().data, before)


class TestClicksGivenAtOnce:
    def answered(self, *clicks, image=ONE | TWO):
        running = session(image)
        running.add(*clicks)
        return running.propagate().data == 1, running

    def keys(self, running):
        return {group.keys.get(1, 1) for group in running.asker.asked.answered}

    def test_in_two_lesions_are_two_parts(self):
        found, running = self.answered(Point((14, 16, 7)), Point((48, 40, 9)))
        assert len(self.keys(running)) == 2
        assert dice(found, ONE | TWO) > 0.99

    def test_give_what_they_give_one_after_the_other(self):
        found, _ = self.answered(Point((14, 16, 7)), Point((48, 40, 9)))
        running = session()
        running.add(Point((14, 16, 7)))
        running.propagate()
        running.add(Point((48, 40, 9)))
        np.testing.assert_array_equal(running.propagate().data == 1, found)

    @pytest.mark.parametrize("second", [(16, 14, 7), (14, 16, 5), (48, 40, 13)])
    def test_in_one_lesion_are_one_part(self, second):
        first = Point((48, 40, 7)) if second[0] == 48 else Point((14, 16, 8))
        _, running = self.answered(first, Point(second))
        assert len(self.keys(running)) == 1

    def test_one_beside_belongs_to_the_nearer_part(self):
        away = Point((48, 40, 12), positive=False)
        found, running = self.answered(Point((14, 16, 7)), away, Point((48, 40, 9)))
        assert len(self.keys(running)) == 2
        assert dice(found[:32], ONE[:32]) > 0.99
        assert not found[48, 40, 12]


class TestParts:
    def parts(self, *prompts):
        return [len(part) for part in boxed_parts(PromptSet(prompts), 2)]

    def test_boxes_that_overlap_on_other_slices_are_one(self):
        assert self.parts(BOX_ONE, Box((9, 11, 12), (22, 24, 13))) == [2]

    def test_boxes_apart_are_two_on_whatever_slices(self):
        assert self.parts(BOX_ONE, Box((41, 33, 12), (56, 48, 13))) == [1, 1]

    def test_a_box_given_twice_is_one(self):
        assert self.parts(BOX_ONE, BOX_ONE) == [2]

    def test_other_prompts_belong_to_the_nearest_box(self):
        click, stroke = Point((50, 41, 3)), Scribble(np.array([[15, 17, 9], [16, 17, 9]]), False)
        first, second = boxed_parts(PromptSet([BOX_ONE, click, BOX_TWO, stroke]), 2)
        assert first == [BOX_ONE, stroke]
        assert second == [click, BOX_TWO]


class TestA3DBox:
    TUBE = discs(SHAPE, 2, dict.fromkeys(range(3, 17), (30, 30, 8)))

    def test_is_its_middle_box_cut_to_its_slices(self):
        volume = bright_volume(self.TUBE)
        flat = segmenter().segment(volume, [Box((21, 21, 9), (40, 40, 10))]).data
        for low, high in ((3, 17), (6, 14)):
            deep = segmenter().segment(volume, [Box((21, 21, low), (40, 40, high))]).data
            expected = flat.copy()
            expected[:, :, :low] = expected[:, :, high:] = 0
            np.testing.assert_array_equal(deep, expected)

    def test_two_voxels_of_room_do_not_hurt(self):
        ball = np.zeros(SHAPE, bool)
        i, j, k = np.indices(SHAPE)
        ball[(i - 30) ** 2 + (j - 30) ** 2 + ((k - 10) * 2) ** 2 <= 14**2] = True
        volume = bright_volume(ball, (1.0, 1.0, 2.0))
        at = np.argwhere(ball)
        for room in (0, 2):
            box = Box(tuple((at.min(0) - room).tolist()), tuple((at.max(0) + 1 + room).tolist()))
            assert dice(segmenter().segment(volume, [box], axis=2).data > 0, ball) > 0.97

    def test_a_click_beyond_it_makes_it_deeper(self):
        box = Box((21, 21, 6), (40, 40, 12))
        assert box_bounds(PromptSet([box]), 2) == (6, 12)
        assert box_bounds(PromptSet([box, Point((30, 30, 14), role=CORRECTION)]), 2) == (6, 15)
        assert box_bounds(PromptSet([box, Point((30, 30, 14), positive=False)]), 2) == (6, 12)
        assert box_bounds(PromptSet([BOX_ONE]), 2) is None


class TestScales:
    @pytest.mark.parametrize("side", [0.001, 0.01, 0.03, 0.1, 0.3, 10.0, 100.0])
    def test_the_same_voxels_of_any_size(self, side):
        ball = np.zeros(SHAPE, bool)
        i, j, k = np.indices(SHAPE)
        ball[(i - 30) ** 2 + (j - 30) ** 2 + (k - 10) ** 2 <= 8**2] = True
        rng = np.random.default_rng(0)
        data = (ball * 90 + rng.normal(60, 8, SHAPE)).astype(np.float32)
        at = np.argwhere(ball[:, :, 10])
        lo, hi = at.min(0), at.max(0) + 1
        box = Box((int(lo[0]), int(lo[1]), 10), (int(hi[0]), int(hi[1]), 11))
        plain = segmenter().segment(ps.Volume(data, np.eye(4), "MR"), [box]).data
        other = ps.Volume(data, np.diag([side, side, side, 1]), "MR")
        assert abs(dice(segmenter().segment(other, [box]).data > 0, ball)
                   - dice(plain > 0, ball)) < 0.02  # fmt: skip


class TestLooseBoxes:
    BOX = (10.0, 20.0, 5.0), (50.0, 60.0, 6.0)

    @pytest.mark.parametrize(
        ("rows", "cols", "expected"),
        [
            ((12, 48), (22, 58), ((12, 22, 5), (48, 58, 6))),
            ((10, 50), (22, 58), ((10, 22, 5), (50, 58, 6))),
            ((11, 50), (20, 60), BOX),
            ((12, 48), (22, 40), BOX),
            ((8, 47), (20, 57), ((10, 20, 5), (47, 57, 6))),
        ],
    )
    def test_a_little_room_is_taken_off_and_much_is_not(self, rows, cols, expected):
        assert tightened(self.BOX, Region(rows, cols), 2) == expected

    def test_an_empty_mask_says_nothing(self):
        assert tightened(self.BOX, None, 2) == self.BOX

    def test_two_voxels_of_room_give_the_mask_of_the_tight_box(self):
        blob = discs(SHAPE, 2, dict.fromkeys(range(3, 17), (30, 30, 14)))
        tight = segmenter().segment(bright_volume(blob), [Box((16, 16, 9), (45, 45, 10))]).data
        loose = segmenter().segment(bright_volume(blob), [Box((14, 14, 9), (47, 47, 10))]).data
        np.testing.assert_array_equal(loose, tight)
