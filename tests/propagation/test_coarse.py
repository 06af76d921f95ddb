import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from promptseg.errors import PromptError, WeightsError
from promptseg.propagation.coarse import (
    CoarseAnswer,
    CoarseView,
    Cube,
    Told,
    cut_off,
    first_cube,
    hints_in,
    load_coarse,
    save_coarse,
)
from promptseg.propagation.coarse_inputs import CHANNELS, PROMPTED
from promptseg.propagation.coarse_network import CoarseNetwork

SHAPE, SPACING = (60, 50, 30), (1.0, 1.0, 2.0)


def ball(radius=9.0, centre=(30, 25, 15)):
    grid = np.indices(SHAPE, float)
    sides = [(grid[a] - centre[a]) * SPACING[a] for a in range(3)]
    return sum(s**2 for s in sides) < radius**2


def told(mask, index=15):
    return Told(2, {index: mask[:, :, index]}, ((21, 16, index), (40, 35, index + 1)))


class Bright(torch.nn.Module):
    """Marks what is bright."""

    def forward(self, x):
        return (x[:, 0] - 0.5) * 20, torch.zeros(len(x))


class TestCube:
    @pytest.mark.parametrize("length", [30.0, 70.0, 300.0])
    def test_what_is_sampled_is_pasted_back(self, length):
        cube = Cube((30.0, 25.0, 15.0), length, SPACING)
        region, back = cube.paste(cube.sample(ball().astype(float), 0.0), SHAPE)
        found = np.zeros(SHAPE, bool)
        found[region] = back > 0.5
        inside = np.zeros(SHAPE, bool)
        inside[region] = True
        a, b = found & inside, ball() & inside
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > (0.95 if length < 100 else 0.7)

    def test_a_slice_fills_the_elements_in_its_thickness(self):
        cube = Cube((30.0, 25.0, 15.0), 48.0, SPACING)
        assert cube.planes(2, 15) == slice(24, 26)
        assert cube.planes(2, 14) == slice(22, 24)

    def test_a_slice_thinner_than_an_element_has_one(self):
        cube = Cube((30.0, 25.0, 15.0), 480.0, SPACING)
        planes = cube.planes(2, 15)
        assert planes.stop - planes.start == 1


class TestHints:
    def test_the_mask_lies_on_its_slice(self):
        image = ball().astype(np.float32)
        hints = hints_in(image, told(ball()), first_cube(told(ball()), SPACING, SHAPE))
        shown = hints.trust >= PROMPTED
        assert shown.any((0, 1)).sum() in (1, 2, 3)
        a, b = (hints.logits > 0)[shown], (hints.image > 0.5)[shown]
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9
        assert hints.box[shown].any()

    def test_clicks_are_where_they_are(self):
        known = Told(2, {15: ball()[:, :, 15]}, positive=np.array([[30, 25, 15]]))
        cube = first_cube(known, SPACING, SHAPE)
        seeds = hints_in(ball().astype(np.float32), known, cube).positive
        np.testing.assert_allclose(np.argwhere(seeds)[0], [24, 24, 24], atol=1)

    def test_without_a_mask_it_says_so(self):
        with pytest.raises(PromptError, match="no prompted slice"):
            first_cube(Told(2, {3: np.zeros((60, 50), bool)}), SPACING, SHAPE)


class TestAnswer:
    def test_a_target_that_fits_is_found_in_one_look(self):
        found = CoarseView(Bright()).answer(ball().astype(np.float32), SPACING, told(ball()))
        mask = found.mask(SHAPE)
        assert 2 * (mask & ball()).sum() / (mask.sum() + ball().sum()) > 0.93
        assert found.cube.length == pytest.approx(2.2 * 17)

    def test_a_long_target_is_followed_by_looking_from_farther(self):
        rod = np.zeros(SHAPE, bool)
        rod[27:33, 22:28] = True
        known = Told(2, {15: rod[:, :, 15]})
        found = CoarseView(Bright()).answer(rod.astype(np.float32), SPACING, known)
        reached = np.flatnonzero(found.mask(SHAPE).any((0, 1)))
        assert reached[0] <= 1
        assert reached[-1] >= 28

    def test_the_end_of_the_volume_is_no_cut(self):
        cube = Cube((30.0, 25.0, 15.0), 200.0, SPACING)
        everything = CoarseAnswer(cube, np.ones((48, 48, 48), np.float32), 1.0)
        assert not cut_off(everything, SHAPE)


class TestFiles:
    def test_survives_writing(self, tmp_path):
        torch.manual_seed(0)
        network = CoarseNetwork(CHANNELS, (8, 16), groups=4)
        save_coarse(network, tmp_path / "c.safetensors", {"steps": "3"})
        again = load_coarse(tmp_path / "c.safetensors")
        x = torch.randn(1, CHANNELS, 8, 8, 8)
        with torch.inference_mode():
            ours, theirs = network.eval()(x)[0], again.network(x)[0]
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)

    def test_another_file_is_refused_by_name(self, tmp_path):
        save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
        with pytest.raises(WeightsError, match="promptseg-coarse"):
            load_coarse(tmp_path / "x.safetensors")
        with pytest.raises(WeightsError, match="no whole"):
            load_coarse(tmp_path / "missing.safetensors")
