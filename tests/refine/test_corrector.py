"""The learned 3D corrector: its view, its inputs, its network, its file, its place in a session."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import bright_volume, discs, segmenter
from torch.nn import functional

from promptseg.errors import PromptError, WeightsError
from promptseg.prompts.types import Box, Point
from promptseg.refine.corrector import UNASKED, Corrector, load_corrector, save_corrector
from promptseg.refine.corrector_inputs import (
    LOGIT_LIMIT,
    ClickDistances,
    choose_patch,
    corrector_inputs,
    logits_of,
    signed_distance,
)
from promptseg.refine.corrector_network import (
    INPUTS,
    ClickCorrector,
    Convolution,
    from_cells,
    to_cells,
)

NOWHERE = np.zeros((0, 3), np.int64)
SMALL = (8, 16)


def ball(shape, centre, radius):
    grid = np.indices(shape) - np.array(centre).reshape(3, 1, 1, 1)
    return np.sqrt((grid**2).sum(0)) < radius


def network(seed=0, spread=0.3):
    """A small one whose head is not zero."""
    torch.manual_seed(seed)
    made = ClickCorrector(SMALL, 4)
    torch.nn.init.normal_(made.head.weight, std=spread)
    return made.eval()


class Adds(torch.nn.Module):
    """Adds the same to every logit, and counts how often it was asked."""

    multiple = 4

    def __init__(self, amount):
        super().__init__()
        self.amount = torch.nn.Parameter(torch.tensor(float(amount)))
        self.asked = 0

    def forward(self, x):
        self.asked += 1
        return (self.amount * 1).expand(x.shape[0], *x.shape[2:])


class TestPatch:
    def test_holds_mask_and_clicks_with_a_margin(self):
        found = np.zeros((50, 60, 30), bool)
        found[20:30, 20:40, 10:20] = True
        patch = choose_patch(found, np.array([[20, 50, 12]]), (1, 1, 1), 8)
        assert all(s.start <= a and s.stop >= b for s, a, b in
                   zip(patch.region, (16, 16, 6), (34, 54, 24), strict=True))  # fmt: skip
        assert all(side % 8 == 0 for side in patch.outer)

    def test_is_isotropic_in_millimetres_and_no_longer_than_asked(self):
        found = np.ones((100, 100, 10), bool)
        patch = choose_patch(found, NOWHERE, (1, 1, 10), 8, long_side=40)
        assert patch.inner == (40, 40, 40)

    def test_is_never_finer_than_the_volume(self):
        patch = choose_patch(np.ones((10, 12, 9), bool), NOWHERE, (1, 1, 1), 8)
        assert patch.inner == (10, 12, 9)
        assert patch.outer == (16, 16, 16)

    def test_view_and_restore_of_a_smooth_field_agree(self):
        grid = np.indices((40, 44, 12), np.float32)
        field = np.sin(grid[0] / 12) + grid[1] / 30 + grid[2] / 10
        patch = choose_patch(np.ones(field.shape, bool), NOWHERE, (1, 1, 3), 4, long_side=40)
        np.testing.assert_allclose(patch.restore(patch.view(field)), field, atol=0.1)

    def test_clicks_land_on_their_element_and_those_outside_are_left_out(self):
        found = np.zeros((40, 40, 40), bool)
        found[20:30, 20:30, 20:30] = True
        patch = choose_patch(found, NOWHERE, (1, 1, 1), 4)
        low = patch.region[0].start
        seeds = patch.seeds(np.array([[25, 26, 27], [0, 0, 0]]))
        assert np.argwhere(seeds).tolist() == [[25 - low, 26 - low, 27 - low]]

    def test_without_mask_or_click_there_is_no_view(self):
        with pytest.raises(ValueError, match="neither a mask nor a click"):
            choose_patch(np.zeros((4, 4, 4), bool), NOWHERE, (1, 1, 1), 4)


class TestInputs:
    def test_one_more_click_is_the_same_as_both_at_once(self):
        image = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
        first, both = np.zeros(image.shape, bool), np.zeros(image.shape, bool)
        first[2, 3, 4] = both[2, 3, 4] = both[7, 7, 7] = True
        one, two = (
            ClickDistances.of(image, first).and_at(both & ~first),
            ClickDistances.of(image, both),
        )
        np.testing.assert_allclose(one.straight, two.straight)
        np.testing.assert_allclose(one.along, two.along, rtol=1e-5)

    def test_channels_are_finite_and_bounded_without_any_click(self):
        image = np.zeros((8, 8, 8), np.float32)
        nothing = ClickDistances.of(image, np.zeros(image.shape, bool))
        found = corrector_inputs(logits_of(torch.rand(8, 8, 8)), nothing, nothing)
        assert found.shape == (INPUTS, 8, 8, 8)
        assert found.abs().max() <= 4
        assert found[3:].abs().max() < 1e-30

    def test_a_click_on_the_target_and_one_beside_it_fill_different_channels(self):
        image = np.zeros((8, 8, 8), np.float32)
        seeds = np.zeros(image.shape, bool)
        seeds[4, 4, 4] = True
        here, nothing = ClickDistances.of(image, seeds), ClickDistances.of(image, ~seeds & False)
        logits = torch.zeros(8, 8, 8)
        inside = corrector_inputs(logits, here, nothing)
        outside = corrector_inputs(logits, nothing, here)
        torch.testing.assert_close(inside[[3, 4, 7]], outside[[5, 6, 8]])
        torch.testing.assert_close(inside[9], -outside[9])

    def test_signed_distance(self):
        line = np.zeros((1, 1, 7), bool)
        line[0, 0, 2:5] = True
        np.testing.assert_allclose(signed_distance(line)[0, 0], [-2, -1, 1, 2, 1, -1, -2])

    def test_logits_are_bounded(self):
        torch.testing.assert_close(
            logits_of(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0.0, 1.0]) * LOGIT_LIMIT
        )


class TestNetwork:
    def test_cells_there_and_back(self):
        volume = torch.randn(2, 1, 4, 6, 8)
        torch.testing.assert_close(from_cells(to_cells(volume)), volume[:, 0], rtol=0, atol=0)

    def test_an_untrained_network_changes_nothing(self):
        made = ClickCorrector(SMALL, 4)
        assert not made(torch.randn(1, INPUTS, 8, 8, 12)).any()

    def test_a_batch_equals_one_by_one(self):
        x = torch.randn(3, INPUTS, 8, 12, 8)
        together = network()(x)
        for number in range(3):
            torch.testing.assert_close(together[number], network()(x[number : number + 1])[0])

    @pytest.mark.parametrize("shape", [(2, 3, 5), (1, 1, 1), (4, 2, 3), (6, 6, 6)])
    def test_gradients_in_bfloat16_are_those_of_float32(self, shape):
        torch.manual_seed(0)
        layer = Convolution(16, 16, 3, 1, 1, bias=False)
        x = torch.randn(1, 16, *shape)
        functional.conv3d(x, layer.weight, padding=1).square().mean().backward()
        expected, layer.weight.grad = layer.weight.grad, None
        with torch.autocast("cpu", torch.bfloat16):
            answer = layer(x)
        answer.float().square().mean().backward()
        largest = expected.abs().max()
        torch.testing.assert_close(
            layer.weight.grad / largest, expected / largest, atol=0.05, rtol=0
        )


class TestCorrecting:
    shape = (30, 32, 20)

    def scene(self):
        found = ball(self.shape, (15, 15, 10), 7)
        image = np.random.default_rng(1).random(self.shape).astype(np.float32)
        return np.where(found, 0.9, 0.1).astype(np.float32), image

    def test_without_a_click_nothing_changes(self):
        probability, image = self.scene()
        after = Corrector(network()).corrected(probability, image, [], (1, 1, 1))
        np.testing.assert_array_equal(after, probability)

    def test_far_from_mask_and_clicks_nothing_changes(self):
        probability, image = self.scene()
        probability[ball(self.shape, (2, 2, 2), 2)] = 0.4
        click = [((15, 15, 10), True)]
        after = Corrector(network()).corrected(probability, image, click, (1, 1, 1))
        far = ball(self.shape, (2, 2, 2), 2)
        np.testing.assert_array_equal(after[far], probability[far])
        assert (after != probability).any()

    def test_what_clicks_make_the_network_say_is_added_to_the_logits(self):
        probability, image = self.scene()
        click = [((15, 15, 10), True)]
        after = Corrector(Adds(1.0)).corrected(probability, image, click, (1, 1, 1))
        expected = 1 / (1 + np.exp(-(np.log(9) + 1 - UNASKED)))
        np.testing.assert_allclose(after[15, 15, 10], expected, rtol=1e-4)

    def test_only_clicks_and_no_mask(self):
        probability, image = np.zeros(self.shape, np.float32), self.scene()[1]
        click = [((15, 15, 10), True)]
        after = Corrector(network()).corrected(probability, image, click, (1, 1, 1))
        assert np.isfinite(after).all()

    def test_the_same_clicks_give_the_same(self):
        probability, image = self.scene()
        clicks = [((15, 15, 10), True), ((25, 15, 10), False)]
        one, two = (Corrector(network()).corrected(probability, image, clicks, (1, 1, 2))
                    for _ in range(2))  # fmt: skip
        np.testing.assert_array_equal(one, two)

    def test_another_shape_is_refused(self):
        probability, image = self.scene()
        with pytest.raises(PromptError, match=r"shape \(30, 32, 19\)"):
            Corrector(network()).corrected(probability, image[..., 1:], NOWHERE, NOWHERE, (1, 1, 1))


class TestFile:
    def test_round_trip(self, tmp_path):
        save_corrector(network(), tmp_path / "c.safetensors", {"steps": "3"})
        read = load_corrector(tmp_path / "c.safetensors")
        x = torch.randn(1, INPUTS, 8, 8, 8)
        torch.testing.assert_close(read.network(x), network()(x), atol=0.02, rtol=0.02)

    def test_no_file_half_a_file_and_another_file_are_refused(self, tmp_path):
        path = tmp_path / "c.safetensors"
        with pytest.raises(WeightsError, match="no whole safetensors file"):
            load_corrector(path)
        save_corrector(network(), path)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(WeightsError, match="no whole safetensors file"):
            load_corrector(path)
        save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
        with pytest.raises(WeightsError, match="no corrector of version 1"):
            load_corrector(path)

    def test_a_file_without_a_tensor_is_refused(self, tmp_path):
        made = network()
        path = tmp_path / "c.safetensors"
        save_corrector(made, path)
        state = {k: v for k, v in made.state_dict().items() if not k.startswith("head")}
        about = {"format": "promptseg-corrector", "version": "1", "config": '{"channels": [8, 16]}'}
        save_file({k: v.contiguous() for k, v in state.items()}, path, about)
        with pytest.raises(WeightsError, match="no whole corrector"):
            load_corrector(path)


class TestInASession:
    shape = (40, 44, 24)
    found = discs(shape, 2, dict.fromkeys(range(4, 20), (12, 20, 5)))
    box = Box((7, 15, 10), (18, 26, 11))

    def refined(self, corrector, mode="graph_cut", noise=0.0):
        owner = segmenter(corrector=corrector)
        volume = bright_volume(self.found)
        grain = np.random.default_rng(0).normal(0, noise, self.shape)
        volume = replace(volume, data=(volume.data + grain).astype(np.float32))
        running = owner.session(volume, window="100,50", consistency="none")
        running.add(self.box)
        running.propagate()
        running.add(Point((12, 20, 12)))
        return running.refine(mode).data, running

    @pytest.mark.parametrize("mode", ["graph_cut", "both"])
    def test_a_click_asks_the_corrector_without_and_with_it(self, mode):
        adds = Adds(0.0)
        self.refined(Corrector(adds), mode)
        assert adds.asked == 2

    def test_the_network_mode_does_not_ask_it(self):
        adds = Adds(0.0)
        self.refined(Corrector(adds), "network")
        assert adds.asked == 0

    def test_a_corrector_that_adds_nothing_gives_the_graph_cut_alone(self):
        np.testing.assert_array_equal(self.refined(Corrector(Adds(0.0)))[0], self.refined(None)[0])

    def test_what_it_says_reaches_the_mask(self):
        one, other = (self.refined(c, noise=8.0)[0] for c in (Corrector(Adds(-12.0)), None))
        assert one.sum() < other.sum()

    def test_undo_is_exact(self):
        _, running = self.refined(Corrector(Adds(-9.0)))
        running.undo()
        np.testing.assert_array_equal(running.propagate().data > 0, self.found)
