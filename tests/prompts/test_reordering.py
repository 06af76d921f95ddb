import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.prompts.reordering import reordered, reordered_prompt
from promptseg.prompts.types import Box, Mask, Point, PromptSet, Scribble, Text
from promptseg.volume.orientation import Orientation

SHAPE = (9, 8, 7)
ORIENTATIONS = st.builds(
    Orientation, st.permutations(range(3)).map(tuple), st.tuples(*[st.booleans()] * 3)
)


class TestMarkTheSameVoxels:
    @settings(max_examples=60, deadline=None)
    @given(ORIENTATIONS, st.integers(0, 2**31))
    def test_of_every_kind_and_come_back(self, orientation, seed):
        at = np.random.default_rng(seed).integers(0, SHAPE)
        marked = np.zeros(SHAPE, bool)
        marked[tuple(at)] = True
        seen = orientation.apply(marked)
        there = tuple(np.argwhere(seen)[0].tolist())
        assert reordered_prompt(Point(tuple(at.tolist())), orientation, SHAPE).at == there
        box = Box(tuple(at.tolist()), tuple((at + 1).tolist()))
        moved = reordered_prompt(box, orientation, SHAPE)
        assert (moved.lo, moved.hi) == (there, tuple(c + 1 for c in there))
        stroke = reordered_prompt(Scribble(at[None]), orientation, SHAPE)
        assert stroke.voxels.tolist() == [list(there)]
        assert stroke.voxels.dtype.kind == "i"
        plane = Mask(marked[:, at[1]], axis=1, index=int(at[1]))
        for mask in (Mask(marked), plane):
            moved = reordered_prompt(mask, orientation, SHAPE)
            np.testing.assert_array_equal(moved.dense(seen.shape), seen)
            back = reordered_prompt(moved, orientation.inverse, seen.shape)
            np.testing.assert_array_equal(back.dense(SHAPE), marked)

    def test_a_box_of_several_voxels(self):
        moved = reordered_prompt(
            Box((1, 2, 3), (4, 4, 7)), Orientation((2, 0, 1), (True, False, True)), SHAPE
        )
        assert (moved.lo, moved.hi) == ((0, 1, 4), (4, 4, 6))


class TestWhatStays:
    def test_words_and_roles(self):
        orientation = Orientation((1, 0, 2), (True, False, True))
        click = Point((1, 2, 3), False, 4, role="correction")
        words, moved = reordered(PromptSet([Text("liver"), click]), orientation, SHAPE)
        assert words == Text("liver")
        assert moved == Point((5, 1, 3), False, 4, role="correction")

    def test_everything_where_nothing_changes(self):
        prompts = PromptSet([Point((1, 2, 3))])
        assert reordered(prompts, Orientation(), SHAPE) is prompts
