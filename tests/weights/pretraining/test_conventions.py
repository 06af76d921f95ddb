import numpy as np
import pytest

from pretraining.conventions import (
    cut,
    opened,
    random_convention,
    shifted,
    signed_depth,
)

SIZE = 96
ROWS, COLUMNS = np.indices((SIZE, SIZE))


def disc(radius, row=48, column=48):
    return (((ROWS - row) ** 2 + (COLUMNS - column) ** 2) <= radius**2).astype(np.float32)


def radius_of(shares):
    return np.sqrt(shares.sum() / np.pi)


class TestShifted:
    @pytest.mark.parametrize("shift", [-6.0, -1.5, 0.0, 2.0, 7.0])
    def test_moves_the_outline_by_so_many_pixels(self, shift):
        assert radius_of(shifted(shift)(disc(20))) == pytest.approx(20 + shift, abs=0.4)

    def test_depth_is_positive_inside_alone(self):
        depth = signed_depth(disc(20))
        np.testing.assert_array_equal(depth > 0, disc(20) > 0.5)
        assert depth.max() == pytest.approx(20, abs=1)

    def test_an_empty_neighbour_stays_empty(self):
        empty = np.zeros((SIZE, SIZE), np.float32)
        assert shifted(3.0)(empty).sum() == 0


class TestOpened:
    def test_a_vein_goes_and_the_chamber_stays(self):
        vein = ((abs(ROWS - 48) <= 3) & (COLUMNS > 48)).astype(np.float32)
        both = np.maximum(disc(20), vein)
        kept = opened(6.0)(both)
        assert kept[48, 80] == 0
        assert (kept * disc(18)).sum() > 0.98 * disc(18).sum()

    def test_what_is_thin_everywhere_stays(self):
        thin = (abs(ROWS - 48) <= 2).astype(np.float32)
        np.testing.assert_array_equal(opened(6.0)(thin), thin)

    def test_never_adds(self):
        blob = np.maximum(disc(14), disc(9, 60, 66))
        assert (opened(5.0)(blob) <= blob + 1e-6).all()


class TestCut:
    @pytest.mark.parametrize("angle", [0.0, 1.0, 4.0])
    @pytest.mark.parametrize("share", [0.1, 0.4])
    def test_loses_its_share_on_one_side(self, share, angle):
        whole = disc(25)
        kept = cut(whole, share, angle)(whole)
        assert kept.sum() == pytest.approx((1 - share) * whole.sum(), rel=0.03)
        lost = whole - kept
        direction = np.array([np.sin(angle), np.cos(angle)])
        middle = np.array([(lost * a).sum() / lost.sum() - 48 for a in (ROWS, COLUMNS)])
        assert middle @ direction / np.linalg.norm(middle) > 0.99

    def test_the_neighbour_is_cut_by_the_same_line(self):
        redraw = cut(disc(25), 0.3, 0.0)
        wide = redraw(disc(30))
        edges = [np.flatnonzero(part[48] > 0.5)[-1] for part in (redraw(disc(25)), wide)]
        assert edges[0] == edges[1]


class TestRandomConvention:
    def test_seed_decides(self):
        one, same, other = (
            random_convention(disc(20), np.random.default_rng(seed))(disc(20)) for seed in (1, 1, 5)
        )
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)

    def test_goes_both_ways_and_leaves_something(self):
        sizes = []
        for seed in range(60):
            redrawn = random_convention(disc(20), np.random.default_rng(seed))(disc(20))
            assert redrawn.dtype == np.float32
            assert 0 <= redrawn.min() <= redrawn.max() <= 1
            sizes.append(redrawn.sum() / disc(20).sum())
        assert min(sizes) > 0.4
        assert max(sizes) < 1.75
        assert 0.15 < np.mean(np.array(sizes) > 1.05) < 0.6
        assert 0.2 < np.mean(np.array(sizes) < 0.95) < 0.8
