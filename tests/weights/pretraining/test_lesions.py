import numpy as np
import pytest

from pretraining.lesions import lesion_fields, with_lesion

SIZE = 64


def rng(seed=0):
    return np.random.default_rng(seed)


def tissue(seed=0):
    return rng(seed).normal(0.5, 0.03, (SIZE, SIZE, 3)).clip(0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def drawn():
    return [(tissue(seed), *with_lesion(tissue(seed), rng(seed))) for seed in range(40)]


class TestWithLesion:
    def test_shapes_and_ranges(self, drawn):
        for _, image, inside in drawn:
            assert image.shape == inside.shape == (SIZE, SIZE, 3)
            assert image.dtype == np.float32
            assert inside.dtype == bool
            assert 0 <= image.min() <= image.max() <= 1

    def test_the_rest_of_the_image_stays(self, drawn):
        for before, image, inside in drawn:
            if not inside.any():
                continue
            rows, columns = np.nonzero(inside.any(-1))
            far = np.ones((SIZE, SIZE), bool)
            reach = 8
            far[
                max(rows.min() - reach, 0) : rows.max() + reach,
                max(columns.min() - reach, 0) : columns.max() + reach,
            ] = False
            np.testing.assert_allclose(image[far], before[far], atol=1e-4)

    def test_it_can_be_seen(self, drawn):
        gaps = [
            abs(image[..., 1][inside[..., 1]].mean() - image[..., 1][~inside[..., 1]].mean())
            for _, image, inside in drawn
            if inside[..., 1].sum() >= 12
        ]
        assert len(gaps) > 30
        assert np.median(gaps) > 0.1

    def test_slices_beside_resemble_it(self, drawn):
        shares = [
            (inside[..., 0] & inside[..., 1]).sum() / inside[..., 0].sum()
            for _, _, inside in drawn
            if inside[..., 0].any()
        ]
        assert np.median(shares) > 0.85

    def test_seed_decides(self):
        one, same, other = (with_lesion(tissue(), rng(seed)) for seed in (3, 3, 4))
        np.testing.assert_array_equal(one[0], same[0])
        assert not np.array_equal(one[0], other[0])


class TestPlace:
    def test_on_what_is_not_black(self):
        image = np.zeros((SIZE, SIZE, 3), np.float32)
        image[:, : SIZE // 2] = 0.5
        for seed in range(20):
            fields = lesion_fields(image, rng(seed))
            assert (fields[:, : SIZE // 2, 1] > 0).any()

    def test_a_black_image_gets_one_too(self):
        image, inside = with_lesion(np.zeros((SIZE, SIZE, 3), np.float32), rng(1))
        assert inside.any()
        assert image.max() > 0.05
