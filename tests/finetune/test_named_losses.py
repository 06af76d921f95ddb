import math

import pytest
import torch
from torch.nn import functional

from promptseg.errors import FormatError
from promptseg.finetune.losses import soft_dice_loss
from promptseg.finetune.named_losses import LOSSES, loss_by_name


def toy() -> tuple[torch.Tensor, torch.Tensor]:
    """Two squares of different sizes to be learned from zero logits."""
    target = torch.zeros(2, 16, 16)
    target[0, 4:12, 4:12] = 1
    target[1, 2:6, 2:6] = 1
    return torch.zeros(2, 16, 16, requires_grad=True), target


class TestEveryLoss:
    @pytest.mark.parametrize("name", [*LOSSES, "dice+focal", "2*dice + 0.5*boundary"])
    def test_learns_a_toy(self, name):
        logits, target = toy()
        loss = loss_by_name(name)
        first = loss(logits, target)
        assert first.shape == (2,)
        optimiser = torch.optim.Adam([logits], 0.2)
        for _ in range(60):
            optimiser.zero_grad()
            loss(logits, target).sum().backward()
            optimiser.step()
        assert (loss(logits, target) < first).all()
        assert (((logits > 0) == (target > 0.5)).float().mean((1, 2)) > 0.95).all()

    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_empty_and_full_targets_stay_finite(self, name, value):
        logits = torch.randn(2, 8, 8, requires_grad=True)
        loss_by_name(name)(logits, torch.full((2, 8, 8), value)).sum().backward()
        assert torch.isfinite(logits.grad).all()

    @pytest.mark.parametrize("name", LOSSES)
    def test_rows_do_not_mix(self, name):
        torch.manual_seed(0)
        logits, target = torch.randn(3, 8, 8), (torch.rand(3, 8, 8) > 0.5).float()
        loss = loss_by_name(name)
        together = loss(logits, target)
        alone = torch.cat([loss(logits[n : n + 1], target[n : n + 1]) for n in range(3)])
        assert torch.allclose(together, alone, atol=1e-6)


class TestAgainstFormulas:
    def test_dice_is_the_soft_dice_of_the_default_model(self):
        logits, target = torch.randn(4, 9, 9), (torch.rand(4, 9, 9) > 0.6).float()
        expected = soft_dice_loss(logits, target)
        assert torch.allclose(loss_by_name("dice")(logits, target), expected, atol=1e-5)

    def test_focal(self):
        logits, target = torch.randn(2, 7, 7), (torch.rand(2, 7, 7) > 0.5).float()
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        right = torch.where(target > 0, logits.sigmoid(), 1 - logits.sigmoid())
        expected = ((1 - right) ** 2 * entropy).mean((1, 2))
        assert torch.allclose(loss_by_name("focal")(logits, target), expected, atol=1e-5)

    def test_tversky_punishes_misses_more(self):
        target = torch.zeros(1, 10, 10)
        target[:, :5] = 1
        missed, false = torch.full_like(target, -9.0), torch.full_like(target, 9.0)
        missed[:, 2:5], missed[:, :2], false[:, 8:] = -9.0, 9.0, -9.0
        loss = loss_by_name("tversky")
        assert loss(missed, target) > loss(false, target)

    def test_boundary_is_lowest_on_the_target(self):
        target = torch.zeros(1, 12, 12)
        target[:, 3:9, 3:9] = 1
        exact, shifted = (target - 0.5) * 20, (target.roll(2, 1) - 0.5) * 20
        loss = loss_by_name("boundary")
        assert loss(exact, target) < loss(shifted, target)

    def test_weighted_balances_foreground_and_background(self):
        target = torch.zeros(1, 10, 10)
        target[:, 0, :5] = 1
        got = float(loss_by_name("weighted")(torch.zeros_like(target), target))
        assert got == pytest.approx(math.log(2), rel=0.02)

    def test_sum(self):
        logits, target = torch.randn(2, 5, 5), (torch.rand(2, 5, 5) > 0.5).float()
        parts = loss_by_name("dice")(logits, target) + 3 * loss_by_name("cross_entropy")(
            logits, target
        )
        assert torch.allclose(loss_by_name("dice+3*cross_entropy")(logits, target), parts)


@pytest.mark.parametrize("name", ["", "nice", "dice+", "x*dice", "-1*dice", "0*dice", "nan*dice"])
def test_unknown_names_list_the_known(name):
    with pytest.raises(FormatError, match=r"boundary"):
        loss_by_name(name)
