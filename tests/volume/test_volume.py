import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import affines, volumes

from promptseg.errors import PromptError, VolumeError
from promptseg.volume import Segmentation, Volume, anatomical_axes


def make(
    data: np.ndarray | None = None, affine: np.ndarray | None = None, **rest: object
) -> Volume:
    data = np.zeros((4, 5, 6), np.int16) if data is None else data
    return Volume(data, np.eye(4) if affine is None else affine, **rest)


class TestCoordinates:
    @given(volumes(), st.sampled_from(["voxel", "ras", "lps"]))
    def test_there_and_back(self, volume: Volume, frame: str) -> None:
        voxels = np.argwhere(np.ones(volume.shape))
        back = volume.to_voxels(volume.to_world(voxels, frame), frame)
        np.testing.assert_allclose(back, voxels, atol=1e-6)

    @given(volumes())
    def test_ras_is_nibabels_world(self, volume: Volume) -> None:
        voxels = np.argwhere(np.ones(volume.shape))
        expected = nib.affines.apply_affine(volume.affine, voxels)
        np.testing.assert_allclose(volume.to_world(voxels, "ras"), expected, atol=1e-9)

    @given(volumes())
    def test_lps_turns_the_first_two(self, volume: Volume) -> None:
        ras, lps = (volume.to_world(np.array([[1, 1, 1]]), frame) for frame in ("ras", "lps"))
        np.testing.assert_array_equal(lps, ras * [-1, -1, 1])

    @given(affines())
    def test_spacing_is_nibabels(self, affine: np.ndarray) -> None:
        np.testing.assert_allclose(make(affine=affine).spacing, nib.affines.voxel_sizes(affine))

    def test_unknown_frame(self) -> None:
        with pytest.raises(PromptError, match=r"'scanner'.*ras"):
            make().to_world(np.zeros((1, 3)), "scanner")


class TestAnatomicalAxes:
    def test_all_48_orientations(self) -> None:
        for order in itertools.permutations(range(3)):
            for signs in itertools.product((-1, 1), repeat=3):
                affine = np.eye(4)
                affine[:3, :3] = (np.eye(3)[:, order] * signs) * (0.5, 1, 7)
                codes = nib.aff2axcodes(affine)
                for axis, pair in zip(anatomical_axes(affine), ("LR", "PA", "IS"), strict=True):
                    assert codes[axis] in pair

    @given(affines())
    def test_each_axis_once(self, affine: np.ndarray) -> None:
        assert sorted(anatomical_axes(affine)) == [0, 1, 2]

    def test_45_degrees(self) -> None:
        half = np.sqrt(0.5)
        affine = np.array([[half, half, 0, 0], [half, -half, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        assert sorted(anatomical_axes(affine)) == [0, 1, 2]
        assert anatomical_axes(affine)[2] == 2


class TestRefusal:
    @pytest.mark.parametrize(
        ("shape", "words"), [((4, 5), "2D"), ((4, 5, 6, 1), "4D"), ((4, 5, 6, 3), "split")]
    )
    def test_dimensions(self, shape: tuple[int, ...], words: str) -> None:
        with pytest.raises(VolumeError, match=words) as caught:
            make(np.zeros(shape))
        assert str(shape) in str(caught.value)

    @pytest.mark.parametrize("kind", [np.complex64, "U3", object, "u1,u1,u1"])
    def test_types(self, kind: object) -> None:
        with pytest.raises(VolumeError, match="not real numbers"):
            make(np.zeros((2, 2, 2), kind))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_bad_voxels_become_background_with_a_note(self, value: float) -> None:
        data = np.full((4, 5, 6), 7, np.float32)
        data[1, 2, 3] = data[0, 0, 0] = value
        volume = make(data)
        assert volume.data[1, 2, 3] == volume.data[0, 0, 0] == 0
        assert volume.data.sum() == 7 * 118
        assert volume.data.dtype == np.float32
        assert volume.notes == ("2 of 120 voxels are NaN or infinite: taken as background",)
        assert np.isfinite(data).sum() == 118

    def test_no_finite_voxel(self) -> None:
        with pytest.raises(VolumeError, match="no finite voxel"):
            make(np.full((2, 2, 2), np.nan))

    def test_no_voxel(self) -> None:
        with pytest.raises(VolumeError, match="no voxel"):
            make(np.zeros((2, 0, 2)))

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e200])
    def test_spacing(self, value: float) -> None:
        with pytest.raises(VolumeError, match="spacing"):
            make(affine=np.diag([1, value, 1, 1]))

    def test_singular(self) -> None:
        affine = np.eye(4)
        affine[:3, 1] = affine[:3, 0]
        with pytest.raises(VolumeError, match="singular"):
            make(affine=affine)

    @pytest.mark.parametrize("affine", [np.eye(3), np.ones((4, 4)), "affine", None, [[1], [2, 3]]])
    def test_not_an_affine(self, affine: object) -> None:
        with pytest.raises(VolumeError, match="affine"):
            Volume(np.zeros((2, 2, 2)), affine)

    def test_modality(self) -> None:
        with pytest.raises(VolumeError, match="'PET'"):
            make(modality="PET")


class TestDigest:
    def test_same_for_any_memory_order(self) -> None:
        data = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
        assert make(data).sha256 == make(np.asfortranarray(data)).sha256
        assert make(data).sha256 == make(data.astype(">i2")).sha256

    def test_differs(self) -> None:
        data = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
        moved = np.eye(4)
        moved[0, 3] = 1
        others = [
            make(data + 1),
            make(data.astype(np.int32)),
            make(data.reshape(5, 4, 6)),
            make(data, moved),
        ]
        assert len({make(data).sha256, *(other.sha256 for other in others)}) == 5

    def test_data_is_native_and_untouched(self) -> None:
        data = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
        assert make(data).data is data
        assert make(data.astype(">f4")).data.dtype.isnative


class TestSegmentation:
    def test_on_the_volumes_grid(self) -> None:
        volume = make(affine=np.diag([1, 2, 5, 1]), header="header")
        data = np.zeros(volume.shape, np.uint8)
        data[:2, :2, :2], data[3, 3, 3] = 1, 7
        result = Segmentation.from_volume(volume, data, score={1: 0.9, 2: 0.1})
        assert result.targets == (1, 2, 7)
        assert result.mask(1).sum() == 8
        assert result.volume_ml(1) == pytest.approx(0.08)
        assert result.volume_ml(2) == 0
        assert result.header == "header"
        np.testing.assert_array_equal(result.affine, volume.affine)

    def test_another_grid(self) -> None:
        with pytest.raises(VolumeError, match=r"\(2, 2, 2\).*\(4, 5, 6\)"):
            Segmentation.from_volume(make(), np.zeros((2, 2, 2), np.uint8))

    def test_not_integers(self) -> None:
        with pytest.raises(VolumeError, match="float64"):
            Segmentation.from_volume(make(), np.zeros((4, 5, 6)))

    def test_uncertainty_shape(self) -> None:
        with pytest.raises(VolumeError, match="uncertainty"):
            Segmentation.from_volume(
                make(), np.zeros((4, 5, 6), np.uint8), uncertainty=np.zeros((1, 1, 1))
            )


class TestRepr:
    def test_says_what_matters_and_no_arrays(self) -> None:
        volume = make(affine=np.diag([0.7031, 0.7031, 3, 1]), modality="CT")
        expected = "Volume(4 x 5 x 6 voxels of 0.703 x 0.703 x 3 mm, int16, CT)"
        assert repr(volume) == expected
        data = np.zeros(volume.shape, np.uint8)
        data[:2], data[2] = 1, 4
        found = Segmentation.from_volume(
            volume, data, score={1: 0.914, 2: 0.1}, labels={4: "liver"}
        )
        assert repr(found) == (
            "Segmentation(4 x 5 x 6 voxels of 0.703 x 0.703 x 3 mm: "
            "target 1 89 mm3, score 0.91; target 2 0.0 ml, score 0.10; liver 44.5 mm3)"
        )
        assert "empty" in repr(Segmentation.from_volume(volume, np.zeros(volume.shape, bool)))
