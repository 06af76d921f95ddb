import numpy as np
import pytest
import torch

from promptseg.finetune.objectives.levels import level_set, signed_distance
from promptseg.finetune.objectives.terms import inside_probability


class TestSignedDistance:
    def test_by_hand(self):
        mask = np.array([False, True, True, True, False, False])
        assert signed_distance(mask, [2.0]).tolist() == [1, -1, -3, -1, 1, 3]

    def test_millimetres_of_each_axis(self):
        mask = np.zeros((3, 5), bool)
        mask[1, 2] = True
        found = signed_distance(mask, (5.0, 1.0))
        assert found[1].tolist() == [1.5, 0.5, -0.5, 0.5, 1.5]
        assert found[0, 2] == 4.5

    def test_sign_gives_the_mask_back(self):
        mask = np.random.default_rng(0).random((7, 9, 5)) > 0.6
        assert np.array_equal(signed_distance(mask, (1.0, 2.0, 0.5)) < 0, mask)


class TestLevelSet:
    def test_runs_from_minus_1_to_1(self):
        mask = np.zeros((3, 8, 8), bool)
        mask[1, 2:6, 2:6] = True
        found = level_set(mask, (1.0, 1.0, 1.0), planes=True)
        assert found.min() == -1
        assert found.max() == 1
        assert np.array_equal(found < 0, mask)

    def test_slices_without_the_label_are_outside(self):
        mask = np.zeros((3, 8, 8), bool)
        mask[1, 2:6, 2:6] = True
        found = level_set(mask, (1.0, 1.0, 1.0), planes=True)
        assert (found[[0, 2]] == 1).all()

    def test_in_3d_the_next_slice_is_near(self):
        mask = np.zeros((5, 8, 8), bool)
        mask[2, 2:6, 2:6] = True
        found = level_set(mask, (1.0, 1.0, 1.0), planes=False)
        assert 0 < found[1, 3, 3] < found[0, 3, 3] < 1

    def test_empty_and_full(self):
        empty = np.zeros((2, 3, 3), bool)
        for planes in (True, False):
            assert (level_set(empty, (1.0, 1.0, 1.0), planes) == 1).all()
            assert (level_set(~empty, (1.0, 1.0, 1.0), planes) == -1).all()

    @pytest.mark.parametrize("side", [24, 96])
    def test_the_smooth_inverse_gives_the_mask_back(self, side):
        rows, columns = np.indices((side, side))
        mask = ((rows - side / 2) ** 2 + (columns - side / 3) ** 2 < (side / 5) ** 2)[None]
        found = inside_probability(torch.from_numpy(level_set(mask, (1.0, 1.0, 1.0), True)))
        assert np.allclose(found.numpy(), mask, atol=1e-3)
