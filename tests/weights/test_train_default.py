"""What the default model learns from, and its optimiser: Muon and AdamW, or AdamW alone."""

import pytest
import torch
from support import tiny_network

from train_default import MADE, MUON_RATIO, Draw, Optimiser


def learned(network, optimiser, steps=2):
    """One value of every parameter after some steps down the sum of squares."""
    optimiser.set_rate(1e-3)
    for _ in range(steps):
        loss = sum(p.square().sum() for p in network.parameters())
        network.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class TestOptimiser:
    @pytest.mark.parametrize("fine", [False, True])
    def test_every_parameter_moves(self, fine):
        network = tiny_network()
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        learned(network, Optimiser(network, 1e-3, fine))
        still = [n for n, p in network.named_parameters() if before[n].any() and p.equal(before[n])]
        assert still == []

    def test_a_fine_step_is_no_longer_than_the_rate(self):
        """One of Muon's is, whatever the gradient."""
        longest = []
        for fine in (False, True):
            network = tiny_network()
            before = torch.cat([p.detach().flatten() for p in network.parameters()])
            after = learned(network, Optimiser(network, 1e-3, fine), steps=1)
            longest.append(float((after - before).abs().max()))
        assert longest[1] < 1.1e-3 < longest[0] < MUON_RATIO * 1e-3

    @pytest.mark.parametrize("fine", [False, True])
    def test_it_goes_on_where_it_was_saved(self, fine):
        whole, first = tiny_network(), tiny_network()
        expected = learned(whole, Optimiser(whole, 1e-3, fine), steps=4)
        optimiser = Optimiser(first, 1e-3, fine)
        learned(first, optimiser)
        second = tiny_network(seed=1)
        second.load_state_dict(first.state_dict())
        again = Optimiser(second, 1e-3, fine)
        again.load_state_dict(optimiser.state_dict())
        torch.testing.assert_close(learned(second, again), expected)


class TestDraw:
    @pytest.mark.parametrize("without", [(), ("regions",), ("synthetic",)])
    def test_tasks_made_without_labels_can_be_left_out(self, without):
        assert set(Draw([], [], 0, without=without).shares) == set(MADE) - set(without)
