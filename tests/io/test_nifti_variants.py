"""NIfTI as other tools write it: pairs, units, flat and four-dimensional files, colours."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from promptseg.errors import FormatError, VolumeError
from promptseg.volume import Segmentation, read

DATA = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
AFFINE = np.array([[-0.7, 0, 0, 10], [0, 0.7, 0, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]])


def saved(path: Path, data: np.ndarray = DATA, unit: str = "mm", kind: type = nib.Nifti1Image):
    image = kind(data, AFFINE)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


class TestPairs:
    @pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
    @pytest.mark.parametrize("end", [".hdr", ".img"])
    def test_either_half_is_the_image(self, tmp_path, kind, end):
        nib.save(kind(DATA, AFFINE), tmp_path / "a.img")
        volume = read(tmp_path / f"a{end}")
        np.testing.assert_array_equal(volume.data, DATA)
        np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6)

    def test_compressed_halves(self, tmp_path):
        nib.save(nib.Nifti1Pair(DATA, AFFINE), tmp_path / "a.img.gz")
        np.testing.assert_array_equal(read(tmp_path / "a.hdr.gz").data, DATA)

    def test_a_half_alone_says_what_is_missing(self, tmp_path):
        nib.save(nib.Nifti1Pair(DATA, AFFINE), tmp_path / "a.img")
        (tmp_path / "a.hdr").unlink()
        with pytest.raises(FormatError, match=r"a\.hdr: put it beside"):
            read(tmp_path / "a.img")

    def test_truncated_voxels(self, tmp_path):
        nib.save(nib.Nifti1Pair(DATA, AFFINE), tmp_path / "a.img")
        half = (tmp_path / "a.img").read_bytes()[:100]
        (tmp_path / "a.img").write_bytes(half)
        with pytest.raises(FormatError, match="truncated"):
            read(tmp_path / "a.hdr")

    def test_analyze_is_read_with_a_word_on_left_and_right(self, tmp_path):
        image = nib.Spm99AnalyzeImage(DATA, None)
        image.header.set_zooms((0.7, 0.7, 2.5))
        nib.save(image, tmp_path / "a.img")
        volume = read(tmp_path / "a.hdr")
        np.testing.assert_array_equal(volume.data, DATA)
        np.testing.assert_allclose(volume.spacing, (0.7, 0.7, 2.5), rtol=1e-6)
        assert "left from right" in volume.notes[0]

    def test_masks_of_a_pair_are_saved_as_one_file(self, tmp_path):
        nib.save(nib.Nifti1Pair(DATA, AFFINE), tmp_path / "a.img")
        volume = read(tmp_path / "a.img")
        Segmentation.from_volume(volume, (DATA > 7).astype(np.uint8)).save(tmp_path / "m.nii.gz")
        np.testing.assert_allclose(nib.load(tmp_path / "m.nii.gz").affine, AFFINE, rtol=1e-6)
        with pytest.raises(FormatError, match="known format"):
            Segmentation.from_volume(volume, (DATA > 7)).save(tmp_path / "m.img")


class TestUnits:
    @pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 1e-3), ("mm", 1)])
    def test_spacing_is_millimetres_and_the_output_is_as_the_file(self, tmp_path, unit, factor):
        path = saved(tmp_path / "a.nii.gz", unit=unit)
        volume = read(path)
        np.testing.assert_allclose(volume.spacing, np.array([0.7, 0.7, 2.5]) * factor, rtol=1e-6)
        result = Segmentation.from_volume(volume, np.ones(DATA.shape, np.uint8))
        assert result.volume_ml(1) == pytest.approx(120 * 1.225 * factor**3 / 1000)
        result.save(tmp_path / "m.nii.gz")
        before, after = nib.load(path), nib.load(tmp_path / "m.nii.gz")
        np.testing.assert_allclose(after.affine, before.affine, rtol=1e-7)
        assert after.header.get_xyzt_units()[0] == unit
        for code in ("qform_code", "sform_code"):
            assert after.header[code] == before.header[code]

    def test_a_conversion_and_an_absurd_size_are_told(self, tmp_path):
        small = read(saved(tmp_path / "a.nii", unit="micron")).notes
        wide = read(saved(tmp_path / "b.nii", unit="meter")).notes
        assert small == ("the file's lengths are in micrometres: converted to millimetres",)
        assert "m wide: check the spacing and its unit" in wide[1]

    def test_a_small_volume_is_shown_in_cubic_millimetres(self, tmp_path):
        volume = read(saved(tmp_path / "a.nii", unit="micron"))
        shown = repr(Segmentation.from_volume(volume, np.ones(DATA.shape, np.uint8)))
        assert "target 1 1.47e-07 mm3" in shown


class TestShapes:
    @pytest.mark.parametrize("shape", [(6, 5, 4, 1), (6, 5, 4, 1, 1)])
    def test_axes_of_length_one_are_dropped(self, tmp_path, shape):
        volume = read(saved(tmp_path / "a.nii.gz", DATA.reshape(shape)))
        np.testing.assert_array_equal(volume.data, DATA)
        Segmentation.from_volume(volume, (DATA > 7).astype(np.uint8)).save(tmp_path / "m.nii.gz")
        assert nib.load(tmp_path / "m.nii.gz").shape == (6, 5, 4)

    def test_a_flat_file_is_one_slice(self, tmp_path):
        volume = read(saved(tmp_path / "a.nii.gz", DATA[:, :, 0]))
        np.testing.assert_array_equal(volume.data, DATA[:, :, :1])
        assert "taken as one slice" in volume.notes[0]

    def test_a_flat_file_without_a_third_spacing(self, tmp_path):
        image = nib.Nifti1Image(DATA[:, :, 0], None)
        image.header["pixdim"][1:4] = 0.5, 0.5, 0
        image.header["qform_code"], image.header["sform_code"] = 1, 0
        nib.save(image, tmp_path / "a.nii")
        np.testing.assert_allclose(read(tmp_path / "a.nii").spacing, (0.5, 0.5, 1))

    def test_several_images_are_refused_with_their_number(self, tmp_path):
        path = saved(tmp_path / "a.nii.gz", np.zeros((6, 5, 4, 3), np.int16))
        with pytest.raises(VolumeError, match="3 images in one: split it"):
            read(path)

    def test_colours_are_refused_by_name(self, tmp_path):
        colours = np.zeros((6, 5, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        with pytest.raises(VolumeError, match=r"is RGB: voxels are colours.*export the grey image"):
            read(saved(tmp_path / "a.nii.gz", colours))
        with pytest.raises(VolumeError, match=r"save the magnitude \(numpy.abs\)"):
            read(saved(tmp_path / "b.nii.gz", DATA.astype(np.complex64)))


class TestWhatTheFileSays:
    def test_no_orientation_is_told(self, tmp_path):
        image = nib.Nifti1Image(DATA, None)
        image.header["qform_code"] = image.header["sform_code"] = 0
        nib.save(image, tmp_path / "a.nii")
        assert read(tmp_path / "a.nii").notes[0].startswith("the header has no orientation")
        assert read(saved(tmp_path / "b.nii")).notes == ()

    @pytest.mark.parametrize("told", ["CT", "MR"])
    def test_the_modality_beside_it(self, tmp_path, told):
        (tmp_path / "a.json").write_text(json.dumps({"Modality": told, "EchoTime": 0.003}))
        volume = read(saved(tmp_path / "a.nii.gz"))
        assert (volume.modality, volume.guessed, volume.levels.belief) == (told, False, "told")

    @pytest.mark.parametrize("text", ["[]", "{", '{"Modality": 7}'])
    def test_another_json_beside_it_does_no_harm(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text)
        assert read(saved(tmp_path / "a.nii.gz")).levels.belief != "told"

    def test_dcm2niix_names_the_echo_time(self, tmp_path):
        image = nib.Nifti1Image(DATA, AFFINE)
        image.header["descrip"] = b"TE=2.9;Time=101010.000"
        nib.save(image, tmp_path / "a.nii")
        assert read(tmp_path / "a.nii").modality == "MR"
