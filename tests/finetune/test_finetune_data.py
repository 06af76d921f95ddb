import gzip
import json

import numpy as np
import pytest
from adapter_kit import config, disc_cases, labelled_disc, write_cohort
from orders import stored
from support import tiny_default, tiny_sam

from promptseg.datasets.cohort import Pair
from promptseg.errors import FormatError, VolumeError
from promptseg.finetune.case_loading import organ_cases
from promptseg.finetune.data import Sources, group_of, set_aside, split_cases
from promptseg.finetune.views import ViewMaker, view_matrix
from promptseg.volume import Volume, write


class TestFaults:
    """Everything wrong is said at once, before anything is trained."""

    def test_all_are_listed(self, tmp_path):
        images, labels = write_cohort(tmp_path, 6)
        (labels / "case0.nii.gz").unlink()
        _, known = labelled_disc(1)
        write(Volume(known.data * 0.4, known.affine), labels / "case1.nii.gz")
        write(Volume(known.data[:-1], known.affine), labels / "case2.nii.gz")
        write(Volume(known.data, known.affine * 2 - np.eye(4)), labels / "case3.nii.gz")
        data = (images / "case4.nii.gz").read_bytes()
        (images / "case4.nii.gz").write_bytes(data[: len(data) // 2])
        with pytest.raises((FormatError, VolumeError)) as caught:
            split_cases(Sources(images, labels), config(label_names={1: "disc"}))
        for name in ("case0", "case1", "case2", "case3", "case4"):
            assert name in str(caught.value)
        assert "case5" not in str(caught.value)

    def test_nan(self, tmp_path):
        images, labels = write_cohort(tmp_path, 2)
        image, _ = labelled_disc(0)
        data = image.data.astype(np.float32)
        data[3, 3, 3] = np.nan
        import nibabel

        nibabel.save(nibabel.Nifti1Image(data, image.affine), images / "case0.nii.gz")
        case = split_cases(Sources(images, labels), config(validation_share=0.0)).training[0]
        assert "1 of" in case.load().volume.notes[0]

    def test_negatives_and_names_of_a_dataset_are_in_the_plan(self, tmp_path):
        images, labels = write_cohort(tmp_path, 3)
        _, known = labelled_disc(1)
        write(Volume(np.zeros_like(known.data), known.affine), labels / "case1.nii.gz")
        told = {"labels": {"background": 0, "left ventricle": 1}}
        (tmp_path / "dataset.json").write_text(json.dumps(told))
        split = split_cases(Sources(images, labels), config(validation_share=0.0))
        assert split.labels == {1: "left ventricle"}
        assert split.notes == ["1 of 3 cases have no label and are negatives: case1"]

    def test_a_negative_is_looked_at_too(self, tmp_path):
        images, labels = write_cohort(tmp_path, 2)
        _, known = labelled_disc(1)
        write(Volume(np.zeros_like(known.data), known.affine), labels / "case1.nii.gz")
        striped = np.where(np.indices(known.shape)[0] // 3 % 2, 150, 60).astype(np.int16)
        write(Volume(striped, known.affine), images / "case1.nii.gz")
        recipe = config(validation_share=0.0, absent=0.9)
        split = split_cases(Sources(images, labels), recipe)
        cases = organ_cases(split.training, [1], recipe)
        maker = ViewMaker(cases, 1, tiny_default().spec, recipe)
        views = [maker[n] for n in range(40)]
        of_stripes = [float(view.image[1].diff(dim=0).abs().mean()) > 0.1 for view in views]
        shows = [bool(view.masks.any()) for view in views]
        assert 0 < sum(of_stripes) < len(views)
        assert not any(shown for shown, stripes in zip(shows, of_stripes, strict=True) if stripes)
        assert any(shows)

    def test_voxels_below_zero_are_not_learned_from(self, tmp_path):
        images, labels = write_cohort(tmp_path, 1)
        _, known = labelled_disc(0)
        data = known.data.astype(np.int16)
        data[:10] = -1
        write(Volume(data, known.affine), labels / "case0.nii.gz")
        recipe = config(validation_share=0.0)
        split = split_cases(Sources(images, labels), recipe)
        maker = ViewMaker(organ_cases(split.training, [1], recipe), 1, tiny_default().spec, recipe)
        assert maker.partial
        assert maker[0].known is not None
        assert "below 0: ignored" in split.notes[0]

    def test_label_that_is_nowhere(self, tmp_path):
        folders = write_cohort(tmp_path, 2)
        with pytest.raises(VolumeError, match="label 7"):
            split_cases(Sources(*folders), config(label_names={7: "x"}))
        with pytest.raises(VolumeError, match=r"label 7 .* present: \[1\]"):
            split_cases(Sources(*folders), config(label_names={1: "disc", 7: "x"}))

    def test_not_gzip(self, tmp_path):
        images, labels = write_cohort(tmp_path, 2)
        (labels / "case1.nii.gz").write_bytes(gzip.compress(b"no image"))
        with pytest.raises(FormatError, match="case1"):
            split_cases(Sources(images, labels), config())

    def test_overlapping_ranges(self, tmp_path):
        folders = write_cohort(tmp_path, 3)
        with pytest.raises(FormatError, match="case1"):
            split_cases(Sources(*folders), config(cases="1-2", validation_cases="2-3"))
        with pytest.raises(FormatError, match="cases is '1-2-3'"):
            split_cases(Sources(*folders), config(cases="1-2-3"))


class TestSplit:
    def test_ranges(self, tmp_path):
        split = split_cases(
            Sources(*write_cohort(tmp_path, 4)), config(cases="1-2", validation_cases="4-4")
        )
        assert [pair.name for pair in split.training] == ["case0", "case1"]
        assert [pair.name for pair in split.validation] == ["case3"]
        assert split.labels == {1: "disc"}

    def test_groups_stay_together(self, tmp_path):
        split = split_cases(Sources(*write_cohort(tmp_path, 4)), config())
        pairs = [*split.training, *split.validation]
        kept, aside = set_aside(pairs, config(group="case[01]", validation_share=0.4))
        groups = [{group_of(pair.name, "case[01]") for pair in part} for part in (kept, aside)]
        assert not groups[0] & groups[1]
        assert aside

    def test_one_case_is_never_set_aside(self, tmp_path):
        split = split_cases(Sources(*write_cohort(tmp_path, 1)), config())
        assert len(split.training) == 1
        assert not split.validation


class TestViews:
    def maker(self, spec, **options):
        training = options.pop("training", True)
        return ViewMaker(disc_cases(), 1, spec, config(**options), training)

    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_number_decides_everything(self, make):
        spec = make().spec
        one, other = self.maker(spec), self.maker(spec)
        other[3], other[1]
        for number in range(12):
            a, b = one[number], other[number]
            assert np.array_equal(a.image, b.image)
            assert np.array_equal(a.masks, b.masks)
            assert a.ambiguous == b.ambiguous
            assert repr(a.prompts) == repr(b.prompts)

    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_shapes_and_ranges(self, make):
        spec = make().spec
        maker = self.maker(spec, absent=0.4)
        shown = 0
        for number in range(40):
            view = maker[number]
            assert view.image.shape == (3, spec.input_size, spec.input_size)
            assert view.masks.shape == (1, spec.mask_size, spec.mask_size)
            assert 0 <= view.image.min() <= view.image.max() <= 1
            shown += bool(view.masks.any())
            for prompt in view.prompts:
                assert prompt.mask is None or prompt.mask.shape[-1] == spec.mask_size
                if spec.family != "promptseg":
                    assert prompt.mask is None
        assert 15 < shown < 40

    def test_grey_context_repeats_the_slice(self):
        view = self.maker(tiny_sam().spec)[0]
        assert np.array_equal(view.image[0], view.image[2])

    def test_validation_views_show_the_target_and_its_box(self):
        maker = self.maker(tiny_default().spec, training=False)
        for number in range(8):
            view = maker[number]
            inside = np.argwhere(view.masks[0].numpy() > 0.5)
            assert len(inside) > 20
            x0, y0, x1, y1 = view.prompts[0].box.numpy() / 2
            assert abs(inside[:, 1].min() - x0) < 4
            assert abs(inside[:, 0].max() + 1 - y1) < 4
            assert x1 > x0 > 0 < y0

    def test_frozen_encoder_sees_few_views_with_many_prompts(self):
        maker = self.maker(tiny_default().spec, encoder="frozen", views=3)
        views = [maker[number] for number in range(9)]
        assert {view.number for view in views} == {0, 1, 2}
        assert np.array_equal(views[1].image, views[4].image)
        assert repr(views[1].prompts) != repr(views[4].prompts)

    def test_matrix_centres_the_box(self):
        rng = np.random.default_rng(0)
        box = np.array([10, 20, 30, 60], np.float32)
        matrix = view_matrix(box, 2.0, (1.0, 2.0), 64, rng)
        x, y = matrix[:, :2] @ [31.5, 31.5] + matrix[:, 2]
        assert (x, y) == pytest.approx((19.5, 39.5), abs=1e-3)
        low, high = (matrix[:, :2] @ [p, p] + matrix[:, 2] for p in (-0.5, 63.5))
        # Columns are 2 mm, so 80 mm are 40 columns and 80 rows.
        assert (high - low) == pytest.approx((40, 80), abs=1e-3)


class TestStorageOrder:
    def test_training_sees_the_same_slices_in_every_order(self):
        image, known = labelled_disc(1)
        chosen = config(axis="axial", label_names={1: "disc"})

        def seen(codes):
            pair = Pair(codes, stored(image, codes), stored(known, codes))
            return organ_cases([pair], [1], chosen)[0]

        first = seen("RAS")
        for codes in ("LPS", "SPR", "AIL"):
            case = seen(codes)
            np.testing.assert_array_equal(case.image, first.image)
            np.testing.assert_array_equal(case.labels, first.labels)
            assert (case.spacing, case.thickness) == (first.spacing, first.thickness)


class TestMirroring:
    """`flips` swaps left and right, whichever way the file is stored."""

    ACROSS_I = np.diag([2.0, 2.0, 2.0, 1.0])
    ACROSS_J = np.array([[0, -2.0, 0, 0], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])

    def mirror(self, tmp_path, affine, axis, flips=True):
        image, known = labelled_disc(1)
        for name, data in (("images", image.data), ("labels", known.data)):
            (tmp_path / name).mkdir()
            write(Volume(data, affine), tmp_path / name / "case1.nii.gz")
        chosen = config(axis=axis, flips=flips, label_names={1: "disc"})
        pairs = split_cases(Sources(tmp_path / "images", tmp_path / "labels"), chosen).training
        return organ_cases(pairs, [1], chosen)[0].mirror

    @pytest.mark.parametrize(
        ("affine", "axis", "expected"),
        [
            (ACROSS_I, "axial", (1, -1)),
            (ACROSS_I, "coronal", (1, -1)),
            (ACROSS_I, "sagittal", (1, 1)),
            (ACROSS_J, "axial", (1, -1)),
            (ACROSS_J, "sagittal", (1, 1)),
        ],
    )
    def test_factors_of_columns_and_rows(self, tmp_path, affine, axis, expected):
        assert self.mirror(tmp_path, affine, axis) == expected

    def test_none_unless_asked_for(self, tmp_path):
        assert self.mirror(tmp_path, self.ACROSS_I, "axial", flips=False) == (1, 1)

    @pytest.mark.parametrize(("mirror", "turned"), [((1, -1), 1), ((-1, 1), 0)])
    def test_every_other_view_runs_the_other_way(self, mirror, turned):
        box = np.array([10, 20, 30, 60], np.float32)
        views = [
            view_matrix(box, 2.0, (1.0, 1.0), 64, np.random.default_rng(n), 0.0, mirror)
            for n in range(40)
        ]
        signs = np.sign([np.diag(matrix[:, :2]) for matrix in views])
        assert (signs[:, 1 - turned] == 1).all()
        assert 10 < (signs[:, turned] == -1).sum() < 30
        for matrix in views:
            assert matrix[:, :2] @ [31.5, 31.5] + matrix[:, 2] == pytest.approx(
                (19.5, 39.5), abs=1e-3
            )
