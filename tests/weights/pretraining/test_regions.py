import numpy as np

from pretraining.episodes import Case
from pretraining.regions import (
    LARGEST,
    SMALLEST,
    merged_region,
    oversegment,
    region_episode,
)


def quarters(size=64):
    image = np.zeros((size, size), np.float32)
    image[: size // 2, : size // 2], image[size // 2 :, : size // 2] = 0.9, 0.6
    image[: size // 2, size // 2 :] = 0.3
    return image


class TestOversegment:
    def test_regions_follow_edges(self):
        for seed in range(6):
            regions = oversegment(quarters(), np.random.default_rng(seed))
            inner = [regions[16, 16], regions[16, 48], regions[48, 16], regions[48, 48]]
            assert len(set(inner)) >= 3


class TestMergedRegion:
    def test_within_its_bounds_and_connected_to_its_seed(self):
        regions = np.arange(64 * 64).reshape(64, 64) // 256
        for seed in range(20):
            found = merged_region(regions, np.random.default_rng(seed))
            if found is not None:
                assert SMALLEST <= found.mean() <= LARGEST


class TestRegionEpisode:
    def test_an_unlabelled_image_makes_a_task(self):
        image = np.repeat((quarters(96) * 255).astype(np.uint8)[..., None], 3, 2)
        case = Case("plain", "plain", image, np.zeros(image.shape, np.uint8))
        made = [region_episode(case, 64, 2, np.random.default_rng(n)) for n in range(12)]
        usable = [one for one in made if one is not None]
        assert usable
        assert all((one.target > 0.5).any() and len(one.prompts) == 2 for one in usable)
