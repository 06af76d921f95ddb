import numpy as np
import pytest

from pretraining.synthetic import (
    displaced,
    octaves,
    paint,
    shape_labels,
    smooth_noise,
    synthetic_slices,
    voronoi_labels,
)

SIZE = 64


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def tasks():
    return [synthetic_slices(SIZE, rng(seed)) for seed in range(40)]


class TestTasks:
    def test_shapes_and_ranges(self, tasks):
        for image, labels in tasks:
            assert image.shape == labels.shape == (SIZE, SIZE, 3)
            assert labels.dtype == np.uint8
            assert 0 <= image.min() <= image.max() <= 1
            assert np.ptp(image) > 0.9

    def test_have_something_to_segment(self, tasks):
        counts = [len(np.unique(labels[..., 1])) for _, labels in tasks]
        assert min(counts) >= 2
        assert np.mean(counts) > 4

    def test_labels_can_be_told_apart_by_grey_value(self, tasks):
        gaps = []
        for image, labels in tasks:
            means = [
                image[..., 1][labels[..., 1] == label].mean()
                for label in np.unique(labels[..., 1])
                if (labels[..., 1] == label).sum() > 30
            ]
            gaps.append(np.ptp(means))
        assert np.median(gaps) > 0.3

    def test_neighbouring_slices_are_alike_and_not_the_same(self, tasks):
        agreement = [(labels[..., 0] == labels[..., 1]).mean() for _, labels in tasks]
        assert min(agreement) > 0.6
        assert np.mean(agreement) < 0.999

    def test_seed_decides_everything(self):
        for one, other in zip(synthetic_slices(SIZE, rng(3)), synthetic_slices(SIZE, rng(3)),
                              strict=True):  # fmt: skip
            np.testing.assert_array_equal(one, other)
        assert not np.array_equal(
            synthetic_slices(SIZE, rng(3))[0], synthetic_slices(SIZE, rng(4))[0]
        )

    @pytest.mark.parametrize("size", [32, 96])
    def test_other_sizes(self, size):
        image, labels = synthetic_slices(size, rng(1))
        assert image.shape == labels.shape == (size, size, 3)


class TestParts:
    def test_noise_is_smooth_and_of_unit_size(self):
        noise = smooth_noise(SIZE, 8, rng())
        assert noise.shape == (SIZE, SIZE)
        assert smooth_noise(SIZE, 8, rng(), 3).shape == (SIZE, SIZE, 3)
        assert 0.5 < noise.std() < 1.2
        assert np.abs(np.diff(noise, axis=0)).mean() < 0.3 * noise.std()

    def test_octaves_have_detail_of_several_sizes(self):
        rough = octaves(SIZE, rng())
        assert rough.shape == (SIZE, SIZE)
        assert np.abs(np.diff(rough)).mean() > np.abs(np.diff(smooth_noise(SIZE, 3, rng()))).mean()

    def test_no_displacement_moves_nothing(self):
        labels = shape_labels(SIZE, rng())
        np.testing.assert_array_equal(displaced(labels, rng(), 0.0), labels)
        moved = displaced(labels, rng(), 4.0)
        assert set(np.unique(moved)) <= set(np.unique(labels)) | {0}
        assert (moved != labels).any()

    def test_voronoi_fills_the_plane(self):
        labels = voronoi_labels(SIZE, rng())
        assert 2 <= len(np.unique(labels)) <= 8

    def test_painting_gives_each_label_its_level(self):
        labels = np.zeros((SIZE, SIZE), np.uint8)
        labels[:, 32:] = 7
        levels = np.linspace(0, 1, 256).astype(np.float32)
        image = paint(labels, levels, np.zeros((SIZE, SIZE), np.float32), rng())
        assert image[:, :24].mean() == pytest.approx(levels[0], abs=1e-3)
        assert image[:, 40:].mean() == pytest.approx(levels[7], abs=1e-3)
        assert image.dtype == np.float32
