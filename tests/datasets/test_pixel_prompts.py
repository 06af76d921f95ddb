import numpy as np
from scipy import ndimage

from promptseg.datasets.simulation.pixel_prompts import rough_prompt

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
