"""Training the ranking of masks, on clicks and boxes that were made up."""

import numpy as np
import pytest
from support import BrightRegion, discs, segmenter

from pretraining.named import NamedCase
from promptseg.inference.box_features import FEATURES
from promptseg.inference.ranking_features import FEATURES as CLICK_FEATURES
from train_ranking import (
    Asked,
    across_sets,
    boxed,
    by_set,
    clicked,
    drawn_target,
    fitted,
    gathered,
    packed,
    picked_by,
    told,
)


def clicks(count=240, sets=6, seed=0):
    """Clicks of which the mask with the greatest third feature is the best, and quality lies."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        features = rng.normal(size=(3 + n % 4, 5)).astype(np.float32)
        dice = 1 / (1 + np.exp(-2 * features[:, 2]))
        rows.append(Asked(f"set{n % sets}", features, dice.astype(np.float32), -dice))
    return rows


class TestFit:
    def test_it_learns_what_tells_the_best_mask(self):
        rows = clicks()
        network = fitted(rows, 30, 0)
        apart = clicks(60, seed=1)
        best = np.array([row.dice.max() for row in apart])
        assert picked_by(network, apart).mean() > best.mean() - 0.02

    def test_features_are_scaled_by_the_masks_that_are_there(self):
        rows = clicks(40)
        network = fitted(rows, 1, 0)
        every = np.concatenate([row.features for row in rows])
        np.testing.assert_allclose(network.mean.numpy(), every.mean(0), atol=1e-5)

    def test_the_same_seed_gives_the_same_network(self):
        rows = clicks(40)
        one, other = (picked_by(fitted(rows, 3, 5), rows) for _ in range(2))
        np.testing.assert_array_equal(one, other)


class TestPacked:
    def test_what_is_not_there_is_marked(self):
        features, dice, valid = packed(clicks(4))
        assert features.shape == (4, 6, 5)
        assert valid.sum(1).tolist() == [3, 4, 5, 6]
        assert not dice[~valid].any()


class TestTold:
    def test_sets_count_alike_whatever_their_size(self):
        rows = [Asked(name, np.zeros((1, 5), np.float32), np.ones(1), np.ones(1))
                for name in ("a", "a", "a", "b")]  # fmt: skip
        assert by_set(rows, [1.0, 1.0, 1.0, 0.0]) == pytest.approx(0.5)

    def test_quality_ranking_and_the_best(self):
        rows = clicks(30)
        line = told(rows, np.array([row.dice.max() for row in rows]))
        quality, ranking, best = (float(part.split()[-1]) for part in line.split(", "))
        assert quality < ranking == best

    def test_across_sets_every_click_is_picked_by_a_network_that_has_not_seen_its_set(self):
        line = across_sets(clicks(120), 10)
        quality, ranking, best = (float(part.split()[-1]) for part in line.split(", "))
        assert quality < ranking <= best


class TestGathered:
    """What simulated users mean, on an image whose bright discs are the targets."""

    LABELS = sum(n * discs((96, 96, 5), 2, dict.fromkeys((1, 2, 3), (30 * n, 30 * n, 12)))
                 for n in (1, 2)).astype(np.uint8)  # fmt: skip

    def one(self, make, seed=0):
        case = NamedCase("case", "set", (self.LABELS > 0) * np.float32(100), self.LABELS)
        return make(segmenter(BrightRegion()), case, np.random.default_rng(seed))

    def test_a_box_around_a_disc(self):
        one = self.one(boxed)
        assert one.group == "set"
        assert one.features.shape == (len(one.dice), len(FEATURES))
        assert one.dice[one.trust.argmax()] > 0.9
        assert one.trust.sum() == 1

    def test_boxes_differ_in_their_room(self):
        rooms = [self.one(boxed, seed).features[:, FEATURES.index("most_room")].max()
                 for seed in range(12)]  # fmt: skip
        assert min(rooms) < 0.06 < max(rooms)

    def test_some_are_around_all_slices_of_a_target(self):
        deep = FEATURES.index("deep")
        asked = [self.one(boxed, seed) for seed in range(8)]
        assert {float(one.features[0, deep]) for one in asked} == {0.0, 1.0}

    def test_a_deep_target_is_asked_for_on_its_middle_slice(self):
        labels = np.zeros((96, 96, 5), np.uint8)
        for k in (1, 2, 3):
            labels[20 + 6 * k : 40 + 6 * k, 30:50, k] = 1
        case = NamedCase("case", "set", labels * np.float32(100), labels, axes=(2,))
        target = drawn_target(segmenter(BrightRegion()), case, np.random.default_rng(0), True)
        assert target.index == 1
        np.testing.assert_array_equal(target.truth, labels[:, :, 2] > 0)
        np.testing.assert_array_equal(target.shadow, labels.any(2))

    def test_a_picture_has_no_deep_boxes(self):
        labels = self.LABELS[:, :, 2:3]
        case = NamedCase("case", "set", (labels > 0) * np.float32(100), labels, axes=(2,))
        for seed in range(6):
            one = boxed(segmenter(BrightRegion()), case, np.random.default_rng(seed))
            assert not one.features[:, FEATURES.index("deep")].any()

    def test_a_click_on_a_disc(self):
        one = self.one(clicked)
        assert one.features.shape == (len(one.dice), len(CLICK_FEATURES))
        assert one.dice[one.trust.argmax()] > 0.9

    def test_a_case_without_labels_gives_nothing(self):
        case = NamedCase("case", "set", np.zeros((8, 8, 3), np.float32),
                         np.zeros((8, 8, 3), np.uint8))  # fmt: skip
        assert boxed(segmenter(BrightRegion()), case, np.random.default_rng(0)) is None

    def test_rings_are_boxes_in_hearts_alone(self, tmp_path):
        cases = [
            NamedCase(name, name, (self.LABELS > 0) * np.float32(100), self.LABELS)
            for name in ("acdc", "other")
        ]
        rows = gathered("rings", segmenter(BrightRegion()), cases, 4, 0, tmp_path)
        assert {row.group for row in rows} == {"acdc"}
        again = gathered("rings", segmenter(BrightRegion()), cases, 4, 0, tmp_path)
        np.testing.assert_array_equal(rows[-1].features, again[-1].features)
