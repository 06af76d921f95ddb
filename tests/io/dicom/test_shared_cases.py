"""Real series of several vendors, each with what a correct reader does (../shared/data/dicom)."""

import hashlib
import json

import numpy as np
import pytest

import promptseg as ps
from promptseg.io.dicom import SeriesChoice, list_series, read_stack

pytest.importorskip("pydicom", reason="needs the dicom extra")

READ = (
    "ct_j2k_signedness_mismatch_hitachi",
    "ct_legacy_converted_enhanced_24x38x3",
    "ct_oblique_float_slope_simpleitk",
    "ct_single_slice_feet_first_ge",
    "mr_enhanced_hyperfine",
    "mr_hitachi_4slices",
    "mr_non_square_pixels",
    "mr_sagittal_siemens_j2k",
    "mr_sagittal_siemens_jpeg",
    "mr_sagittal_siemens_jpegls",
    "mr_sagittal_siemens_rle",
    "rtstruct_mim_and_rtutils_ge_phantom",
    "seg_dcmqi_odd_size_23x38x3",
    "seg_dcmqi_odd_size_24x38x3",
    "seg_labelmap_dcmqi_sparse",
    "ts_mr_small",
    "ts_mr_small_bigendian",
    "ts_mr_small_expb",
    "ts_mr_small_implicit",
    "ts_mr_small_jp2klossless",
    "ts_mr_small_jpeg_ls_lossless",
    "ts_mr_small_padded",
    "ts_mr_small_rle",
    "ct_gantry_tilt_siemens",
)
REFUSED = {
    "broken_ct_50_files_without_pixels": "Rows and Columns are missing",
    "broken_no_preamble_ct": "no DICOM image",
    "broken_no_transfer_syntax": "says neither what it is nor what it shows",
    "broken_truncated_mr": "MR_truncated.dcm: its pixels cannot be decoded",
    "ct_all_slices_at_one_position_siemens": "all 2 slices are at one position",
    "ct_irregular_spacing_ge": r"steps of 5, 10 mm\): 1 is missing",
    "mr_rgb_secondary_capture": r"each is colour \(RGB, 3 values a pixel\)",
    "rtstruct_without_images": r"holds no image \(1 RT Structure Set\)",
    # The slices of the image are 202.5 mm apart once: its SEGs can be read, the image cannot.
    "seg_highdicom_binary_and_overlap": r"steps of 1.25, 202.5 mm\): 161 are missing",
}
CHOSEN = (
    "folder_ct_cr_dicomdir",
    "folder_scouts_ct_mr_two_dates",
    "mr_4d_fmri_ge_no_time_tags",
    "mr_enhanced_philips_fmri",
    "mr_mosaic_siemens_skyra",
    "mr_two_orientations_one_series_philips",
)


@pytest.fixture
def case(shared_data):
    def load(name):
        folder = shared_data / "dicom" / name
        return folder / "dicom", json.loads((folder / "expected.json").read_text())

    return load


def check(image, expected):
    affine = np.array(expected["affine_ras_mm"])
    assert list(image.data.shape) == expected["shape_columns_rows_slices"]
    assert np.abs(image.affine - affine).max() < 1e-3
    for probe in expected["probes"]:
        assert image.data[tuple(probe["ijk"])] == pytest.approx(probe["value"], abs=1e-5)
    assert image.data.min() == pytest.approx(expected["min"], abs=1e-4)
    assert image.data.max() == pytest.approx(expected["max"], abs=1e-4)
    if expected.get("sha256_int32_slice_row_column"):
        planes = np.ascontiguousarray(image.data.transpose(2, 1, 0), dtype="<i4")
        digest = hashlib.sha256(planes).hexdigest()
        assert digest == expected["sha256_int32_slice_row_column"]


class TestReal:
    @pytest.mark.parametrize("name", READ)
    def test_read_with_the_expected_grid_and_values(self, case, name):
        path, expected = case(name)
        check(ps.read(path), expected["volumes"][0])

    @pytest.mark.parametrize("name", sorted(REFUSED))
    def test_refused_by_name(self, case, name):
        with pytest.raises(ps.PromptsegError, match=REFUSED[name]):
            ps.read(case(name)[0])

    @pytest.mark.parametrize("name", CHOSEN)
    def test_several_volumes_are_listed_and_each_can_be_read(self, case, name):
        path, expected = case(name)
        with pytest.raises(SeriesChoice, match="holds several volumes"):
            ps.read(path)
        stacks = [
            (one, stack) for one in list_series(path).series for stack in one.stacks if stack.grid
        ]
        wanted = [v for v in expected["volumes"] if not v.get("affine_note")]
        for volume in wanted:
            uid = volume["series"]
            fits = [
                read_stack(one, stack)
                for one, stack in stacks
                if one.uid == uid and len(stack.frames) == volume["shape_columns_rows_slices"][2]
            ]
            assert any(fitting(image, volume) for image in fits), volume["index"]


def fitting(image, expected):
    try:
        check(image, expected)
    except AssertionError:
        return False
    return True
