import numpy as np
import pytest
from scipy.ndimage import label

from promptseg.datasets.phantom import NAMES, abdomen_phantom
from promptseg.datasets.solids import Canvas, ellipsoid, tube
from promptseg.errors import VolumeError
from promptseg.volume import Volume, anatomical_axes

SMALL = {"shape": (90, 70, 32), "spacing": (4.0, 4.0, 7.5)}


@pytest.fixture(scope="module")
def phantom() -> tuple[Volume, np.ndarray, dict[int, str]]:
    return abdomen_phantom(**SMALL)


class TestImage:
    def test_grid(self, phantom) -> None:
        volume, labels, _ = phantom
        assert volume.shape == labels.shape == SMALL["shape"]
        assert volume.modality == "CT"
        np.testing.assert_allclose(volume.spacing, SMALL["spacing"], rtol=1e-6)

    def test_affine_is_oblique_and_survives_float32(self, phantom) -> None:
        affine = phantom[0].affine
        assert np.count_nonzero(np.abs(affine[:3, :3]) > 0.05) > 3
        np.testing.assert_array_equal(affine, affine.astype(np.float32))

    def test_air_fat_soft_tissue_and_bone(self, phantom) -> None:
        volume = phantom[0]
        assert volume.data.dtype == np.int16
        for low, high in ((-1024, -950), (-130, -70), (20, 140), (300, 1000)):
            share = np.mean((volume.data >= low) & (volume.data <= high))
            assert share > 0.005, (low, high)

    @pytest.mark.parametrize(
        ("organ", "low", "high"),
        [
            ("liver", 85, 115),
            ("spleen", 90, 125),
            ("left kidney", 130, 185),
            ("aorta", 110, 170),
            ("vertebrae", 180, 420),
            ("liver lesion", 40, 80),
        ],
    )
    def test_organs_have_their_hounsfield_units(
        self, phantom, organ: str, low: float, high: float
    ) -> None:
        volume, labels, names = phantom
        inside = volume.data[labels == next(key for key, name in names.items() if name == organ)]
        assert low < np.median(inside) < high

    def test_noise_is_correlated(self, phantom) -> None:
        noise = abdomen_phantom(1, **SMALL)[0].data[:6].astype(float)
        around = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
        assert noise.std() > 3
        assert around > 0.1

    def test_edges_are_partial(self, phantom) -> None:
        volume, labels, _ = phantom
        kidney = labels == 3
        step = np.abs(np.diff(volume.data.astype(int), axis=0))
        assert np.median(step[np.diff(kidney.astype(int), axis=0) != 0]) < 200


class TestLabels:
    def test_every_organ_is_there(self, phantom) -> None:
        _, labels, names = phantom
        assert names == NAMES
        assert set(np.unique(labels)) == {0, *names}

    def test_sizes_are_human(self) -> None:
        volume, labels, names = abdomen_phantom(shape=(112, 88, 60), spacing=(3.2, 3.2, 4.0))
        ml = np.bincount(labels.ravel(), minlength=13) * np.prod(volume.spacing) / 1000
        sizes = {name: ml[key] for key, name in names.items()}
        assert 900 < sizes["liver"] < 1800
        assert 120 < sizes["left kidney"] < 230
        assert 120 < sizes["spleen"] < 400

    def test_liver_is_on_the_right_and_left_kidney_on_the_left(self, phantom) -> None:
        volume, labels, _ = phantom
        liver, left, right = (
            volume.to_world(np.argwhere(labels == key)).mean(axis=0) for key in (1, 3, 4)
        )
        assert liver[0] > 20
        assert left[0] < -20 < 20 < right[0]

    @pytest.mark.parametrize("key", [3, 4])
    def test_a_kidney_is_one_piece(self, phantom, key: int) -> None:
        pieces, count = label(phantom[1] == key)
        assert np.bincount(pieces.ravel())[1:].max() > 0.98 * np.count_nonzero(pieces)
        assert count >= 1


class TestArguments:
    def test_same_seed_same_phantom(self, phantom) -> None:
        again = abdomen_phantom(0, **SMALL)
        assert again[0].sha256 == phantom[0].sha256
        np.testing.assert_array_equal(again[1], phantom[1])

    def test_another_seed_bends_and_draws_otherwise(self, phantom) -> None:
        assert np.mean(abdomen_phantom(1, **SMALL)[1] != phantom[1]) > 0.001

    def test_axial_is_the_last_axis(self, phantom) -> None:
        assert anatomical_axes(phantom[0].affine) == (0, 1, 2)

    @pytest.mark.parametrize(
        ("shape", "spacing"),
        [((0, 5, 5), (1, 1, 1)), ((5, 5, 5), (1, 0, 1)), ((5, 5, 5), (1, np.nan, 1))],
    )
    def test_refused(self, shape, spacing) -> None:
        with pytest.raises(VolumeError, match="positive"):
            abdomen_phantom(shape=shape, spacing=spacing)


class TestSolids:
    def canvas(self) -> Canvas:
        affine = np.diag([0.5, 0.5, 0.5, 1.0])
        affine[:3, 3] = -10
        return Canvas(affine, (41, 41, 41), lambda at: (at[0] * 0, at[1] * 0, at[2] * 0), 0.0, 0.0)

    @pytest.mark.parametrize("turn", [{}, {"coronal": 30.0, "axial": -50.0}])
    def test_ellipsoid_has_its_volume(self, turn: dict[str, float]) -> None:
        canvas = self.canvas()
        canvas.paint(ellipsoid((1, -1, 0), (7, 5, 3), **turn), 1.0, 1)
        expected = 4 / 3 * np.pi * 7 * 5 * 3
        assert canvas.values.sum() * 0.125 == pytest.approx(expected, rel=0.03)
        assert canvas.labels.sum() * 0.125 == pytest.approx(expected, rel=0.03)

    def test_tube_has_its_volume(self) -> None:
        canvas = self.canvas()
        canvas.paint(tube([(-5, 0, 0), (5, 0, 0)], 3), 1.0)
        assert canvas.values.sum() * 0.125 == pytest.approx(np.pi * 90 + 36 * np.pi, rel=0.03)
        assert not canvas.labels.any()

    def test_set_operations(self) -> None:
        ball, other = ellipsoid((0, 0, 0), (5, 5, 5)), ellipsoid((4, 0, 0), (5, 5, 5))
        sizes = []
        for solid in (ball, ball | other, ball & other, ball - other, ball.shrunk(2)):
            canvas = self.canvas()
            canvas.paint(solid, 1.0, 1)
            sizes.append(canvas.labels.sum() * 0.125)
        whole, union, common, rest, core = sizes
        assert union == pytest.approx(2 * whole - common, rel=0.02)
        assert rest == pytest.approx(whole - common, rel=0.02)
        assert core == pytest.approx(4 / 3 * np.pi * 27, rel=0.05)

    def test_what_lies_outside_the_grid_is_not_painted(self) -> None:
        canvas = self.canvas()
        canvas.paint(ellipsoid((100, 0, 0), (5, 5, 5)), 1.0, 1)
        assert not canvas.values.any()
