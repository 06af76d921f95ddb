"""NRRD, .seg.nrrd and MetaImage there and back, and as their own programs read them."""

import gzip

import numpy as np
import pytest

import promptseg as ps
from promptseg.io import Image, read_image, write_image
from promptseg.io.provenance import read_provenance

sitk = pytest.importorskip("SimpleITK", reason="needs the dicom extra")
pytest.importorskip("nrrd", reason="needs the dicom extra")

SHEARED = np.array([[0.8, 0.1, 0, 5], [-0.1, 0.8, 0.2, -7], [0, -0.2, 2, 11], [0, 0, 0, 1.0]])


def turned():
    q, _ = np.linalg.qr(SHEARED[:3, :3])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = q * (0.8, 0.7, 2.0), (5, -7, 11)
    return affine


def values(dtype):
    return (np.random.default_rng(0).random((7, 6, 5)) * 100).astype(dtype)


class TestImages:
    @pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
    @pytest.mark.parametrize(
        ("name", "affine"), [("x.nrrd", SHEARED), ("x.nrrd", turned()), ("x.mha", turned())]
    )
    def test_values_and_affine_return(self, tmp_path, name, affine, dtype):
        write_image(Image(values(dtype), affine), tmp_path / name)
        found = read_image(tmp_path / name)
        assert np.array_equal(found.data, values(dtype))
        assert np.abs(found.affine - affine).max() < 1e-6

    @pytest.mark.parametrize("name", ["x.nrrd", "x.mha"])
    def test_simpleitk_reads_the_same(self, tmp_path, name):
        write_image(Image(values(np.int16), turned()), tmp_path / name)
        image = sitk.ReadImage(str(tmp_path / name))
        assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), values(np.int16))
        point = np.array(image.TransformIndexToPhysicalPoint((2, 3, 4))) * (-1, -1, 1)
        assert point == pytest.approx((turned() @ (2, 3, 4, 1))[:3], abs=1e-4)

    def test_a_sheared_grid_is_refused_by_metaimage(self, tmp_path):
        with pytest.raises(ps.FormatError, match="no sheared grids"):
            write_image(Image(values(np.int16), SHEARED), tmp_path / "x.mha")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["brain1_image.nrrd", "prostate_phantom_subvolume.nrrd"])
    def test_real_files_as_simpleitk_reads_them(self, shared_data, name):
        path = shared_data / "nrrd" / name
        found, image = ps.read(path), sitk.ReadImage(str(path))
        assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), found.data)
        assert found.spacing == pytest.approx(image.GetSpacing(), rel=1e-5)
        origin = np.array(image.GetOrigin()) * (-1, -1, 1)
        assert found.affine[:3, 3] == pytest.approx(origin, abs=1e-3)


class TestSegNrrd:
    @pytest.fixture
    def both(self):
        large, small = np.zeros((7, 6, 5), bool), np.zeros((7, 6, 5), bool)
        large[1:5, 1:5, 1:4], small[3:6, 3:6, 2:5] = True, True
        data = np.where(small, 2, large).astype(np.uint8)
        names = {1: "liver", 2: "left kidney"}
        return ps.Segmentation(data, turned(), labels=names, layers={1: large, 2: small})

    def test_overlapping_segments_return(self, both, tmp_path):
        both.save(tmp_path / "x.seg.nrrd")
        found = read_image(tmp_path / "x.seg.nrrd")
        assert found.names == {1: "liver", 2: "left kidney"}
        assert np.array_equal(found.mask(1), both.mask(1))
        assert np.array_equal(found.mask(2), both.mask(2))

    def test_slicers_own_reader(self, both, tmp_path):
        slicerio = pytest.importorskip("slicerio", reason="needs the dicom extra")
        both.save(tmp_path / "x.seg.nrrd")
        found = slicerio.read_segmentation(str(tmp_path / "x.seg.nrrd"))
        assert [segment["name"] for segment in found["segments"]] == ["liver", "left kidney"]
        kidney = found["segments"][1]
        assert kidney["terminology"]["type"] == ["SCT", "64033007", "Kidney"]
        assert kidney["terminology"]["typeModifier"] == ["SCT", "7771000", "Left"]
        layer = found["voxels"][kidney["layer"]]
        assert np.array_equal(layer == kidney["labelValue"], both.mask(2))

    def test_a_file_of_slicer(self):
        slicerio = pytest.importorskip("slicerio", reason="needs the dicom extra")
        from pathlib import Path

        folder = Path(slicerio.__file__).parent / "data"
        if not (folder / "SegmentationOverlapping.seg.nrrd").is_file():
            pytest.skip("this slicerio ships no sample")
        found = read_image(folder / "SegmentationOverlapping.seg.nrrd")
        assert found.names[1] == "ribs"
        assert found.names[8] == "overlapping sphere"
        assert sorted(found.layers) == [1, 5, 6, 7, 8]

    def test_a_segmentation_that_is_cut_to_its_segments_lands_in_its_place(self, both, tmp_path):
        offset = turned()
        offset[:3, 3] += offset[:3, :3] @ (1, 1, 1)
        cut = ps.Segmentation(both.data[1:, 1:, 1:], offset, labels={1: "liver"})
        cut.save(tmp_path / "x.seg.nrrd")
        volume = ps.Volume(np.zeros((7, 6, 5), np.int16), turned())
        assert np.array_equal(ps.read_labels(tmp_path / "x.seg.nrrd", volume).data, both.data)


class TestProvenance:
    @pytest.mark.parametrize("name", ["x.nrrd", "x.seg.nrrd", "x.mha"])
    def test_the_file_alone_says_what_made_it(self, tmp_path, name):
        report = {"model": {"name": "default", "sha256": "0" * 64}}
        made = ps.Segmentation(values(np.uint8) // 90, turned(), report=report)
        made.save(tmp_path / name)
        assert read_provenance(tmp_path / name)["model"]["name"] == "default"


class TestDamage:
    @pytest.fixture
    def nrrd(self, tmp_path):
        write_image(Image(values(np.int16), turned()), tmp_path / "x.nrrd")
        return tmp_path / "x.nrrd"

    def test_truncated(self, nrrd):
        content = nrrd.read_bytes()
        nrrd.write_bytes(content[:-40])
        with pytest.raises(ps.FormatError, match=r"truncated, \d+ of 420 bytes|damaged gzip"):
            ps.read(nrrd)

    def test_sizes_that_the_data_cannot_hold(self, nrrd):
        nrrd.write_bytes(nrrd.read_bytes().replace(b"sizes: 7 6 5", b"sizes: 7000 600 5"))
        with pytest.raises(ps.FormatError, match="the data cannot hold 42000000 bytes"):
            ps.read(nrrd)

    def test_a_data_file_elsewhere(self, tmp_path):
        secret = tmp_path / "secret.raw"
        secret.write_bytes(bytes(420))
        folder = tmp_path / "case"
        folder.mkdir()
        head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 7 6 5\nencoding: raw\nendian: little\n"
        (folder / "x.nhdr").write_text(head + "data file: ../secret.raw\n")
        with pytest.raises(ps.FormatError, match="not a file beside it: refused"):
            ps.read(folder / "x.nhdr")
        meta = "ObjectType = Image\nNDims = 3\nDimSize = 7 6 5\nElementType = MET_SHORT\n"
        (folder / "x.mhd").write_text(meta + "ElementDataFile = ../secret.raw\n")
        with pytest.raises(ps.FormatError, match="not beside it: refused"):
            ps.read(folder / "x.mhd")

    @pytest.mark.parametrize("name", ["x.nrrd", "x.mha", "x.seg.nrrd"])
    def test_another_file_under_the_name(self, tmp_path, name):
        (tmp_path / name).write_bytes(gzip.compress(b"something else"))
        with pytest.raises(ps.FormatError, match="not a"):
            ps.read(tmp_path / name)

    def test_a_mha_that_is_too_large_or_truncated(self, tmp_path):
        write_image(Image(values(np.int16), turned()), tmp_path / "x.mha")
        with pytest.raises(ps.VolumeError, match="more than the limit of 100 bytes"):
            ps.read(tmp_path / "x.mha", max_bytes=100)
        content = (tmp_path / "x.mha").read_bytes()
        (tmp_path / "x.mha").write_bytes(content[:-100])
        with pytest.raises(ps.FormatError, match="damaged or truncated"):
            ps.read(tmp_path / "x.mha")
