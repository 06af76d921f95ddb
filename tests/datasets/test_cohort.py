from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import case_of, two_discs, write_cohort
from PIL import Image

from promptseg.datasets.cohort import (
    case_name,
    open_cohort,
    present_labels,
    read_labels,
    whole_labels,
)
from promptseg.errors import FormatError, VolumeError
from promptseg.volume import Segmentation, write


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[Path, Path]:
    return write_cohort(tmp_path)


def save_labels(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    write(Segmentation(data, np.diag([1.0, 1, 3, 1]) if affine is None else affine), path)


class TestPairs:
    def test_matches_by_name_in_sorted_order(self, cohort):
        pairs = open_cohort(*cohort)
        assert [pair.name for pair in pairs] == ["p0", "p1", "p2"]
        case = pairs[1].load()
        assert np.array_equal(case.labels, two_discs(1))
        assert case.volume.shape == case.labels.shape

    def test_suffixes_may_differ(self, cohort):
        images, labels = cohort
        case = open_cohort(images, labels)[0].load()
        (labels / "p0.nii.gz").unlink()
        save_labels(labels / "p0.nii", case.labels)
        assert np.array_equal(open_cohort(images, labels)[0].load().labels, case.labels)

    def test_ignores_hidden_and_foreign_files(self, cohort):
        images, labels = cohort
        (images / "notes.txt").write_text("x")
        (images / ".p9.nii.gz").write_text("x")
        assert len(open_cohort(images, labels)) == 3

    @pytest.mark.parametrize(("cases", "names"), [(2, "p0 p1"), ((2, 3), "p1 p2"), ((3, 3), "p2")])
    def test_cases_are_counted_from_one(self, cohort, cases, names):
        assert [pair.name for pair in open_cohort(*cohort, cases=cases)] == names.split()

    @pytest.mark.parametrize("cases", [0, (0, 2), (3, 2)])
    def test_a_bad_range_is_refused(self, cohort, cases):
        with pytest.raises(FormatError, match="cases"):
            open_cohort(*cohort, cases=cases)

    def test_volumes_in_memory(self):
        cases = [case_of(two_discs(n)) for n in range(2)]
        labels = [Segmentation(c.labels, c.volume.affine) for c in cases]
        pairs = open_cohort([c.volume for c in cases], labels)
        assert [pair.name for pair in pairs] == ["case1", "case2"]
        assert np.array_equal(pairs[1].load().labels, cases[1].labels)

    def test_lists_of_files_with_the_same_name_stay_apart(self, cohort):
        images, labels = cohort
        pairs = open_cohort([images / "p0.nii.gz"] * 2, [labels / "p0.nii.gz"] * 2)
        assert [pair.name for pair in pairs] == ["1_p0", "2_p0"]

    def test_lists_of_unequal_length(self, cohort):
        with pytest.raises(FormatError, match="2 images but 1 labels"):
            open_cohort([cohort[0] / "p0.nii.gz"] * 2, [cohort[1] / "p0.nii.gz"])

    def test_name_of_a_case(self):
        assert case_name(Path("a/b.c.nii.gz")) == "b.c"
        assert case_name(Path("x.PNG")) == "x"


class TestFaults:
    def test_every_fault_is_listed_in_one_line(self, cohort):
        images, labels = cohort
        affine = np.diag([2.0, 1, 3, 1])
        save_labels(labels / "p0.nii.gz", np.ones((4, 4, 4), np.uint8))
        save_labels(labels / "p1.nii.gz", two_discs(1), affine)
        (images / "p2.nii.gz").unlink()
        save_labels(labels / "extra.nii.gz", two_discs())
        with pytest.raises(FormatError) as caught:
            open_cohort(images, labels)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith("4 faults in the cases: ")
        for part in ("extra has no image", "p2 has no image", "p0.nii.gz: the labels have shape",
                     "p1.nii.gz: the labels lie up to 39.0 mm beside"):  # fmt: skip
            assert part in message

    def test_a_label_that_no_case_has_names_the_present_ones(self, cohort):
        with pytest.raises(VolumeError, match=r"none of the 3 cases has label 7, present \[1, 2\]"):
            open_cohort(*cohort, label=7)

    def test_no_label_at_all(self, cohort):
        for name in ("p0", "p1", "p2"):
            save_labels(cohort[1] / f"{name}.nii.gz", np.zeros((40, 48, 7), np.uint8))
        with pytest.raises(VolumeError, match="none of the 3 cases has any label"):
            open_cohort(*cohort)

    def test_only_chosen_cases_are_read(self, cohort):
        (cohort[1] / "p2.nii.gz").write_bytes(b"nothing")
        assert len(open_cohort(*cohort, cases=2)) == 2

    def test_damaged_file(self, cohort):
        (cohort[0] / "p1.nii.gz").write_bytes(b"\x1f\x8b nothing")
        with pytest.raises(FormatError, match="p1"):
            open_cohort(*cohort)

    def test_the_same_name_twice(self, cohort):
        save_labels(cohort[1] / "p0.nii", two_discs())
        with pytest.raises(FormatError, match="p0 is there twice"):
            open_cohort(*cohort)

    def test_missing_and_empty_folders(self, tmp_path, cohort):
        with pytest.raises(FormatError, match="no such folder"):
            open_cohort(tmp_path / "absent", cohort[1])
        (tmp_path / "empty").mkdir()
        with pytest.raises(FormatError, match="no case"):
            open_cohort(tmp_path / "empty", tmp_path / "empty")


class TestPictures:
    def save(self, path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
        path.parent.mkdir(exist_ok=True)
        picture = Image.fromarray(pixels)
        (picture if mode is None else picture.convert(mode)).save(path)

    def test_become_one_slice_with_unit_spacing(self, tmp_path):
        grey = np.arange(30 * 20, dtype=np.uint8).reshape(30, 20)
        mask = (grey > 100).astype(np.uint8) * 255
        self.save(tmp_path / "images/a.png", grey)
        self.save(tmp_path / "masks/a.png", mask)
        case = open_cohort(tmp_path / "images", tmp_path / "masks")[0].load()
        assert case.volume.shape == (30, 20, 1)
        assert case.volume.spacing.tolist() == [1, 1, 1]
        assert np.array_equal(case.volume.data[..., 0], grey)
        assert present_labels(case.labels) == [1]

    def test_a_folder_a_case(self, tmp_path):
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            self.save(tmp_path / name / "image.png", np.full((8, 9), 3, np.uint8))
            self.save(tmp_path / name / "mask.png", np.eye(8, 9, dtype=np.uint8))
            self.save(tmp_path / name / "other.png", np.eye(8, 9, dtype=np.uint8))
        assert [p.name for p in open_cohort(tmp_path, tmp_path)] == ["a", "b"]

    def test_colours_become_grey(self, tmp_path):
        colours = np.zeros((6, 6, 3), np.uint8)
        colours[..., 1] = 200
        self.save(tmp_path / "images/a.jpg", colours)
        self.save(tmp_path / "masks/a.png", np.eye(6, dtype=np.uint8))
        data = open_cohort(tmp_path / "images", tmp_path / "masks")[0].load().volume.data
        assert data.shape == (6, 6, 1)
        assert 100 < data.mean() < 130

    def test_palette_labels_are_indices(self, tmp_path):
        picture = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8), "P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        picture.save(tmp_path / "m.png")
        assert read_labels(tmp_path / "m.png").data[..., 0].tolist() == [[0, 1], [2, 2]]

    def test_equal_channels_are_accepted_and_colours_refused(self, tmp_path):
        mask = np.eye(5, dtype=np.uint8)
        self.save(tmp_path / "grey.png", np.stack([mask] * 3, -1))
        assert np.array_equal(read_labels(tmp_path / "grey.png").data[..., 0], mask)
        self.save(tmp_path / "red.png", np.stack([mask, mask * 0, mask], -1))
        with pytest.raises(FormatError, match="colours"):
            read_labels(tmp_path / "red.png")

    def test_jpeg_labels_are_refused(self, tmp_path):
        self.save(tmp_path / "m.jpg", np.eye(5, dtype=np.uint8))
        with pytest.raises(FormatError, match="JPEG"):
            read_labels(tmp_path / "m.jpg")

    def test_no_picture(self, tmp_path):
        (tmp_path / "m.png").write_bytes(b"nothing")
        with pytest.raises(FormatError, match=r"m\.png"):
            read_labels(tmp_path / "m.png")


class TestWholeLabels:
    def test_floats_that_are_whole(self):
        found = whole_labels(np.array([0.0, 2.0]), "x")
        assert found.dtype.kind in "iu"
        assert found.tolist() == [0, 2]

    def test_below_zero_is_to_be_ignored(self):
        assert whole_labels(np.array([-3, 2]), "x").tolist() == [-1, 2]

    def test_others_are_refused(self):
        with pytest.raises(VolumeError, match="no whole numbers"):
            whole_labels(np.array([0.5, 1]), "x")
