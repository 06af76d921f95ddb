import numpy as np
import pytest

from promptseg.finetune import augment as changes
from promptseg.finetune.augment import augment

SIZE = 64
RAMP = np.repeat(np.indices((SIZE, SIZE))[1][..., None] / (SIZE - 1), 3, -1).astype(np.float32)
RAMP = RAMP * 0.6 + 0.2


def rng(seed=0):
    return np.random.default_rng(seed)


class TestChain:
    @pytest.mark.parametrize("invert", [False, True])
    def test_stays_an_image(self, invert):
        for seed in range(40):
            found = augment(RAMP, rng(seed), invert)
            assert found.shape == RAMP.shape
            assert found.dtype == np.float32
            assert np.isfinite(found).all()
            assert 0 <= found.min() <= found.max() <= 1

    def test_leaves_its_input_alone(self):
        before = RAMP.copy()
        for seed in range(20):
            augment(RAMP, rng(seed), True)
        np.testing.assert_array_equal(RAMP, before)

    def test_swaps_black_and_white_only_where_allowed(self):
        def swapped(invert):
            slopes = [
                found[:, -8:].mean() - found[:, :8].mean()
                for found in (augment(RAMP, rng(seed), invert) for seed in range(80))
            ]
            return sum(slope < 0 for slope in slopes)

        assert swapped(False) == 0
        assert 1 <= swapped(True) < 30

    def test_seed_decides_everything(self):
        found = [augment(RAMP, rng(seed), True) for seed in (1, 1, 2, 3, 4)]
        np.testing.assert_array_equal(found[0], found[1])
        assert len({f.tobytes() for f in found}) > 2

    def test_slices_are_changed_alike(self):
        for seed in range(10):
            found = changes.change_contrast(RAMP, rng(seed))
            np.testing.assert_array_equal(found[..., 0], found[..., 2])


class TestParts:
    @pytest.mark.parametrize("part", ["change_contrast", "bias_field", "add_noise"])
    def test_changes_grey_values_and_keeps_the_structure(self, part):
        for seed in range(8):
            found = getattr(changes, part)(RAMP, rng(seed))
            assert found.shape == RAMP.shape
            across = found.mean((0, 2))
            assert np.corrcoef(across, RAMP.mean((0, 2)))[0, 1] > 0.6
        assert not np.array_equal(found, RAMP)

    @pytest.mark.parametrize("part", ["lower_resolution", "blur"])
    def test_removes_detail(self, part):
        noise = rng(9).random((SIZE, SIZE, 3)).astype(np.float32)
        for seed in range(8):
            found = getattr(changes, part)(noise, rng(seed))
            assert found.shape == noise.shape
            assert found.std() <= noise.std() + 1e-6
            assert found.mean() == pytest.approx(noise.mean(), abs=0.02)
