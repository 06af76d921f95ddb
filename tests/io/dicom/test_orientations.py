"""Series in every orientation, oblique and tilted, as SimpleITK places their voxels."""

from itertools import permutations, product

import numpy as np
import pytest

import promptseg as ps

pytest.importorskip("pydicom", reason="needs the dicom extra")
sitk = pytest.importorskip("SimpleITK", reason="needs the dicom extra")

from dicom_kit import SHAPE, affine_of, save, series, values  # noqa: E402

ORIGIN = (10.0, -20.0, 30.0)


def signed_axes():
    """Row and column directions, and whether files run along or against their normal: 48."""
    axes = np.eye(3)
    for first, second in permutations(range(3), 2):
        for signs in product((1, -1), repeat=2):
            for along in (1, -1):
                yield (signs[0] * axes[first], signs[1] * axes[second]), along


def turned():
    from scipy.spatial.transform import Rotation

    matrix = Rotation.from_euler("xyz", (12, -23, 31), degrees=True).as_matrix()
    return np.round(matrix[:, 0], 8), np.round(matrix[:, 1], 8)


def simpleitk_points(folder):
    """LPS millimetres of every voxel by stored value, from each file's own header."""
    found = {}
    for path in folder.iterdir():
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        image = reader.Execute()
        plane = sitk.GetArrayFromImage(image)[0]
        for row, column in np.ndindex(plane.shape):
            point = image.TransformIndexToPhysicalPoint((column, row, 0))
            found[int(plane[row, column])] = point
    return found


def check(volume, folder):
    points = simpleitk_points(folder)
    flat = np.argwhere(np.ones(volume.shape, bool))
    places = volume.to_world(flat, "lps")
    wanted = np.array([points[int(volume.data[tuple(voxel)])] for voxel in flat])
    assert len(points) == flat.shape[0]
    assert np.abs(places - wanted).max() < 1e-4


class TestOrientations:
    @pytest.mark.parametrize("number", range(48))
    def test_every_voxel_where_simpleitk_has_it(self, tmp_path, number):
        directions, along = list(signed_axes())[number]
        step = along * 2.5 * np.cross(*directions)
        save(series(directions, step, ORIGIN), tmp_path)
        volume = ps.read(tmp_path)
        check(volume, tmp_path)
        assert np.linalg.det(volume.affine[:3, :3]) > 0 or volume.shape == SHAPE

    @pytest.mark.parametrize("tilt", [0.0, 0.7, -1.2])
    def test_oblique_and_tilted(self, tmp_path, tilt):
        directions = turned()
        step = 2.5 * np.cross(*directions) + tilt * directions[1]
        save(series(directions, step, ORIGIN), tmp_path)
        volume = ps.read(tmp_path)
        check(volume, tmp_path)
        assert np.abs(volume.affine - affine_of(directions, step, ORIGIN)).max() < 1e-4
        assert any("gantry tilt" in note for note in volume.notes) == (tilt != 0)

    def test_an_orthogonal_series_is_the_one_that_simpleitk_reads_whole(self, tmp_path):
        directions = turned()
        save(series(directions, None, ORIGIN), tmp_path)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
        image, volume = reader.Execute(), ps.read(tmp_path)
        assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), volume.data)
        for voxel in ((0, 0, 0), (4, 6, 3), (2, 1, 3)):
            point = image.TransformIndexToPhysicalPoint(voxel)
            assert volume.to_world([voxel], "lps")[0] == pytest.approx(point, abs=1e-4)
        assert np.array_equal(volume.data, values() - 1000)
