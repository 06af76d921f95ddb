"""Training folders as people and other tools lay them out, and labels as they write them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from evaluation_cases import two_discs

from promptseg.datasets.cohort import notes_of, open_cohort, whole_labels
from promptseg.datasets.folders import label_names, pair_folders
from promptseg.errors import FormatError, VolumeError

AFFINE = np.diag([1.0, 1, 3, 1])


def put(path: Path, data: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(two_discs() if data is None else data, affine), path)
    return path


def names(folder: Path, images: str = "images", labels: str = "labels") -> dict[str, list[str]]:
    found = pair_folders(folder / images, folder / labels)
    assert found.faults == []
    return {name: [image.name, mask.name] for name, image, mask in found.pairs}


class TestNames:
    @pytest.mark.parametrize(
        ("image", "mask", "name"),
        [
            ("case_07_0000", "case_07", "case_07"),
            ("a", "a_seg", "a"),
            ("a", "a_mask", "a"),
            ("a", "a-label", "a"),
            ("a", "a.segmentation", "a"),
            ("a_ct", "a_gt", "a"),
            ("img0001", "label0001", "0001"),
            ("volume-3", "segmentation-3", "3"),
        ],
    )
    def test_endings_and_beginnings(self, tmp_path, image, mask, name):
        put(tmp_path / "images" / f"{image}.nii.gz")
        put(tmp_path / "labels" / f"{mask}.nii.gz")
        assert names(tmp_path) == {name: [f"{image}.nii.gz", f"{mask}.nii.gz"]}
        assert f"{image}.nii.gz with {mask}.nii.gz" in " ".join(
            notes_of(open_cohort(tmp_path / "images", tmp_path / "labels"))
        )

    def test_the_same_name_goes_before_all(self, tmp_path):
        for name in ("a", "a_0000"):
            put(tmp_path / "images" / f"{name}.nii.gz")
            put(tmp_path / "labels" / f"{name}.nii.gz")
        assert names(tmp_path) == {n: [f"{n}.nii.gz"] * 2 for n in ("a", "a_0000")}

    def test_of_several_channels_the_first(self, tmp_path):
        for channel in ("0000", "0001", "0002"):
            put(tmp_path / "images" / f"p_{channel}.nii.gz")
        put(tmp_path / "labels" / "p.nii.gz")
        assert names(tmp_path) == {"p": ["p_0000.nii.gz", "p.nii.gz"]}
        found = pair_folders(tmp_path / "images", tmp_path / "labels")
        assert "p_0001.nii.gz, p_0002.nii.gz left out" in found.notes[0]

    def test_images_and_labels_in_one_folder(self, tmp_path):
        for name in ("a", "a_seg", "b", "b_seg"):
            put(tmp_path / "all" / f"{name}.nii.gz")
        assert names(tmp_path, "all", "all") == {
            n: [f"{n}.nii.gz", f"{n}_seg.nii.gz"] for n in "ab"
        }

    def test_what_stands_alone_is_named(self, tmp_path):
        put(tmp_path / "images" / "a.nii.gz")
        put(tmp_path / "labels" / "b_seg.nii.gz")
        faults = [str(f) for f in pair_folders(tmp_path / "images", tmp_path / "labels").faults]
        assert [fault.split(" in ")[0] for fault in faults] == [
            "a has no labels", "b_seg has no image"
        ]  # fmt: skip

    def test_two_masks_of_one_image_are_not_guessed(self, tmp_path):
        put(tmp_path / "images" / "a.nii.gz")
        for end in ("seg", "mask"):
            put(tmp_path / "labels" / f"a_{end}.nii.gz")
        assert len(pair_folders(tmp_path / "images", tmp_path / "labels").faults) == 3


class TestNnUnet:
    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Path:
        for name in ("spleen_1", "spleen_2"):
            put(tmp_path / "imagesTr" / f"{name}_0000.nii.gz")
            put(tmp_path / "labelsTr" / f"{name}.nii.gz")
        return tmp_path

    def test_the_root_will_do(self, dataset):
        pairs = open_cohort(dataset, dataset)
        assert [pair.name for pair in pairs] == ["spleen_1", "spleen_2"]
        assert np.array_equal(pairs[0].load().labels, two_discs())

    @pytest.mark.parametrize(
        "labels",
        [
            {"background": 0, "spleen": 1, "whole tumour": 2, "region": [1, 2]},
            {"0": "background", "1": "spleen", "2": "whole tumour"},
        ],
    )
    def test_names_of_its_labels(self, dataset, labels):
        (dataset / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert label_names(dataset / "labelsTr") == {1: "spleen", 2: "whole tumour"}
        assert label_names(dataset) == {1: "spleen", 2: "whole tumour"}

    @pytest.mark.parametrize("text", ["", "[]", '{"labels": 3}'])
    def test_a_broken_one_names_nothing(self, dataset, text):
        (dataset / "dataset.json").write_text(text)
        assert label_names(dataset / "labelsTr") == {}


class TestPatients:
    def test_a_folder_each(self, tmp_path):
        for name in ("p1", "p2"):
            put(tmp_path / "d" / name / f"{name}_t1.nii.gz")
            put(tmp_path / "d" / name / f"{name}_seg.nii.gz")
        assert names(tmp_path, "d", "d")["p2"] == ["p2_t1.nii.gz", "p2_seg.nii.gz"]

    def test_image_and_mask_by_name_among_others(self, tmp_path):
        for file in ("image", "mask", "flair", "seg_old"):
            put(tmp_path / "d" / "p1" / f"{file}.nii.gz")
        assert names(tmp_path, "d", "d") == {"p1": ["image.nii.gz", "mask.nii.gz"]}

    def test_several_images_are_not_guessed(self, tmp_path):
        for file in ("flair", "t1", "seg"):
            put(tmp_path / "d" / "p1" / f"{file}.nii.gz")
        (fault,) = pair_folders(tmp_path / "d", tmp_path / "d").faults
        assert isinstance(fault, FormatError)
        assert "2 files that may be its image (flair.nii.gz, t1.nii.gz): name one image" in str(
            fault
        )

    def test_two_trees_of_the_same_patients(self, tmp_path):
        put(tmp_path / "images" / "p1" / "ct.nii.gz")
        put(tmp_path / "labels" / "p1" / "liver.nii.gz")
        assert names(tmp_path) == {"p1": ["ct.nii.gz", "liver.nii.gz"]}


class TestNegatives:
    def test_a_healthy_case_is_kept_with_a_note(self, tmp_path):
        for name in ("a", "b"):
            put(tmp_path / "images" / f"{name}.nii.gz")
        put(tmp_path / "labels" / "a.nii.gz")
        put(tmp_path / "labels" / "b.nii.gz", np.zeros((40, 48, 7), np.uint8))
        pairs = open_cohort(tmp_path / "images", tmp_path / "labels")
        assert notes_of(pairs) == ["1 of 2 cases have no label and are negatives: b"]
        assert not pairs[1].load().labels.any()

    def test_a_case_without_the_asked_label_too(self, tmp_path):
        for name in ("a", "b"):
            put(tmp_path / "images" / f"{name}.nii.gz")
        put(tmp_path / "labels" / "a.nii.gz")
        put(tmp_path / "labels" / "b.nii.gz", (two_discs() == 1).astype(np.uint8))
        pairs = open_cohort(tmp_path / "images", tmp_path / "labels", label=2)
        assert notes_of(pairs) == ["1 of 2 cases have no label 2 and are negatives: b"]


class TestGrids:
    def cohort(self, tmp_path: Path, data: np.ndarray, affine: np.ndarray) -> list:
        put(tmp_path / "images" / "a.nii.gz", two_discs() * 100)
        put(tmp_path / "labels" / "a.nii.gz", data, affine)
        return [tmp_path / "images", tmp_path / "labels"]

    @pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
    @pytest.mark.parametrize("flips", [(0, 0, 1), (1, 1, 0)])
    def test_another_order_of_voxels_is_brought_over(self, tmp_path, axes, flips):
        codes = np.array([axes, [-1 if flip else 1 for flip in flips]]).T
        held = nib.Nifti1Image(two_discs(), AFFINE)
        turned = held.as_reoriented(codes)
        (pair,) = open_cohort(*self.cohort(tmp_path, np.asarray(turned.dataobj), turned.affine))
        assert np.array_equal(pair.load().labels, two_discs())
        assert "another order" in pair.notes[-1]

    def test_a_tenth_of_a_voxel_is_rounding(self, tmp_path):
        affine = AFFINE.copy()
        affine[:3, 3] += 0.08, 0, 0.2
        (pair,) = open_cohort(*self.cohort(tmp_path, two_discs(), affine))
        assert np.array_equal(pair.load().labels, two_discs())
        assert pair.notes == ()

    def test_more_is_refused_with_the_distance_unless_trusted(self, tmp_path):
        affine = AFFINE.copy()
        affine[0, 3] += 0.3
        folders = self.cohort(tmp_path, two_discs(), affine)
        with pytest.raises(VolumeError, match=r"up to 0\.3 mm.*--trust-voxels"):
            open_cohort(*folders)
        (pair,) = open_cohort(*folders, trusted=True)
        assert np.array_equal(pair.load().labels, two_discs())

    def test_another_shape_is_refused_even_so(self, tmp_path):
        folders = self.cohort(tmp_path, two_discs()[:30], AFFINE)
        for trusted in (False, True):
            with pytest.raises(VolumeError, match=r"shape \(30, 48, 7\)"):
                open_cohort(*folders, trusted=trusted)


class TestValues:
    @pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.int32, bool])
    def test_any_type(self, kind):
        data = np.array([[[0, 1, 1]]], kind)
        assert whole_labels(data, "a").tolist() == [[[0, 1, 1]]]
        assert whole_labels(data, "a").dtype.kind in "iu"

    def test_a_scale_in_the_header_leaves_a_trace(self):
        data = np.arange(66, dtype=np.float64).reshape(2, 3, 11) * 1.0000153
        assert np.array_equal(whole_labels(data, "a").ravel(), np.arange(66))

    def test_what_is_no_label_is_refused(self):
        with pytest.raises(VolumeError, match=r"1 label voxels such as 1\.4 .*nearest neighbours"):
            whole_labels(np.array([[[0, 1.4]]]), "a")

    def test_below_zero_is_ignored_and_said(self, tmp_path):
        data = two_discs().astype(np.int16)
        data[0] = -1
        put(tmp_path / "images" / "a.nii.gz")
        put(tmp_path / "labels" / "a.nii.gz", data)
        (pair,) = open_cohort(tmp_path / "images", tmp_path / "labels")
        assert pair.notes == ("a: 336 label voxels are below 0: ignored",)
        assert np.array_equal(pair.load().labels, data)

    def test_255_is_yes_where_there_is_one_label(self, tmp_path):
        for name, yes in (("a", 255), ("b", 1)):
            put(tmp_path / "images" / f"{name}.nii.gz")
            mask = (two_discs() == 1).astype(np.uint8) * yes
            put(tmp_path / "labels" / f"{name}.nii.gz", mask)
        pairs = open_cohort(tmp_path / "images", tmp_path / "labels", label=1)
        assert notes_of(pairs) == ["255 in the labels means yes: it is taken for label 1"]
        assert all(pair.load().labels.max() == 1 for pair in pairs)
        asked = open_cohort(tmp_path / "images", tmp_path / "labels", label=255)
        assert asked[0].load().labels.max() == 255
