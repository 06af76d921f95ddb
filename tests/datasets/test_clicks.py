import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from promptseg.datasets.simulation.clicks import (
    corrective_click,
    deepest,
    extremes,
    largest_component,
    margin_places,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestClicks:
    def test_the_largest_component_of_any_flat_mask(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            mask = rng.random(rng.integers(1, 10, 2)) < 0.4
            parts, count = ndimage.label(mask, np.ones((3, 3)))
            sizes = [int((parts == n).sum()) for n in range(1, count + 1)]
            assert largest_component(mask).sum() == max(sizes, default=0)

    def test_deepest_of_the_largest_component(self):
        error = np.zeros((30, 30), bool)
        error[2:5, 2:5] = True
        error[10:21, 10:17] = True
        at, positive = corrective_click(np.zeros_like(error), error, (1, 1), rng())
        assert positive
        depth = ndimage.distance_transform_edt(error)
        assert depth[at] == depth.max()

    def test_background_click_on_a_false_positive(self):
        truth = np.zeros((20, 20), bool)
        truth[5:10, 5:10] = True
        prediction = truth.copy()
        prediction[10:19, 5:14] = True
        at, positive = corrective_click(prediction, truth, (1, 1), rng())
        assert not positive
        assert at == (14, 9)

    def test_no_click_without_an_error(self):
        mask = np.eye(5, dtype=bool)
        assert corrective_click(mask, mask, (1, 1), rng()) is None

    def test_diagonal_voxels_belong_together(self):
        chain = np.zeros((5, 5, 5), bool)
        chain[np.arange(4), np.arange(4), np.arange(4)] = True
        block = np.zeros_like(chain)
        block[4, 4, 0] = block[4, 3, 0] = block[4, 4, 1] = True
        assert np.array_equal(largest_component(chain | block), chain)

    def test_ties_are_drawn(self):
        line = np.zeros((3, 40), bool)
        line[1] = True
        found = {deepest(line, (1, 1), rng(seed)) for seed in range(30)}
        assert len(found) > 5

    def test_depth_is_in_millimetres(self):
        error = np.zeros((11, 11, 3), bool)
        error[2:9, 2:9, 1] = True
        assert deepest(error, (1.0, 1.0, 10.0), rng()) == (5, 5, 1)

    def test_the_larger_error_comes_first(self):
        truth = np.zeros((40, 40), bool)
        truth[2:8, 2:8] = True
        prediction = np.zeros((40, 40), bool)
        prediction[20:40, 20:40] = True
        _, positive = corrective_click(prediction, truth, (1, 1), rng())
        assert not positive
        _, positive = corrective_click(prediction & False, truth, (1, 1), rng())
        assert positive

    def test_the_largest_component_of_nothing_is_nothing(self):
        assert not largest_component(np.zeros((9, 9), bool)).any()
        with pytest.raises(ValueError, match="empty"):
            deepest(np.zeros((9, 9), bool), (1, 1), rng())


class TestExtremes:
    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 10_000), st.integers(2, 3))
    def test_one_at_either_end_of_every_axis(self, seed, axes):
        cells = rng(seed).integers(0, 6, (rng(seed).integers(1, 20), axes))
        found = extremes(cells, rng(seed))
        known = {tuple(cell) for cell in cells.tolist()}
        assert all(tuple(one) in known for one in found.tolist())
        for axis in range(axes):
            assert found[2 * axis, axis] == cells[:, axis].min()
            assert found[2 * axis + 1, axis] == cells[:, axis].max()

    def test_ties_are_drawn(self):
        side = np.array([[0, n] for n in range(30)])
        assert len({tuple(extremes(side, rng(seed))[0]) for seed in range(20)}) > 5

    def test_margin_places_of_a_single_pixel(self):
        target = np.zeros((9, 9), bool)
        target[4, 5] = True
        assert margin_places(target, rng()) == [(4, 5)]
