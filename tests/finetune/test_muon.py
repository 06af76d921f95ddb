import pytest
import torch

from promptseg.finetune.muon import Muon, orthogonalised


class TestOrthogonalised:
    @pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
    def test_singular_values_come_near_one(self, shape):
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalised(matrix))
        assert values.min() > 0.3
        assert values.max() < 1.3

    def test_a_tall_matrix_is_the_transpose_of_the_wide_one(self):
        matrix = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(orthogonalised(matrix).T, orthogonalised(matrix.T))


class TestMuon:
    @pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
    def test_takes_the_steps_of_torchs_own(self, shape):
        torch.manual_seed(0)
        start = torch.randn(shape)
        ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
        steppers = (Muon([ours], 0.02, 0.1), torch.optim.Muon([theirs], 0.02, weight_decay=0.1))
        for _ in range(4):
            gradient = torch.randn(shape)
            for parameter, stepper in zip((ours, theirs), steppers, strict=True):
                parameter.grad = gradient.clone()
                stepper.step()
        # torch's own rounds to bfloat16.
        assert (ours - theirs).abs().max() < 0.05 * (ours - start).abs().max()

    def test_what_has_no_gradient_stays(self):
        matrix = torch.nn.Parameter(torch.ones(3, 4))
        Muon([matrix], 0.1, 0.1).step()
        assert torch.equal(matrix, torch.ones(3, 4))
