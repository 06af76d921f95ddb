"""RTSTRUCT and DICOM-SEG of other programs, and ours there and back."""

import json

import numpy as np
import pytest

import promptseg as ps

pytest.importorskip("highdicom", reason="needs the dicom extra")


@pytest.fixture(scope="module")
def ct(shared_data):
    return ps.read(shared_data / "dicom_seg" / "ct-3slice")


@pytest.fixture(scope="module")
def labels(ct):
    """A ring on each slice, and a block beside it."""
    data = np.zeros(ct.shape, np.uint8)
    i, j = np.indices(ct.shape[:2])
    away = np.hypot(i - 200, j - 220)
    data[(away < 60) & (away > 20)] = 1
    data[300:340, 300:330, 1] = 2
    data[305, 305, 1] = 0
    return ps.Segmentation.from_volume(ct, data, labels={1: "left kidney", 2: "GTV boost"})


class TestStructureSetsOfOthers:
    NAME = "rtstruct_mim_and_rtutils_ge_phantom"

    @pytest.mark.parametrize(
        "file",
        ["dummy_rt.dcm", "invalid_reference_rt.dcm", "non_existent_reference_rt.dcm", "rt.dcm"],
    )
    def test_even_odd_voxels(self, shared_data, file):
        folder = shared_data / "dicom" / self.NAME
        expected = json.loads((folder / "expected.json").read_text())["rtstruct"][file]
        [path] = (folder / "dicom").rglob(file)
        found = ps.read_labels(path, ps.read(folder / "dicom"))
        for roi in expected["rois"]:
            count = int(found.mask(roi["number"]).sum())
            assert count == roi["voxels_even_odd_in_this_volume"]
            assert found.labels[roi["number"]] == roi["name"]

    def test_a_contour_plane_beyond_the_image_is_told(self, shared_data):
        folder = shared_data / "dicom" / self.NAME / "dicom"
        [path] = folder.rglob("dummy_rt.dcm")
        notes = ps.read_labels(path, ps.read(folder)).report["notes"]
        assert "ROI-1: contours on 1 planes outside the image left out" in notes

    @pytest.mark.parametrize("modality", ["CT", "MR_T1"])
    def test_contours_without_image_references(self, shared_data, modality):
        folder = shared_data / "sarcoma_dicom" / "STS_002" / modality
        found = ps.read_labels(folder / "mask" / "RS.dcm", ps.read(folder / "image"))
        assert found.volume_ml(1) == pytest.approx(53.3, abs=0.1)


class TestSegmentationsOfOthers:
    @pytest.mark.parametrize(
        "name",
        ["seg_dcmqi_odd_size_23x38x3", "seg_dcmqi_odd_size_24x38x3", "seg_labelmap_dcmqi_sparse"],
    )
    def test_voxels_by_segment(self, shared_data, name):
        folder = shared_data / "dicom" / name
        expected = json.loads((folder / "expected.json").read_text())["seg"]
        volume = ps.read(folder / "dicom")
        for file, facts in expected.items():
            [path] = (folder / "dicom").rglob(file)
            alone, placed = ps.read(path), ps.read_labels(path, volume)
            for segment in facts["segments"]:
                if segment["label"] != "Background":
                    count = segment["nonzero_pixels"]
                    assert int((alone.data == segment["number"]).sum()) == count
                    assert int(placed.mask(segment["number"]).sum()) == count
                    assert placed.labels[segment["number"]] == segment["label"]

    def test_overlapping_segments_are_kept_whole(self, shared_data):
        folder = shared_data / "dicom" / "seg_highdicom_binary_and_overlap" / "dicom"
        [path] = folder.rglob("seg_image_ct_binary_overlap.dcm")
        from promptseg.io import read_image

        image = read_image(path)
        assert [int(image.mask(target).sum()) for target in (1, 2)] == [64, 16]
        assert image.notes == ("targets 1 first segment, 2 second segment share voxels",)


class TestThereAndBack:
    @pytest.mark.parametrize("format", ["rtstruct", "seg", "labelmap"])
    def test_every_voxel_returns(self, ct, labels, tmp_path, format):
        labels.save(tmp_path / "out.dcm", format=format)
        found = ps.read_labels(tmp_path / "out.dcm", ct)
        assert np.array_equal(found.data, labels.data)

    def test_a_hole_of_one_voxel_stays(self, ct, labels, tmp_path):
        labels.save(tmp_path / "out.dcm", format="rtstruct")
        assert not ps.read_labels(tmp_path / "out.dcm", ct).mask(2)[305, 305, 1]

    def test_overlapping_targets(self, ct, tmp_path):
        data = np.zeros(ct.shape, np.uint8)
        large, small = np.zeros(ct.shape, bool), np.zeros(ct.shape, bool)
        large[100:200, 100:200], small[150:250, 150:160] = True, True
        data[large], data[small] = 1, 2
        both = ps.Segmentation.from_volume(ct, data, layers={1: large, 2: small})
        for format in ("rtstruct", "seg"):
            both.save(tmp_path / "out.dcm", format=format)
            found = ps.read_labels(tmp_path / "out.dcm", ct)
            assert np.array_equal(found.mask(1), large)
            assert np.array_equal(found.mask(2), small)
        for name, format in (("out.nii.gz", None), ("out.dcm", "labelmap")):
            with pytest.raises(ps.FormatError, match="targets 1, 2 share voxels"):
                both.save(tmp_path / name, format=format)

    def test_labels_of_no_dicom_image(self, tmp_path):
        plain = ps.Segmentation(np.ones((8, 8, 4), np.uint8), np.eye(4))
        with pytest.raises(ps.FormatError, match="this image is not from DICOM"):
            plain.save(tmp_path / "out.dcm", format="rtstruct")
        assert list(tmp_path.iterdir()) == []
