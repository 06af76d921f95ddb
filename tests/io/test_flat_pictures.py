"""Pictures as one slice."""

import numpy as np
import pytest
from PIL import Image as Pictures

from promptseg.errors import FormatError, VolumeError
from promptseg.io.pictures import read_labels
from promptseg.volume import Segmentation, read

GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)


def drawn(path, pixels=GREY, **options):
    Pictures.fromarray(pixels).save(path, **options)
    return path


class TestRead:
    @pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF", "a.bmp"])
    def test_rows_columns_and_one_slice(self, tmp_path, name):
        volume = read(drawn(tmp_path / name))
        np.testing.assert_array_equal(volume.data[..., 0], GREY)
        assert volume.shape == (12, 10, 1)
        assert "no spacing" in volume.notes[0]

    def test_jpeg_is_nearly_the_same(self, tmp_path):
        volume = read(drawn(tmp_path / "a.jpg", quality=95))
        np.testing.assert_allclose(volume.data[..., 0], GREY, atol=6)

    @pytest.mark.parametrize(("kind", "end"), [(np.uint16, "png"), (np.float32, "tif")])
    def test_more_than_eight_bits(self, tmp_path, kind, end):
        pixels = (GREY.astype(kind) * 300).astype(kind)
        volume = read(drawn(tmp_path / f"a.{end}", pixels))
        np.testing.assert_array_equal(volume.data[..., 0], pixels)

    def test_equal_channels_are_grey_and_colours_are_named(self, tmp_path):
        same = read(drawn(tmp_path / "a.png", np.stack([GREY] * 3, -1)))
        np.testing.assert_array_equal(same.data[..., 0], GREY)
        assert len(same.notes) == 1
        colours = np.stack([GREY, GREY // 2, GREY // 3], -1)
        assert "luminance" in read(drawn(tmp_path / "b.png", colours)).notes[1]

    def test_pages_are_slices(self, tmp_path):
        pages = [Pictures.fromarray(GREY + n) for n in range(3)]
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
        volume = read(tmp_path / "a.tif")
        assert volume.shape == (12, 10, 3)
        np.testing.assert_array_equal(volume.data[..., 2], GREY + 2)
        assert "3 pages" in volume.notes[1]

    def test_pages_of_different_sizes(self, tmp_path):
        first, second = Pictures.fromarray(GREY), Pictures.fromarray(GREY[:5])
        first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
        with pytest.raises(VolumeError, match="differ in size"):
            read(tmp_path / "a.tif")

    def test_refusals(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
        with pytest.raises(FormatError, match="no picture, or damaged"):
            read(tmp_path / "a.png")
        with pytest.raises(FormatError, match="no such file"):
            read(tmp_path / "b.png")
        with pytest.raises(VolumeError, match="the limit is 10"):
            read(drawn(tmp_path / "c.png"), max_bytes=10)


class TestLabels:
    def test_a_palette_holds_labels(self, tmp_path):
        picture = Pictures.fromarray((GREY % 3).astype(np.uint8), mode="P")
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        picture.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_labels(tmp_path / "a.png").data[..., 0], GREY % 3)

    def test_jpeg_and_colours_are_refused(self, tmp_path):
        with pytest.raises(FormatError, match="JPEG does not keep labels"):
            read_labels(drawn(tmp_path / "a.jpg"))
        colours = np.stack([GREY, GREY // 2, GREY // 3], -1)
        with pytest.raises(FormatError, match="labels are colours"):
            read_labels(drawn(tmp_path / "a.png", colours))


class TestWrite:
    @pytest.mark.parametrize("end", ["png", "tif", "bmp"])
    def test_a_mask_of_one_slice(self, tmp_path, end):
        volume = read(drawn(tmp_path / "a.png"))
        mask = (volume.data > 40).astype(np.uint8)
        Segmentation.from_volume(volume, mask).save(tmp_path / f"m.{end}")
        np.testing.assert_array_equal(read(tmp_path / f"m.{end}").data, mask)

    def test_what_does_not_fit(self, tmp_path):
        volume = read(drawn(tmp_path / "a.png"))
        many = Segmentation.from_volume(volume, volume.data.astype(np.int32) * 1000)
        with pytest.raises(FormatError, match=r"whole numbers from 0 to 65535.*\.nii\.gz"):
            many.save(tmp_path / "m.png")
        with pytest.raises(FormatError, match="not a known format"):
            many.save(tmp_path / "m.jpg")
        thick = Segmentation(np.ones((3, 4, 5), np.uint8), np.eye(4))
        with pytest.raises(FormatError, match="holds one slice"):
            thick.save(tmp_path / "m.png")
