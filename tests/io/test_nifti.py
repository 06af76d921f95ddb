import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from strategies import affines, shapes

from promptseg.errors import FormatError, PromptsegError, VolumeError
from promptseg.volume import Segmentation, Volume, read, write

RNG = np.random.default_rng(3)
DATA = RNG.integers(-1000, 1000, (7, 6, 5)).astype(np.int16)
AFFINE = np.diag([-0.7, 0.7, 2.5, 1.0])
BAD = (VolumeError, FormatError)

in_a_folder = settings(
    max_examples=48, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def save(path: Path, data: np.ndarray = DATA, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def patched(path: Path, offset: int, values: np.ndarray) -> Path:
    """Overwrite header bytes of an uncompressed file."""
    content = bytearray(path.read_bytes())
    content[offset : offset + values.nbytes] = values.tobytes()
    path.write_bytes(content)
    return path


def refused(path: Path, words: str) -> None:
    with pytest.raises(BAD, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(str(path)) == 1


class TestRead:
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
    @pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
    def test_as_nibabel_reads_it(self, tmp_path: Path, name: str, kind: type) -> None:
        path = save(tmp_path / name, DATA.astype(kind))
        image, volume = nib.load(path), read(path)
        np.testing.assert_array_equal(volume.data, np.asanyarray(image.dataobj))
        assert volume.data.dtype == kind
        np.testing.assert_array_equal(volume.affine, image.affine)
        assert volume.source == path

    def test_slope_and_intercept(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(DATA, AFFINE)
        image.header.set_slope_inter(0.37, -1024)
        nib.save(image, tmp_path / "a.nii")
        patched(tmp_path / "a.nii", 112, np.array([0.37, -1024], "<f4"))
        expected = np.asanyarray(nib.load(tmp_path / "a.nii").dataobj)
        volume = read(tmp_path / "a.nii")
        np.testing.assert_array_equal(volume.data, expected)
        assert volume.data.min() < -1024

    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_both_versions_and_byte_orders(self, tmp_path: Path, kind: type, order: str) -> None:
        image = kind(DATA, AFFINE, kind.header_class(endianness=order))
        nib.save(image, tmp_path / "a.nii")
        volume = read(tmp_path / "a.nii")
        np.testing.assert_array_equal(volume.data, DATA)
        np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-6)
        assert volume.data.dtype.isnative

    def test_quaternion_only(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(DATA, None)
        image.header.set_qform(AFFINE, code=1)
        nib.save(image, tmp_path / "a.nii.gz")
        np.testing.assert_allclose(read(tmp_path / "a.nii.gz").affine, AFFINE, atol=1e-6)

    def test_no_output_on_stderr(self, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
        read(patched(save(tmp_path / "a.nii"), 76, np.array([0], "<f4")))
        assert capfd.readouterr() == ("", "")


class TestBadFiles:
    def test_missing(self, tmp_path: Path) -> None:
        for name in ("no.nii.gz", "no.jpeg", "long" * 200 + ".nii", "nul\0.nii", "no"):
            refused(tmp_path / name, "no such file")

    def test_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii").mkdir()
        refused(tmp_path / "a.nii", "folder")
        refused(tmp_path, "folder")

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_empty(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        refused(tmp_path / name, "empty")

    def test_text_renamed(self, tmp_path: Path) -> None:
        for name, words in (("a.nii.gz", "not gzip"), ("a.nii", "not a NIfTI")):
            (tmp_path / name).write_text("patient,age\n" * 100)
            refused(tmp_path / name, words)

    def test_gzipped_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"patient,age\n" * 100))
        refused(tmp_path / "a.nii.gz", "not a NIfTI")

    def test_compressed_under_the_wrong_name(self, tmp_path: Path) -> None:
        save(tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
        refused(tmp_path / "a.nii", "rename")
        save(tmp_path / "b.nii").rename(tmp_path / "b.nii.gz")
        refused(tmp_path / "b.nii.gz", "not gzip")

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_truncated_anywhere(self, tmp_path: Path, name: str) -> None:
        content = save(tmp_path / name).read_bytes()
        for length in {1, 3, 9, 100, 347, 351, len(content) // 2, len(content) - 1}:
            (tmp_path / name).write_bytes(content[:length])
            refused(tmp_path / name, "truncated|not a NIfTI|not gzip|damaged")

    def test_flipped_bit_in_gzip(self, tmp_path: Path) -> None:
        content = bytearray(save(tmp_path / "a.nii.gz").read_bytes())
        content[-6] ^= 1
        (tmp_path / "a.nii.gz").write_bytes(content)
        refused(tmp_path / "a.nii.gz", "damaged")

    @pytest.mark.parametrize("shape", [(8,), (4, 5, 6, 3), (4, 5, 6, 1, 3)])
    def test_not_3d(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        refused(save(tmp_path / "a.nii.gz", np.zeros(shape, np.uint8)), f"{len(shape)}D")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan_voxels(self, tmp_path: Path, value: float) -> None:
        data = DATA.astype(np.float32)
        data[2, 2, 2] = value
        volume = read(save(tmp_path / "a.nii.gz", data))
        data[2, 2, 2] = min(0, DATA.min())
        np.testing.assert_array_equal(volume.data, data)
        assert "1 of 210 voxels are NaN or infinite" in volume.notes[-1]

    @pytest.mark.parametrize("value", [0, np.nan, np.inf])
    def test_spacing(self, tmp_path: Path, value: float) -> None:
        path = patched(save(tmp_path / "a.nii"), 84, np.array([value], "<f4"))
        refused(path, "spacing")

    def test_singular_sform(self, tmp_path: Path) -> None:
        path = patched(save(tmp_path / "a.nii"), 280, np.zeros(12, "<f4"))
        refused(path, "spacing")

    def test_impossible_rotation(self, tmp_path: Path) -> None:
        path = patched(save(tmp_path / "a.nii"), 252, np.array([1, 0], "<i2"))
        refused(patched(path, 256, np.array([9, 9, 9], "<f4")), "orientation")

    def test_infinite_intercept(self, tmp_path: Path) -> None:
        refused(patched(save(tmp_path / "a.nii"), 112, np.array([2, np.inf], "<f4")), "damaged")

    @pytest.mark.parametrize("kind", ["c8", [("R", "u1"), ("G", "u1"), ("B", "u1")]])
    def test_not_scalar(self, tmp_path: Path, kind: object) -> None:
        refused(save(tmp_path / "a.nii.gz", np.zeros((3, 3, 3), kind)), "not real numbers")

    @pytest.mark.parametrize("dims", [[-1] * 8, [0] * 8, [9, 4, 4, 4, 1, 1, 1, 1], [3, 4, -4, 4]])
    def test_dimensions(self, tmp_path: Path, dims: list[int]) -> None:
        refused(patched(save(tmp_path / "a.nii"), 40, np.array(dims, "<i2")), "dimensions")

    def test_header_pair(self, tmp_path: Path) -> None:
        refused(patched(save(tmp_path / "a.nii"), 344, np.frombuffer(b"ni1\0", "u1")), "magic")

    def test_not_readable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(tmp_path / "a.nii")

        def denied(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
        refused(path, "Permission denied")

    def test_memory_runs_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = save(tmp_path / "a.nii")

        def full(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(np, "empty", full)
        refused(path, "memory")

    def test_unknown_suffix(self, tmp_path: Path) -> None:
        (tmp_path / "a.xyz").write_bytes(b"x")
        refused(tmp_path / "a.xyz", r"\.nii\.gz")


class TestTerabytes:
    huge = np.array([3, 32767, 32767, 32767], "<i2")

    def test_plain(self, tmp_path: Path) -> None:
        refused(patched(save(tmp_path / "a.nii"), 40, self.huge), "the file holds")

    def test_compressed(self, tmp_path: Path) -> None:
        content = patched(save(tmp_path / "a.nii"), 40, self.huge).read_bytes()
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
        refused(tmp_path / "a.nii.gz", "the file holds")

    def test_nifti2(self, tmp_path: Path) -> None:
        nib.save(nib.Nifti2Image(DATA, AFFINE), tmp_path / "a.nii")
        path = patched(tmp_path / "a.nii", 16, np.array([3, 2**40, 2**20, 2**20], "<i8"))
        refused(path, "the file holds")

    def test_a_compressed_bomb_stops_at_the_limit(self, tmp_path: Path) -> None:
        with pytest.raises(VolumeError, match="limit is 4096"):
            read(save(tmp_path / "a.nii.gz", np.zeros((40, 40, 40), np.int16)), max_bytes=4096)


class TestHeaderFuzz:
    @pytest.mark.parametrize("compressed", [False, True])
    def test_only_our_errors(self, tmp_path: Path, compressed: bool) -> None:
        whole = save(tmp_path / "a.nii").read_bytes()
        path = tmp_path / ("b.nii.gz" if compressed else "b.nii")
        rng, outcomes = np.random.default_rng(11), []
        for _ in range(400):
            content = bytearray(whole)
            for place in rng.integers(0, 348, rng.integers(1, 6)):
                content[place] = rng.integers(256)
            path.write_bytes(gzip.compress(content, 1) if compressed else content)
            try:
                read(path)
            except PromptsegError as error:
                outcomes.append(type(error))
            else:
                outcomes.append(None)
        assert {None, FormatError, VolumeError} == set(outcomes)


class TestWrite:
    @given(shape=shapes, affine=affines())
    @in_a_folder
    def test_mask_in_is_mask_out(
        self, tmp_path: Path, shape: tuple[int, int, int], affine: np.ndarray
    ) -> None:
        image = save(tmp_path / "image.nii", np.ones(shape, np.int16), affine)
        volume = read(image)
        labels = np.random.default_rng(0).integers(0, 3, shape).astype(np.int64)
        Segmentation.from_volume(volume, labels).save(tmp_path / "mask.nii.gz")
        again = read(tmp_path / "mask.nii.gz")
        np.testing.assert_array_equal(again.data, labels)
        np.testing.assert_array_equal(again.affine, volume.affine)

    @given(affine=affines())
    @in_a_folder
    def test_grid_without_a_header(self, tmp_path: Path, affine: np.ndarray) -> None:
        volume = Volume(DATA, affine)
        write(volume, tmp_path / "a.nii.gz")
        again = read(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(again.data, DATA)
        np.testing.assert_allclose(again.affine, affine, rtol=1e-5, atol=1e-4)

    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 1), (4, 3)])
    def test_codes_and_units(self, tmp_path: Path, kind: type, codes: tuple[int, int]) -> None:
        image = kind(DATA.astype(np.float32), AFFINE)
        image.header.set_sform(AFFINE, codes[0])
        image.header.set_qform(AFFINE, codes[1])
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_slope_inter(2, 1)
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe" * 40))
        nib.save(image, tmp_path / "image.nii.gz")
        volume = read(tmp_path / "image.nii.gz")
        Segmentation.from_volume(volume, (DATA > 0).astype(np.uint8)).save(tmp_path / "m.nii.gz")
        mask = nib.load(tmp_path / "m.nii.gz")
        assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == codes
        assert mask.header.get_xyzt_units() == ("mm", "sec")
        assert b"Jane" not in b"".join(e.get_content() for e in mask.header.extensions)
        assert type(mask) is kind
        np.testing.assert_array_equal(mask.affine, volume.affine)
        np.testing.assert_array_equal(np.asanyarray(mask.dataobj), DATA > 0)

    @pytest.mark.parametrize(
        ("highest", "kind"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.int32)]
    )
    def test_smallest_type(self, tmp_path: Path, highest: int, kind: type) -> None:
        labels = np.zeros((3, 3, 3), np.int64)
        labels[1, 1, 1] = highest
        Segmentation(labels, AFFINE).save(tmp_path / "a.nii")
        again = read(tmp_path / "a.nii").data
        assert again.dtype == kind
        np.testing.assert_array_equal(again, labels)

    def test_floats(self, tmp_path: Path) -> None:
        values = RNG.normal(size=(3, 4, 5))
        write(Volume(values, AFFINE), tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(read(tmp_path / "a.nii.gz").data, values.astype(np.float32))

    def test_same_bytes_every_time(self, tmp_path: Path) -> None:
        result = Segmentation(np.ones((3, 3, 3), np.uint8), AFFINE)
        result.save(tmp_path / "a.nii.gz")
        result.save(tmp_path / "b.nii.gz")
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()

    def test_format_by_name_or_suffix(self, tmp_path: Path) -> None:
        result = Segmentation(np.ones((3, 3, 3), np.uint8), AFFINE)
        result.save(tmp_path / "mask.out", format="nifti")
        assert nib.Nifti1Image.from_bytes((tmp_path / "mask.out").read_bytes()).shape == (3, 3, 3)
        with pytest.raises(FormatError, match="nifti"):
            result.save(tmp_path / "a.nii", format="stl")
        with pytest.raises(FormatError, match=r"\.nii\.gz"):
            result.save(tmp_path / "a.stl")
        assert [path.name for path in tmp_path.iterdir()] == ["mask.out"]

    def test_unwritable(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FormatError, match="cannot be written"):
            Segmentation(np.ones((3, 3, 3), np.uint8), AFFINE).save(tmp_path / "file" / "a.nii")


def test_left_atrium_round_trip(shared_data: Path, tmp_path: Path) -> None:
    image = sorted((shared_data / "left_atrium" / "images").glob("*.nii.gz"))[0]
    volume, label = read(image), read(shared_data / "left_atrium" / "labels" / image.name)
    Segmentation.from_volume(volume, label.data).save(tmp_path / "mask.nii.gz")
    mask, original = nib.load(tmp_path / "mask.nii.gz"), nib.load(image)
    np.testing.assert_array_equal(np.asanyarray(mask.dataobj), label.data)
    np.testing.assert_array_equal(mask.affine, original.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(mask.header[field], original.header[field])
