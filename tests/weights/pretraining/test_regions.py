import numpy as np

from pretraining.episodes import Case
from pretraining.regions import (
    LARGEST,
    SMALLEST,
    box_overlap,
    contradicts,
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


class TestContradiction:
    """A region may not ask for another answer to a box than the labels give."""

    identity = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    disc = np.hypot(*(np.mgrid[:64, :64] - 31.5)) < 20
    ring = disc & (np.hypot(*(np.mgrid[:64, :64] - 31.5)) > 12)

    def test_a_disc_in_place_of_a_labelled_ring(self):
        assert contradicts(self.disc, self.ring.astype(np.uint8) * 2, self.identity)

    def test_what_lies_elsewhere_or_is_much_larger_does_not(self):
        labels = self.ring.astype(np.uint8)
        small = np.zeros_like(self.disc)
        small[28:36, 28:36] = True
        assert not contradicts(small, labels, self.identity)
        assert not contradicts(self.disc, np.zeros_like(labels), self.identity)

    def test_seen_through_the_crop(self):
        labels = np.zeros((128, 128), np.uint8)
        labels[64:, 64:] = self.ring
        moved = np.array([[1, 0, 64], [0, 1, 64]], np.float32)
        assert contradicts(self.disc, labels, moved)
        assert not contradicts(self.disc, labels, self.identity)

    def test_overlap_of_boxes(self):
        box = np.array([0, 0, 10, 10], np.float32)
        assert box_overlap(box, box) == 1
        assert np.isclose(box_overlap(box, box + 5), 25 / 175)
        assert box_overlap(box, box + 20) == 0
