import math

import pytest
import torch

from promptseg.finetune.objectives.base import Batch
from promptseg.finetune.objectives.terms import (
    STEEPNESS,
    entropy,
    hard_labels,
    inside_probability,
    mean_square,
    partial_cross_entropy,
    ramp,
    soft_dice,
)


def logits_of(*chances: list[float]) -> torch.Tensor:
    """(1, C, 1, N) logits whose softmax is `chances` of each of N pixels."""
    return torch.tensor(chances).log().T[None, :, None]


class TestPartialCrossEntropy:
    def test_by_hand(self):
        logits = logits_of([0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4])
        shares = torch.zeros(1, 3, 1, 3)
        shares[0, 0, 0, 0], shares[0, 2, 0, 1] = 1, 1
        expected = -(math.log(0.7) + math.log(0.3)) / 2
        assert float(partial_cross_entropy(logits, shares)) == pytest.approx(expected, rel=1e-5)

    def test_is_the_usual_one_where_all_is_annotated(self):
        logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
        shares = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
        expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        assert torch.allclose(partial_cross_entropy(logits, shares), expected.mean((1, 2)))

    def test_nothing_from_pixels_that_nobody_annotated(self):
        logits = torch.randn(1, 3, 2, 2, requires_grad=True)
        shares = torch.zeros(1, 3, 2, 2)
        shares[0, 1, 0, 0] = 1
        partial_cross_entropy(logits, shares).sum().backward()
        assert logits.grad is not None
        assert logits.grad[..., 0, 0].any()
        logits.grad[..., 0, 0] = 0
        assert not logits.grad.any()

    def test_nothing_from_a_sample_without_annotation(self):
        logits = torch.randn(1, 3, 2, 2, requires_grad=True)
        loss = partial_cross_entropy(logits, torch.zeros(1, 3, 2, 2)).sum()
        loss.backward()
        assert float(loss) == 0
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_shares_of_a_pixel(self):
        """A pixel that is half annotated counts half."""
        logits = logits_of([0.5, 0.5], [0.9, 0.1])
        shares = torch.tensor([[[[0.5, 1.0]], [[0.0, 0.0]]]])
        expected = -(0.5 * math.log(0.5) + math.log(0.9)) / 1.5
        assert float(partial_cross_entropy(logits, shares)) == pytest.approx(expected, rel=1e-5)


class TestShares:
    def test_ignored_elements_are_in_no_class(self):
        masks = torch.tensor([[[[1.0, 0, 0, 0]]]])
        known = torch.tensor([[[1.0, 1, 0, 0.25]]])
        batch = Batch(torch.zeros(1, 1, 1, 4), masks, known, torch.tensor([True]))
        assert batch.shares[0, :, 0].tolist() == [[0, 1, 0, 0.25], [1, 0, 0, 0]]

    def test_unlabelled_samples_are_in_no_class(self):
        masks = torch.zeros(2, 1, 1, 2)
        batch = Batch(torch.zeros(2, 1, 1, 2), masks, None, torch.tensor([True, False]))
        assert batch.shares.sum((1, 2, 3)).tolist() == [2, 0]


class TestOtherTerms:
    def test_dice_by_hand(self):
        """Overlap 0.8 of 1.2 + 1 in the first class, 0.6 of 0.8 + 1 in the second, each with 1."""
        probabilities = torch.tensor([[[[0.8, 0.4]], [[0.2, 0.6]]]])
        shares = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
        expected = ((1 - 2.6 / 3.2) + (1 - 2.2 / 2.8)) / 2
        assert float(soft_dice(probabilities, shares)) == pytest.approx(expected, rel=1e-5)

    def test_entropy_runs_from_0_to_1(self):
        probabilities = torch.tensor([[[1.0, 0.25, 0.5]], [[0.0, 0.25, 0.5]],
                                      [[0.0, 0.25, 0.0]], [[0.0, 0.25, 0.0]]])  # fmt: skip
        found = entropy(probabilities[None])[0, 0]
        assert found.tolist() == pytest.approx([0, 1, 0.5], abs=1e-5)

    def test_mean_square(self):
        one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]])
        assert float(mean_square(one, other)) == pytest.approx(0.625)

    def test_hard_labels_have_no_gradient(self):
        probabilities = torch.rand(1, 3, 2, 2, requires_grad=True)
        labels = hard_labels(probabilities)
        assert not labels.requires_grad
        assert torch.equal(labels.sum(1), torch.ones(1, 2, 2))
        assert torch.equal(labels.argmax(1), probabilities.argmax(1))


class TestRamp:
    def test_ends(self):
        assert ramp(0.0) == pytest.approx(math.exp(-5))
        assert ramp(1.0) == 1
        assert ramp(0.5) == pytest.approx(math.exp(-1.25))

    def test_stays_at_its_ends_beyond_them(self):
        assert ramp(1.5) == 1
        assert ramp(-1.0) == ramp(0.0)


class TestInsideProbability:
    def test_sign(self):
        found = inside_probability(torch.tensor([-0.1, -0.01, 0.0, 0.01, 0.1]))
        assert found.tolist() == pytest.approx([1, 1, 0.5, 0, 0], abs=1e-6)

    def test_gradient_of_equation_5_3(self):
        """-k T (1 - T): more inside means more negative."""
        z = torch.tensor([0.0, 0.0005], requires_grad=True)
        chance = inside_probability(z)
        chance.sum().backward()
        assert z.grad is not None
        expected = -STEEPNESS * chance.detach() * (1 - chance.detach())
        assert torch.allclose(z.grad, expected)
        assert float(z.grad[0]) == pytest.approx(-375)
