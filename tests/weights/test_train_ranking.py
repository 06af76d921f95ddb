"""Training the ranking of a click's masks, on clicks that were made up."""

import numpy as np
import pytest

from train_ranking import Clicked, across_sets, by_set, fitted, packed, picked_by, told


def clicks(count=240, sets=6, seed=0):
    """Clicks of which the mask with the greatest third feature is the best, and quality lies."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        features = rng.normal(size=(3 + n % 4, 5)).astype(np.float32)
        dice = 1 / (1 + np.exp(-2 * features[:, 2]))
        rows.append(Clicked(f"set{n % sets}", features, dice.astype(np.float32), -dice))
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
        rows = [Clicked(name, np.zeros((1, 5), np.float32), np.ones(1), np.ones(1))
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
