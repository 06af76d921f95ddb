"""Images without labels must be of the kind of those with labels, and not among them."""

from __future__ import annotations

import numpy as np
import pytest
from adapter_kit import cohort, config, labelled_disc, write_cohort
from stroke_kit import further

from promptseg.errors import FormatError, VolumeError
from promptseg.finetune.data import Sources, split_cases
from promptseg.volume import Volume, write


def split(unlabelled, **options):
    images, labels = cohort()
    return split_cases(
        Sources(images, labels, unlabelled=unlabelled), config(objective="semi", **options)
    )


class TestKinds:
    def test_like_ones_are_taken(self):
        assert len(split(further(3)).unlabelled) == 3

    def test_another_modality(self):
        one = further(1)[0]
        with pytest.raises(VolumeError, match="unlabelled case1 is CT, the labelled cases are MR"):
            split([Volume(one.data, one.affine, "CT")])

    def test_another_grid(self):
        one = further(1)[0]
        far = np.diag([5.0, 1.0, 2.0, 1.0])
        with pytest.raises(VolumeError, match="another grid: voxels of 5 x 1 x 2 mm"):
            split([Volume(one.data, far, "MR")])

    def test_one_slice_among_volumes(self):
        one = further(1)[0]
        with pytest.raises(VolumeError, match="has one slice, the labelled cases have several"):
            split([Volume(one.data[..., 2:3], one.affine, "MR")])

    def test_no_image_at_all(self, tmp_path):
        with pytest.raises(FormatError, match="no unlabelled image: 0 found"):
            split(tmp_path)

    def test_use_without_purpose(self):
        images, labels = cohort()
        with pytest.raises(FormatError, match="makes no use of unlabelled images"):
            split_cases(Sources(images, labels, unlabelled=further()), config())

    def test_odd_batch(self):
        with pytest.raises(FormatError, match="batch is 3: half of it is unlabelled"):
            split(further(), batch=3)


class TestRoles:
    def test_labelled_and_validation_cases_are_left_out(self, tmp_path, caplog):
        images, labels = write_cohort(tmp_path, 4)
        for number in (7, 8):
            write(labelled_disc(number)[0], tmp_path / "more" / f"case{number}.nii.gz")
        for path in images.iterdir():
            (tmp_path / "more" / path.name).write_bytes(path.read_bytes())
        found = split_cases(
            Sources(images, labels, unlabelled=tmp_path / "more"),
            config(objective="semi", cases="1-2", validation_cases="4-4"),
        )
        # case2 has labels that are not used: as an image it may be learned from.
        assert [one.name for one in found.unlabelled] == ["case2", "case7", "case8"]
        assert "3 of 6 unlabelled images" in caplog.text

    def test_only_labelled_ones(self, tmp_path):
        images, labels = write_cohort(tmp_path, 3)
        with pytest.raises(FormatError, match="3 of them chosen, and those are labelled"):
            split_cases(Sources(images, labels, unlabelled=images), config(objective="semi"))

    def test_a_range(self, tmp_path):
        images, labels = write_cohort(tmp_path, 6)
        chosen = config(objective="semi", cases="1-2", validation_cases="6-6",
                        unlabelled_cases="4-6")  # fmt: skip
        found = split_cases(Sources(images, labels, unlabelled=images), chosen)
        assert [one.name for one in found.unlabelled] == ["case3", "case4"]
