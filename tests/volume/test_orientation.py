import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orders import ORDERS, stored

from promptseg.errors import VolumeError
from promptseg.volume import Volume
from promptseg.volume.orientation import Orientation, axis_codes


def rotation(degrees, axis):
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    others = [a for a in range(3) if a != axis]
    turn[np.ix_(others, others)] = [
        [np.cos(angle), -np.sin(angle)],
        [np.sin(angle), np.cos(angle)],
    ]
    return turn


def placed(matrix, shape=(5, 6, 7)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, (-30, 12.5, 7)
    return Volume(np.arange(np.prod(shape)).reshape(shape).astype(np.int16), affine)


STRAIGHT = placed(np.diag([0.8, 1.5, 3.0]))
TILTED = placed(rotation(20, 0) @ rotation(-12, 2) @ np.diag([0.8, 1.5, 3.0]))
HALFWAY = placed(rotation(45, 2) @ np.diag([1.0, 1.0, 2.0]))
EVERY_WAY = placed(rotation(45, 2) @ rotation(45, 0))


class TestTheSameInEveryOrder:
    def test_there_are_48_orders(self):
        assert len(set(ORDERS)) == 48

    @pytest.mark.parametrize("volume", [STRAIGHT, TILTED, HALFWAY, EVERY_WAY])
    def test_values_and_affine(self, volume):
        first = Orientation.of(volume.affine).volume(volume)
        for codes in ORDERS:
            other = stored(volume, codes)
            seen = Orientation.of(other.affine).volume(other)
            np.testing.assert_array_equal(seen.data, first.data)
            np.testing.assert_allclose(seen.affine, first.affine, atol=1e-9)

    @pytest.mark.parametrize("codes", ["RAS", "LPS", "SPR", "AIL"])
    def test_every_orientation_that_an_adapter_may_want(self, codes):
        for order in ORDERS:
            other = stored(TILTED, order)
            seen = Orientation.of(other.affine, codes).volume(other)
            assert "".join(nib.aff2axcodes(seen.affine)) == codes
            np.testing.assert_array_equal(seen.data, stored(TILTED, codes).data)

    def test_noise_of_a_header_does_not_decide(self):
        rng = np.random.default_rng(0)
        for codes in ORDERS:
            other = stored(HALFWAY, codes)
            noisy = other.affine.copy()
            noisy[:3, :3] += rng.normal(0, 1e-7, (3, 3))
            assert Orientation.of(noisy) == Orientation.of(other.affine)


class TestStoredAsSeen:
    def test_is_the_same_object(self):
        orientation = Orientation.of(TILTED.affine)
        assert orientation.plain
        assert orientation.volume(TILTED) is TILTED

    def test_nothing_is_copied(self):
        other = stored(STRAIGHT, "PIR")
        seen = Orientation.of(other.affine).volume(other)
        assert np.shares_memory(seen.data, other.data)


class TestBackAndForth:
    @settings(max_examples=60, deadline=None)
    @given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3), st.integers(0, 2**31))
    def test_values_places_slices_and_edges(self, axes, flips, seed):
        orientation = Orientation(tuple(axes), flips)
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(2, 7, 3).tolist())
        data = rng.integers(0, 99, shape)
        seen = orientation.apply(data)
        np.testing.assert_array_equal(orientation.undo(seen), data)
        at = rng.integers(0, shape)
        there = orientation.places(at, shape)
        assert seen[tuple(there)] == data[tuple(at)]
        np.testing.assert_array_equal(orientation.inverse.places(there, seen.shape), at)
        lo, hi = orientation.places(np.array([at, at + 1]), shape, last=0)
        np.testing.assert_array_equal(np.minimum(lo, hi), there)
        for axis in range(3):
            new = orientation.axis(axis)
            assert orientation.file_axis(new) == axis
            index = orientation.index(axis, int(at[axis]), shape)
            np.testing.assert_array_equal(
                np.sort(np.take(seen, index, new), None),
                np.sort(np.take(data, at[axis], axis), None),
            )

    def test_fractions_stay(self):
        turned = Orientation((2, 0, 1), (False, True, False))
        assert turned.places(np.array([1.25, 2.0, 3.5]), (5, 6, 7)).tolist() == [3.5, 2.75, 2.0]


class TestCodes:
    @pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SPR", "LAS"])
    def test_name_where_the_file_axes_run_to(self, codes):
        assert axis_codes(stored(TILTED, codes).affine) == codes

    @pytest.mark.parametrize("codes", ["RAX", "RLS", "RA", "RASS", "", None, 3])
    def test_others_are_refused(self, codes):
        with pytest.raises(VolumeError, match="orientation is"):
            Orientation.of(np.eye(4), codes)
