import numpy as np
import pytest

from promptseg.errors import VolumeError
from promptseg.volume import Volume, read
from promptseg.volume.intensity import WINDOWS, Window, choose_window, normalise


def volume_of(data: np.ndarray, modality: str | None = None) -> Volume:
    return Volume(data, np.eye(4), modality)


RNG = np.random.default_rng(7)
CT = RNG.integers(-1024, 1500, (9, 9, 9)).astype(np.int16)
MR = RNG.gamma(2, 100, (9, 9, 9)).astype(np.float32)


class TestCt:
    @pytest.mark.parametrize("name", WINDOWS)
    def test_named_window(self, name: str) -> None:
        window = choose_window(volume_of(CT), name)
        width, level = WINDOWS[name]
        assert (window.low, window.high) == (level - width / 2, level + width / 2)

    def test_limits_do_not_follow_the_data(self) -> None:
        quiet, loud = (choose_window(volume_of(CT * k, "CT")) for k in (0, 1))
        assert quiet == loud == Window("fixed", -160, 240, "soft_tissue")

    def test_spelling(self) -> None:
        volume = volume_of(CT)
        for name in ("Soft Tissue", "soft-tissue", "SOFT_TISSUE", "400,40", " 400 , 40 "):
            window = choose_window(volume, name)
            assert (window.low, window.high) == (-160, 240)

    def test_values(self) -> None:
        window = choose_window(volume_of(CT), "400,40")
        scaled = normalise(np.array([-2000, -160, 40, 240, 3000], np.int16), window)
        np.testing.assert_allclose(scaled, [0, 0, 0.5, 1, 1], atol=1e-6)


class TestMr:
    def test_percentiles_of_the_foreground(self) -> None:
        padded = np.pad(MR, 9)
        window = choose_window(volume_of(padded))
        assert window.kind == "percentile"
        assert [window.low, window.high] == pytest.approx(np.percentile(MR, (0.5, 99.5)))

    @pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32])
    @pytest.mark.parametrize("offset", [-100, 0, 3])
    def test_counting_is_sorting(self, kind: type, offset: int) -> None:
        data = (RNG.integers(0, 100, (9, 8, 7)) + offset).astype(kind)
        window = choose_window(volume_of(data, "MR"))
        expected = np.percentile(data[data != 0], (0.5, 99.5))
        assert [window.low, window.high] == pytest.approx(expected)

    def test_modality_in_the_file_wins(self) -> None:
        assert choose_window(volume_of(CT, "MR")).kind == "percentile"
        assert choose_window(volume_of(MR, "CT")).kind == "fixed"
        assert choose_window(volume_of(CT), "mr") == choose_window(volume_of(CT), "percentile")

    @pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e12])
    def test_constant_volume(self, value: float) -> None:
        data = np.full((4, 4, 4), value)
        scaled = normalise(data, choose_window(volume_of(data, "MR")))
        np.testing.assert_array_equal(scaled, 0)

    def test_binary_volume_keeps_its_contrast(self) -> None:
        for kind in (bool, np.uint8, np.float16):
            data = np.zeros((4, 4, 4), kind)
            data[1:3] = 1
            scaled = normalise(data, choose_window(volume_of(data)))
            np.testing.assert_array_equal(scaled, data.astype(np.float32))

    def test_enormous_values(self) -> None:
        data = MR.astype(np.float64) * 1e300
        scaled = normalise(data, choose_window(volume_of(data)))
        np.testing.assert_allclose(scaled, normalise(MR, choose_window(volume_of(MR))), atol=1e-5)

    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint16, np.float64])
    def test_every_type_in_range(self, kind: type) -> None:
        data = (MR / 4).clip(0, 255).astype(kind)
        before = data.copy()
        scaled = normalise(data, choose_window(volume_of(data)))
        assert scaled.dtype == np.float32
        assert scaled.min() == 0
        assert scaled.max() == 1
        np.testing.assert_array_equal(data, before)


class TestRefusal:
    @pytest.mark.parametrize("window", ["lungs", "1,2,3", "", "a,b", "400;40"])
    def test_unknown_lists_the_names(self, window: str) -> None:
        with pytest.raises(VolumeError, match="soft_tissue"):
            choose_window(volume_of(CT), window)

    @pytest.mark.parametrize("window", ["0,40", "-5,40", "nan,40", "400,inf"])
    def test_bad_numbers(self, window: str) -> None:
        with pytest.raises(VolumeError, match="width"):
            choose_window(volume_of(CT), window)


def test_real_mr_fills_the_range(shared_data) -> None:
    path = sorted((shared_data / "left_atrium" / "images").glob("*.nii.gz"))[0]
    volume = read(path)
    scaled = normalise(volume.data, choose_window(volume))
    assert 0.1 < scaled.mean() < 0.6
    assert np.mean(scaled == 1) < 0.02
