import numpy as np
import pytest
from scipy import ndimage

from pretraining.episodes import vessel_episode
from pretraining.vessels import vessel_tree, with_vessels
from promptseg.datasets.simulation import users

SIZE = 128


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def drawn():
    ground = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    return [(ground, *with_vessels(ground, rng(seed))) for seed in range(30)]


class TestTree:
    def test_it_is_a_share_of_each_pixel(self):
        share = vessel_tree(SIZE, rng())
        assert share.shape == (SIZE, SIZE)
        assert share.min() == 0
        assert 0 < share.max() <= 1
        assert ((share > 0) & (share < 1)).any()

    def test_it_is_thin_and_long(self):
        slender = [users.is_slender(vessel_tree(SIZE, rng(seed)) > 0.5) for seed in range(30)]
        assert np.mean(slender) > 0.8

    def test_one_seed_gives_one_tree(self):
        assert np.array_equal(vessel_tree(SIZE, rng(4)), vessel_tree(SIZE, rng(4)))
        assert not np.array_equal(vessel_tree(SIZE, rng(4)), vessel_tree(SIZE, rng(5)))


class TestWithVessels:
    def test_shapes_and_ranges(self, drawn):
        for _, image, shares in drawn:
            assert image.shape == shares.shape == (SIZE, SIZE, 3)
            assert image.dtype == shares.dtype == np.float32
            assert 0 <= image.min() <= image.max() <= 1

    def test_they_can_be_seen_and_the_rest_stays(self, drawn):
        for before, image, shares in drawn:
            filled = shares[..., 1] > 0.9
            if filled.any():
                assert np.abs(image - before)[..., 1][filled].mean() > 0.02
            far = ~ndimage.binary_dilation(shares[..., 1] > 0, iterations=5)
            np.testing.assert_allclose(image[..., 1][far], before[..., 1][far], atol=1e-4)


def test_an_episode_asks_for_the_tree():
    ground = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    episodes = [vessel_episode(ground, 2, rng(seed)) for seed in range(20)]
    made = [e for e in episodes if e is not None]
    assert len(made) > 10
    assert all(len(e.prompts) == 2 and (e.target > 0.5).sum() >= 12 for e in made)
    assert any(p.scribbles is not None for e in made for p in e.prompts)
