import numpy as np
from scipy import ndimage

from promptseg.datasets.simulation.pixel_prompts import rough_prompt, scribble_prompt, traced_prompt

ROWS, COLUMNS = np.indices((64, 64))
DISC = (ROWS - 30) ** 2 + (COLUMNS - 24) ** 2 <= 144


class TestRoughMask:
    def test_a_click_beside_it_lies_on_an_error_and_says_of_which_kind(self):
        kinds = set()
        for seed in range(40):
            given = rough_prompt(DISC, np.random.default_rng(seed))
            if not len(given.points):
                kinds.add(None)
                continue
            ((x, y),) = given.points.int().tolist()
            # The mask comes at half the size and blurred.
            rough = np.kron((given.mask > 0).numpy(), np.ones((2, 2), bool))
            assert ndimage.binary_dilation(rough != DISC, iterations=3)[y, x]
            assert int(given.labels) == int(DISC[y, x])
            kinds.add(int(given.labels))
        assert kinds == {None, 0, 1}


RING = np.abs(np.hypot(ROWS - 32, COLUMNS - 32) - 18) < 2


class TestTracing:
    def test_strokes_outside_leave_the_target_and_its_strokes_alone(self):
        counts = set()
        for seed in range(30):
            inside, outside = traced_prompt(RING, np.random.default_rng(seed)).scribbles > 0
            assert (inside.numpy() & RING).any()
            assert not (outside.numpy() & (RING | inside.numpy())).any()
            counts.add(bool(outside.any()))
        assert counts == {True, False}

    def test_a_disc_is_not_traced(self):
        for seed in range(30):
            inside, _ = scribble_prompt(DISC, np.random.default_rng(seed)).scribbles > 0
            assert not (inside.numpy() & ~DISC).any()

    def test_a_thin_ring_often_is(self):
        ring = np.abs(np.hypot(ROWS - 32, COLUMNS - 32) - 18) < 1
        beyond = []
        for seed in range(40):
            inside, _ = scribble_prompt(ring, np.random.default_rng(seed)).scribbles > 0
            beyond.append(bool((inside.numpy() & ~ring).any()))
        assert 5 < sum(beyond) < 35
