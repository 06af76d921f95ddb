"""What a correction may change."""

import numpy as np
import pytest
import torch

from promptseg.inference.decoder import SliceMask
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.propagation.reach import LEAST, REACH, CorrectionReach
from promptseg.volume.slicing import Frame, Region

SIDE, SLICES = 32, 9
SPACING = (1.0, 1.0, 2.0)
LINES = np.indices((SIDE, SIDE))


def disc(row, col, radius):
    return torch.from_numpy((LINES[0] - row) ** 2 + (LINES[1] - col) ** 2 <= radius**2)


def mask(inside, quality=0.5):
    return SliceMask(inside.float() * 10 - 5, quality)


def reach(spacing=SPACING):
    whole = Region((0, SIDE), (0, SIDE))
    return CorrectionReach(Frame(2, whole, (SIDE, SIDE, SLICES), spacing, 2 * SIDE), SIDE)


def click(row, col, index, positive=True):
    return SlicePrompts([(row, col, index)], [int(positive)], [True])


def filled(answers, index):
    return answers[index].logits > 0


BEFORE = {k: mask(disc(16, 10, 6)) for k in range(2, 7)}
EVERYTHING = {k: mask(torch.ones(SIDE, SIDE, dtype=torch.bool)) for k in range(SLICES)}


class TestRadius:
    def test_it_is_twice_the_way_to_the_outline(self):
        (mark,) = reach().marks(4, click(16, 21, 4), BEFORE)
        assert mark.radius == pytest.approx(REACH * 5 + 1)

    def test_the_outline_of_a_neighbouring_slice_may_be_nearer(self):
        before = {**BEFORE, 5: mask(disc(16, 24, 4))}
        (mark,) = reach().marks(4, click(16, 24, 4), before)
        assert mark.radius == pytest.approx(REACH * LEAST * 6 + 1, rel=0.02)
        alone = reach().marks(4, click(16, 24, 4), BEFORE)[0].radius
        assert alone == pytest.approx(REACH * 8 + 1)

    def test_inside_a_mask_it_is_the_way_out(self):
        (mark,) = reach().marks(4, click(16, 10, 4, False), BEFORE)
        assert mark.radius == pytest.approx(REACH * 6 + 1, abs=0.1)

    def test_the_way_out_may_be_past_the_last_slice(self):
        thick = reach((1.0, 1.0, 4.0)).marks(6, click(16, 10, 6, False), BEFORE)[0].radius
        assert thick == pytest.approx(REACH * 4 + 1)

    def test_one_that_is_close_to_the_outline_still_reaches_some_way(self):
        large = {4: mask(disc(16, 10, 12))}
        (mark,) = reach().marks(4, click(16, 23, 4), large)
        assert mark.radius == pytest.approx(REACH * LEAST * 12 + 1, rel=0.03)

    def test_where_nothing_was_found_it_is_that_of_the_nearest_mask(self):
        (mark,) = reach().marks(8, click(16, 10, 8), BEFORE)
        assert mark.radius == pytest.approx(REACH * 6 + 1, rel=0.02)

    def test_it_has_no_bound_where_there_is_no_mask_at_all(self):
        (mark,) = reach().marks(4, click(16, 10, 4), {})
        assert mark.radius == np.inf

    def test_it_is_in_millimetres(self):
        fine, coarse = (reach((s, s, 2 * s)).marks(4, click(16, 21, 4), BEFORE)[0].radius
                        for s in (0.5, 2.0))  # fmt: skip
        assert coarse == pytest.approx(4 * fine)

    def test_first_prompts_are_no_corrections(self):
        said = SlicePrompts([(16, 10, 4), (16, 21, 4)], [1, 1], [False, True])
        marks = reach().marks(4, said, BEFORE)
        assert [m.places.tolist() for m in marks] == [[[16, 21]]]

    def test_a_stroke_counts_with_the_place_that_is_farthest_from_the_outline(self):
        stroke = np.array([[16, col, 4] for col in range(17, 25)])
        said = SlicePrompts(box=((8, 2, 4), (25, 18, 5)), late=([stroke], []))
        (mark,) = reach().marks(4, said, BEFORE)
        assert len(mark.places) == 8
        assert mark.radius == pytest.approx(REACH * 8 + 1)


class TestKept:
    def changed(self, at=(16, 21, 4), after=EVERYTHING, before=BEFORE):
        whole = reach()
        marks = whole.marks(at[2], click(*at), before)
        return whole.kept(marks, before, after), marks[0].radius

    def test_what_lies_within_reach_changes_and_nothing_else(self):
        found, radius = self.changed()
        for k in range(SLICES):
            left = radius**2 - (2.0 * (k - 4)) ** 2
            near = disc(16, 21, np.sqrt(left)) if left >= 0 else torch.zeros(SIDE, SIDE).bool()
            old = filled(BEFORE, k) if k in BEFORE else torch.zeros(SIDE, SIDE).bool()
            got = filled(found, k) if k in found else torch.zeros(SIDE, SIDE).bool()
            torch.testing.assert_close(got, old | near)

    def test_slices_that_were_not_asked_again_stay_the_same_objects(self):
        after = {**BEFORE, 4: EVERYTHING[4]}
        found, _ = self.changed(after=after)
        assert all(found[k] is BEFORE[k] for k in BEFORE if k != 4)

    def test_a_slice_that_was_lost_beyond_its_reach_comes_back(self):
        after = {k: m for k, m in BEFORE.items() if k in (5, 6)}
        found, _ = self.changed(at=(16, 18, 6), after=after)
        torch.testing.assert_close(filled(found, 2), filled(BEFORE, 2))

    def test_without_a_bound_all_changes(self):
        whole = reach()
        marks = whole.marks(4, click(16, 10, 4), {})
        assert whole.kept(marks, {}, EVERYTHING) == EVERYTHING

    def test_without_a_mark_all_changes(self):
        assert reach().kept([], BEFORE, EVERYTHING) == EVERYTHING
