"""Cases whose images are DICOM series and whose labels are RTSTRUCT or DICOM-SEG."""

import numpy as np
import pytest

import promptseg as ps
from promptseg.datasets.cohort import open_cohort

pytest.importorskip("highdicom", reason="needs the dicom extra")

from dicom_kit import save, series

SHAPE = (20, 18, 4)


def case(folder, name, format, overlap=False):
    volume = ps.read(save(series(data=np.zeros(SHAPE, np.int16)), folder / "images" / name))
    data = np.zeros(SHAPE, np.uint8)
    data[4:12, 4:12, 1:3] = 1
    layers = {}
    if overlap:
        layers = {1: data == 1, 2: np.zeros(SHAPE, bool)}
        layers[2][6:16, 6:10, 1:3] = True
    labels = ps.Segmentation.from_volume(volume, data, layers=layers)
    (folder / "labels").mkdir(exist_ok=True)
    labels.save(folder / "labels" / f"{name}.dcm", format=format)
    return labels


class TestCases:
    def test_series_in_folders_and_label_objects_of_their_names(self, tmp_path):
        known = [case(tmp_path, "a", "rtstruct"), case(tmp_path, "b", "seg")]
        pairs = open_cohort(tmp_path / "images", tmp_path / "labels")
        assert [pair.name for pair in pairs] == ["a", "b"]
        for pair, labels in zip(pairs, known, strict=True):
            assert np.array_equal(pair.load().labels, labels.data)

    def test_labels_that_share_voxels_are_chosen_from(self, tmp_path):
        labels = case(tmp_path, "a", "rtstruct", overlap=True)
        with pytest.raises(ps.VolumeError, match="share voxels: choose one with --label"):
            open_cohort(tmp_path / "images", tmp_path / "labels")
        [pair] = open_cohort(tmp_path / "images", tmp_path / "labels", label=2)
        assert np.array_equal(pair.load().labels == 2, labels.mask(2))

    def test_image_and_mask_folders_of_a_patient(self, shared_data):
        folder = shared_data / "sarcoma_dicom" / "STS_002"
        pairs = open_cohort(folder, folder)
        assert [pair.name for pair in pairs] == ["CT", "MR_T1"]
        assert all(int((pair.load().labels == 1).sum()) > 10_000 for pair in pairs)
