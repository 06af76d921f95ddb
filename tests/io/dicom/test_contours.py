"""Contours along voxel edges, and structure sets that were drawn elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import promptseg as ps

pydicom = pytest.importorskip("pydicom", reason="needs the dicom extra")

from dicom_kit import save, series  # noqa: E402

from promptseg.io.dicom.contours import INSET, fill, trace  # noqa: E402

SHAPE = (30, 28, 8)


class TestTrace:
    @given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
    @settings(max_examples=60, deadline=None)
    def test_filling_gives_any_mask_back(self, mask):
        assert np.array_equal(fill(trace(mask), mask.shape), mask)

    def test_a_hole_is_a_contour_of_its_own(self):
        mask = np.ones((5, 5), bool)
        mask[2, 2] = False
        assert sorted(len(one) for one in trace(mask)) == [4, 4]

    def test_pixels_that_touch_at_a_corner_are_apart(self):
        assert [len(one) for one in trace(np.eye(3, dtype=bool))] == [4, 4, 4]

    def test_corners_lie_on_the_edges(self):
        [contour] = trace(np.ones((3, 2), bool))
        assert contour.min(axis=0) == pytest.approx([-0.5 + INSET] * 2)
        assert contour.max(axis=0) == pytest.approx([2.5 - INSET, 1.5 - INSET])


class TestFill:
    def test_a_corner_on_a_line_counts_once(self):
        diamond = np.array([(0, 2), (2, 0), (4, 2), (2, 4)], float)
        assert int(fill([diamond], (5, 5)).sum()) == 8

    def test_beyond_the_image(self):
        square = np.array([(-9, -9), (-9, 2.5), (2.5, 2.5), (2.5, -9)], float)
        assert fill([square], (5, 5))[:3, :3].all()
        assert int(fill([square], (5, 5)).sum()) == 9


def square(low, high):
    return [(low, low), (high, low), (high, high), (low, high)]


@pytest.fixture
def drawn(tmp_path):
    """Labels of contours given as (kind, [(i, j)], k) in voxels, on a fresh series."""
    volume = ps.read(save(series(data=np.zeros(SHAPE, np.int16)), tmp_path / "image"))
    data = np.zeros(SHAPE, np.uint8)
    data[1:3, 1:3, 1] = 1
    ps.Segmentation.from_volume(volume, data).save(tmp_path / "rt.dcm", format="rtstruct")

    def make(contours, axes=(0, 1, 2)):
        found = pydicom.dcmread(tmp_path / "rt.dcm")
        items = []
        for kind, points, place in contours:
            voxels = np.array([(*point, place) for point in points], float)[:, np.argsort(axes)]
            item = pydicom.Dataset()
            item.ContourGeometricType = kind
            item.NumberOfContourPoints = len(points)
            world = volume.to_world(voxels, "lps")
            item.ContourData = [float(f"{one:.5f}") for one in world.ravel()]
            items.append(item)
        found.ROIContourSequence[0].ContourSequence = items
        found.save_as(tmp_path / "drawn.dcm")
        labels = ps.read_labels(tmp_path / "drawn.dcm", volume)
        return labels.mask(1), labels.report.get("notes", [])

    return make


class TestOfOthers:
    def test_a_contour_inside_another_is_a_hole(self, drawn):
        outer, inner = square(1.5, 11.5), square(4.5, 6.5)
        mask, _ = drawn([("CLOSED_PLANAR", outer, 3), ("CLOSEDPLANAR_XOR", inner, 3)])
        assert int(mask.sum()) == 100 - 4
        assert not mask[5, 5, 3]

    def test_on_every_second_slice_fills_those_between(self, drawn):
        mask, _ = drawn([("CLOSED_PLANAR", square(1.5, 5.5), k) for k in (1, 3, 5)])
        assert list(np.flatnonzero(mask.any((0, 1)))) == [0, 1, 2, 3, 4, 5, 6]

    def test_a_gap_stays_a_gap(self, drawn):
        mask, _ = drawn([("CLOSED_PLANAR", square(1.5, 5.5), k) for k in (0, 1, 2, 6, 7)])
        assert list(np.flatnonzero(mask.any((0, 1)))) == [0, 1, 2, 6, 7]

    def test_between_slices_the_nearest_takes_it(self, drawn):
        mask, _ = drawn([("CLOSED_PLANAR", square(1.5, 5.5), 2.3)])
        assert list(np.flatnonzero(mask.any((0, 1)))) == [2]

    def test_two_planes_on_one_slice_are_not_mixed(self, drawn):
        planes = [
            ("CLOSED_PLANAR", square(1.5, 5.5), 2.0),
            ("CLOSED_PLANAR", square(1.5, 9.5), 2.4),
        ]
        mask, notes = drawn(planes)
        assert int(mask[:, :, 2].sum()) == 16
        assert "1 planes between slices left out" in notes[0]

    def test_smaller_than_a_voxel(self, drawn):
        mask, notes = drawn([("CLOSED_PLANAR", square(7.1, 7.3), 4)])
        assert np.argwhere(mask).tolist() == [[7, 7, 4]]
        assert "smaller than a voxel" in notes[0]

    def test_open_contours_and_points(self, drawn):
        ring = [*square(2.5, 8.5), (2.5, 3.0)]
        whole = ("CLOSED_PLANAR", square(1.5, 5.5), 5)
        line = ("OPEN_PLANAR", [(0, 0), (3, 0), (25, 25)], 7)
        mask, notes = drawn([("OPEN_PLANAR", ring, 3), whole, line, ("POINT", [(9, 9)], 2)])
        assert int(mask[:, :, 3].sum()) == 36
        assert not mask[:, :, 7].any()
        told = " ".join(notes)
        assert "whose ends meet taken as closed" in told
        assert "of type OPEN_PLANAR encloses nothing" in told
        assert "of type POINT encloses nothing" in told

    def test_drawn_across_another_axis(self, drawn):
        mask, _ = drawn([("CLOSED_PLANAR", square(1.5, 5.5), 9)], axes=(1, 2, 0))
        assert np.argwhere(mask)[:, 0].tolist() == [9] * 16
        assert int(mask[9, 2:6, 2:6].sum()) == 16

    def test_nothing_on_the_image(self, drawn):
        with pytest.raises(ps.VolumeError, match="no contour lies on the image"):
            drawn([("CLOSED_PLANAR", square(1.5, 5.5), 40)])


class TestOrgans:
    def test_every_organ_returns_to_the_voxel(self, shared_data, tmp_path):
        folder = shared_data / "totalsegmentator"
        volume = ps.read(folder / "ct_dicom")
        labels = ps.read_labels(folder / "ct_dicom_labels.nii.gz", volume)
        labels.save(tmp_path / "rt.dcm", format="rtstruct")
        found = ps.read_labels(tmp_path / "rt.dcm", volume)
        numbers = np.array([0, *labels.targets])
        assert np.array_equal(numbers[found.data], labels.data)
