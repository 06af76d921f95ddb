"""What images are taken for, in the grey levels in which tools and countries write them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import promptseg as ps
from promptseg.volume import Volume, read
from promptseg.volume.grey_levels import assess
from promptseg.volume.grey_levels.hounsfield import find_scale
from promptseg.volume.intensity import choose_window, normalise

Change = Callable[[np.ndarray], np.ndarray]
WITHIN = 0.02


def outside(data: np.ndarray) -> np.ndarray:
    """True outside a round field of view."""
    rows, cols = np.ogrid[-1 : 1 : data.shape[0] * 1j, -1 : 1 : data.shape[1] * 1j]
    return np.broadcast_to((rows**2 + cols**2 > 1)[..., None], data.shape)


def padded(value: float) -> Change:
    return lambda data: np.where(outside(data), value, data.astype(np.int32))


def resampled(data: np.ndarray, order: int = 3) -> np.ndarray:
    """A third of a voxel there and back: no whole numbers, and cubic splines ring."""
    there = ndimage.shift(data.astype(np.float32), (0.33, 0.33, 0), order=order, mode="nearest")
    return ndimage.shift(there, (-0.33, -0.33, 0), order=order, mode="nearest")


def scaled(top: float, low: float, high: float) -> Change:
    def change(data: np.ndarray) -> np.ndarray:
        grey = np.clip((data.astype(np.float64) - low) / (high - low), 0, 1) * top
        return np.rint(grey).astype(np.uint8) if top > 1 else grey.astype(np.float32)

    return change


def with_metal(data: np.ndarray) -> np.ndarray:
    """One per cent of the voxels in a corner, thirty times brighter."""
    changed = data.astype(np.float32)
    side = round((0.01 * data.size) ** (1 / 3))
    changed[:side, :side, :side] = 30 * data.max()
    return changed


CT: dict[str, Change] = {
    "padding -2000": padded(-2000),
    "padding -3024": padded(-3024),
    "padding -8192": padded(-8192),
    "padding -32768": padded(-32768),
    "resampled": resampled,
    "resampled with padding": lambda data: resampled(padded(-3024)(data), 1),
    "uint16 HU + 1024": lambda data: np.clip(data + 1024, 0, None).astype(np.uint16),
    "uint16 HU + 8192": lambda data: (data.astype(np.int32) + 8192).astype(np.uint16),
    "0 to 255": scaled(255, -1024, 1600),
    "0 to 1": scaled(1, -1024, 1600),
    "NaN": padded(np.nan),
}
WINDOWED = {"window to 255": scaled(255, -160, 240), "window to 1": scaled(1, -160, 240)}
MR: dict[str, Change] = {
    "real part": lambda data: data - 1000,
    "subtraction": lambda data: np.rint(data - 600).astype(np.int16),
    "background -1e6": lambda data: np.where(outside(data), -1e6, data),
    "metal": with_metal,
    "NaN": lambda data: np.where(outside(data), np.nan, data),
}


def body(rng: np.random.Generator) -> np.ndarray:
    """Air, a body of fat and muscle, lungs and bone, in Hounsfield units with noise."""
    rows, cols = np.ogrid[-1.2:1.2:72j, -1.2:1.2:64j]
    far = np.sqrt(rows**2 + cols**2)
    plane = np.select([far < 0.15, far < 0.7, far < 0.95], [500.0, 50.0, -100.0], -1000.0)
    plane[(np.abs(rows - 0.3) < 0.15) & (np.abs(cols) < 0.2)] = -800
    return np.rint(plane[..., None] + rng.normal(0, 15, (72, 64, 20))).astype(np.int16)


def sphere() -> tuple[np.ndarray, np.ndarray]:
    """An MR-like sphere of 900 in tissue of 300 to 700, with noise."""
    rng = np.random.default_rng(0)
    i, j, k = np.ogrid[:48, :48, :16]
    inside = (i - 22) ** 2 + (j - 26) ** 2 + 4 * (k - 8) ** 2 < 10**2
    tissue = 500 + 2000 * ndimage.gaussian_filter(rng.normal(size=inside.shape), 4)
    data = np.where(inside, 900, tissue) + rng.normal(0, 25, inside.shape)
    return np.rint(data).astype(np.float32), inside


class TestModality:
    @pytest.mark.parametrize("name", [*CT, "as it is"])
    def test_ct_whatever_was_added(self, name):
        data = CT.get(name, np.asarray)(body(np.random.default_rng(0)))
        levels = Volume(data, np.eye(4)).levels
        assert levels.modality == "CT"
        assert levels.belief in ("sure", "likely")

    @pytest.mark.parametrize("name", [*MR, "as it is"])
    def test_mr_whatever_was_added(self, name):
        data = MR.get(name, np.asarray)(sphere()[0])
        assert Volume(data, np.eye(4)).levels.modality == "MR"

    @pytest.mark.parametrize("spread", [40.0, 60.0, 200.0, 400.0])
    def test_a_difference_of_two_images_is_no_ct(self, spread):
        data = np.rint(np.random.default_rng(0).normal(0, spread, (40, 40, 10))).astype(np.int16)
        assert assess(data).modality == "MR"

    @pytest.mark.parametrize("top", [255, 1])
    def test_values_of_a_picture_tell_nothing(self, top):
        shown = scaled(top, -160, 240)(body(np.random.default_rng(0)))
        levels = assess(shown)
        assert (levels.belief, levels.shown) == ("unsure", True)
        assert "CT and MR share" in str(levels)

    def test_what_is_told_wins_and_is_sure(self):
        data = body(np.random.default_rng(0))
        assert assess(data, "MR").modality == "MR"
        assert str(assess(data, "other", "by --modality")) == "other (sure, by --modality)"
        assert str(assess(data)).startswith("CT (guessed, quite sure: air near -1000")

    def test_of_a_file(self, tmp_path):
        shown = scaled(255, -160, 240)(body(np.random.default_rng(0)))
        found = []
        for data in (body(np.random.default_rng(0)), sphere()[0], shown):
            ps.write(Volume(data, np.eye(4)), tmp_path / "a.nii.gz")
            found.append(read(tmp_path / "a.nii.gz"))
        assert [volume.modality for volume in found] == ["CT", "MR", None]
        assert [volume.guessed for volume in found] == [True, True, False]
        told = read(tmp_path / "a.nii.gz", modality="CT")
        assert (told.modality, told.guessed) == ("CT", False)

    def test_real_data(self, shared_data: Path):
        files = {
            "totalsegmentator/ct.nii.gz": "CT",
            "totalsegmentator/mr_small.nii.gz": "MR",
            "sarcoma/STS_002/ct.nii.gz": "CT",
            "spinal_cord/t2/t2.nii.gz": "MR",
            "left_atrium/images": None,
        }
        for name, expected in files.items():
            path = shared_data / name
            path = path if path.is_file() else sorted(path.iterdir())[0]
            assert read(path).modality == expected, name

    def test_within_the_body_there_is_no_air(self, shared_data: Path):
        data = read(shared_data / "totalsegmentator" / "ct_small.nii.gz").data
        crop = data[40:80, 33:66, 8:24]
        assert crop.min() > -1000
        assert assess(crop).modality == "CT"
        assert assess(crop + 1024).scale is not None


class TestScale:
    @pytest.mark.parametrize("offset", [0, 1000, 1024, 8192, 32768, 4321])
    def test_shift(self, offset):
        values = body(np.random.default_rng(0)).ravel().astype(float) + offset
        scale = find_scale(values)
        assert scale is not None
        assert scale.slope == 1
        assert scale.grey(40) == pytest.approx(40 + offset, abs=25)

    @pytest.mark.parametrize("top", [1.0, 255.0, 4095.0])
    def test_factor(self, top):
        data = scaled(1, -1024, 1600)(body(np.random.default_rng(0))).ravel() * top
        scale = find_scale(data.astype(np.float64))
        assert scale is not None
        for units in (-160, 40, 240):
            assert scale.grey(units) == pytest.approx((units + 1024) / 2624 * top, rel=0.03)

    def test_a_window_goes_where_the_units_are(self):
        data = body(np.random.default_rng(0))
        plain = normalise(data, choose_window(Volume(data, np.eye(4)), "lung"))
        for name in ("uint16 HU + 1024", "uint16 HU + 8192", "0 to 1"):
            moved = Volume(CT[name](data), np.eye(4))
            np.testing.assert_allclose(
                normalise(moved.data, choose_window(moved, "lung")), plain, atol=0.03
            )


class TestWindow:
    def test_no_units_no_window_in_units(self):
        shown = Volume(scaled(1, -160, 240)(body(np.random.default_rng(0))), np.eye(4), "CT")
        window = choose_window(shown, "soft_tissue")
        assert (window.name, window.low, window.high) == ("full", 0, 1)
        assert "no Hounsfield units" in window.note
        assert choose_window(shown, "1,0.5").note == ""

    def test_what_was_windowed_is_shown_whole(self):
        data = body(np.random.default_rng(0))
        for name, top in (("window to 255", 255), ("window to 1", 1)):
            window = choose_window(Volume(WINDOWED[name](data), np.eye(4)))
            assert (window.name, window.low, window.high) == ("full", 0, top)
        assert choose_window(Volume(np.minimum(data + 1000, 2000), np.eye(4), "MR")).name != "full"

    def test_padding_and_metal_are_left_out_with_a_word(self):
        plain, _ = sphere()
        expected = choose_window(Volume(plain, np.eye(4)))
        for name, word in (("background -1e6", "padding"), ("metal", "brighter")):
            volume = Volume(MR[name](plain), np.eye(4))
            window = choose_window(volume)
            assert [window.low, window.high] == pytest.approx(
                [expected.low, expected.high], abs=0.15 * (expected.high - expected.low)
            )
            assert word in " ".join(volume.levels.notes)

    def test_what_shines_in_noise_is_the_image(self):
        data = np.random.default_rng(0).normal(100, 1, (40, 40, 10))
        data[20:24, 20:24, 4:6] = 400
        levels = assess(data)
        assert levels.metal == 0
        assert choose_window(Volume(data, np.eye(4))).high < 400


@pytest.fixture(scope="module")
def segmenter() -> ps.Segmenter:
    return ps.Segmenter.from_pretrained("default", device="cpu")


def dice(segmenter: ps.Segmenter, data: np.ndarray, truth: np.ndarray) -> float:
    """Of one flat box around the target on the middle slice, on that slice."""
    k = data.shape[2] // 2
    found = np.argwhere(truth[:, :, k])
    box = ps.Box((*found.min(0).tolist(), k), (*(found.max(0) + 1).tolist(), k + 1))
    volume = Volume(data, np.diag([3.0, 3, 3, 1]))
    mask = segmenter.segment(volume, [box], propagate=False).data[:, :, k] == 1
    return float(2 * (mask & truth[:, :, k]).sum() / (mask.sum() + truth[:, :, k].sum()))


@pytest.fixture(scope="module")
def spleen(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    folder = shared_data / "totalsegmentator"
    data, known = (read(folder / f"ct{end}.nii.gz").data for end in ("", "_labels"))
    k = int((known == 1).sum((0, 1)).argmax())
    return data[:, :, k - 1 : k + 2], known[:, :, k - 1 : k + 2] == 1


@pytest.fixture(scope="module")
def lesion(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    held = np.load(next((shared_data / "ct_lesions").glob("*000015*.npz")))
    image, known = (np.moveaxis(held[key], 0, 2)[::2, ::2] for key in ("imgs", "gts"))
    k = int(known.sum((0, 1)).argmax())
    units = np.where(image == 0, -1000, np.rint(image / 255.0 * 400 - 160)).astype(np.int16)
    return units[:, :, k - 1 : k + 2], known[:, :, k - 1 : k + 2] > 0


class TestDice:
    """Every change of grey levels costs at most 0.02."""

    @pytest.mark.parametrize("case", ["spleen", "lesion"])
    def test_ct(self, segmenter, case, request):
        data, truth = request.getfixturevalue(case)
        plain = dice(segmenter, data, truth)
        assert plain > 0.8
        changes = {**CT, **WINDOWED}
        found = {name: dice(segmenter, change(data), truth) for name, change in changes.items()}
        assert {name: v for name, v in found.items() if v < plain - WITHIN} == {}

    def test_mr(self, segmenter):
        data, truth = sphere()
        plain = dice(segmenter, data, truth)
        assert plain > 0.95
        found = {name: dice(segmenter, change(data), truth) for name, change in MR.items()}
        assert {name: v for name, v in found.items() if v < plain - WITHIN} == {}
