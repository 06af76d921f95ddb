import numpy as np
import pytest
import torch

from promptseg.finetune.losses import (
    candidate_loss,
    cross_entropy,
    intersection_over_union,
    soft_dice_loss,
)


def square(low=8, high=24, size=32):
    target = torch.zeros(size, size)
    target[low:high, low:high] = 1
    return target


def sure(target, strength=20.0):
    return (target * 2 - 1) * strength


def flat(count, candidates, level=0.0, size=32):
    return torch.full((count, candidates, size, size), float(level))


class TestParts:
    def test_dice_of_right_wrong_and_half(self):
        target = square()
        assert float(soft_dice_loss(sure(target), target)) == pytest.approx(0, abs=1e-3)
        assert float(soft_dice_loss(sure(1 - target), target)) == pytest.approx(1, abs=5e-3)
        half = float(soft_dice_loss(torch.zeros(32, 32), target))
        inside, everything = 256.0, 1024.0
        assert half == pytest.approx(1 - (inside + 1) / (everything / 2 + inside + 1))

    def test_dice_of_two_empty_masks_is_no_loss(self):
        empty = torch.zeros(32, 32)
        assert float(soft_dice_loss(sure(empty), empty)) == pytest.approx(0, abs=1e-3)

    def test_cross_entropy_is_log_two_when_undecided(self):
        assert float(cross_entropy(torch.zeros(8, 8), square(2, 4, 8))) == pytest.approx(np.log(2))

    def test_rows_do_not_mix(self):
        logits, target = torch.randn(3, 4, 16, 16), (torch.rand(3, 4, 16, 16) > 0.5).float()
        for loss in (soft_dice_loss, cross_entropy, intersection_over_union):
            found = loss(logits, target)
            assert found.shape == (3, 4)
            torch.testing.assert_close(found[1, 2], loss(logits[1, 2], target[1, 2]))

    def test_jaccard(self):
        one, other = square(0, 16), square(8, 24)
        found = intersection_over_union(sure(one), other)
        assert float(found) == pytest.approx(64 / (256 + 256 - 64))
        empty = torch.zeros(32, 32)
        assert float(intersection_over_union(sure(empty), empty)) == 1
        assert float(intersection_over_union(sure(one), empty)) == 0


class TestCandidates:
    def loss(self, logits, target, quality=None, presence=None, ambiguous=False):
        count, candidates = logits.shape[:2]
        quality = torch.zeros(count, candidates) if quality is None else quality
        presence = torch.zeros(count) if presence is None else presence
        return candidate_loss(
            logits, quality, presence, target, torch.full((count,), bool(ambiguous))
        )

    def test_a_right_answer_costs_least(self):
        target = square()[None]
        right = sure(target)[:, None].expand(1, 4, 32, 32)
        costs = [float(self.loss(logits, target)[0]) for logits in (right, flat(1, 4), -right)]
        assert costs == sorted(costs)

    def test_first_mask_always_learns(self):
        target = square()[None]
        logits = flat(1, 4).requires_grad_()
        for ambiguous in (False, True):
            (gradient,) = torch.autograd.grad(
                self.loss(logits, target, ambiguous=ambiguous)[0], logits
            )
            assert gradient[0, 0].abs().sum() > 0

    def test_of_the_others_the_best_learns_from_a_single_click(self):
        target = square()[None]
        logits = flat(1, 4)
        logits[0, 2] = sure(target[0], 0.5)
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(logits, target, ambiguous=True)[0], logits)
        assert gradient[0, 2].abs().sum() > 0
        assert gradient[0, [1, 3]].abs().sum() == 0

    def test_of_the_others_all_learn_a_little_otherwise(self):
        target = square()[None]
        logits = flat(1, 4).requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss(logits, target)[0], logits)
        strengths = gradient.abs().sum((0, 2, 3))
        assert torch.all(strengths[1:] > 0)
        assert strengths[1] < 0.2 * strengths[0]

    def test_quality_learns_the_measured_overlap(self):
        target = square()[None]
        logits = sure(torch.stack([square(), square(0, 16), 1 - square(), square()]))[None]
        measured = intersection_over_union(logits, target[:, None].expand_as(logits))
        exact = torch.logit(measured.clamp(1e-6, 1 - 1e-6))
        right = self.loss(logits, target, quality=exact)[1]["scoring"]
        wrong = self.loss(logits, target, quality=-exact)[1]["scoring"]
        assert float(right) == pytest.approx(0, abs=1e-6)
        assert float(wrong) > 0.3

    def test_quality_does_not_push_the_mask(self):
        logits = torch.randn(1, 4, 32, 32, requires_grad=True)
        scoring = self.loss(logits, square()[None])[1]["scoring"]
        assert not scoring.requires_grad

    def test_presence_learns_whether_there_is_a_target(self):
        target = torch.stack([square(), torch.zeros(32, 32)])
        right = self.loss(flat(2, 4), target, presence=torch.tensor([9.0, -9.0]))[1]["presence"]
        wrong = self.loss(flat(2, 4), target, presence=torch.tensor([-9.0, 9.0]))[1]["presence"]
        assert float(right) < 0.01
        assert float(wrong) > 5

    def test_a_network_can_learn_from_it(self):
        torch.manual_seed(0)
        target = square()[None]
        logits = torch.randn(1, 4, 32, 32, requires_grad=True)
        heads = torch.zeros(5, requires_grad=True)
        optimiser = torch.optim.Adam([logits, heads], 0.3)
        for _ in range(40):
            optimiser.zero_grad()
            loss, parts = self.loss(logits, target, heads[None, :4], heads[4:])
            loss.backward()
            optimiser.step()
        assert float(parts["iou"]) > 0.98
        learnt = heads.detach()
        assert float(learnt.sigmoid()[0]) > 0.9
        assert float(learnt[4]) > 1
