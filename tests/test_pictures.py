from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptseg.errors import FormatError, VolumeError
from promptseg.pictures import KNOWN, PALETTE, PROMPT, overlay_figure
from promptseg.prompts import Box, Point
from promptseg.volume import Segmentation, Volume

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


def scene(affine: np.ndarray = LPS) -> tuple[Volume, Segmentation, np.ndarray]:
    data = np.full((60, 50, 20), -100, dtype=np.int16)
    mask = np.zeros(data.shape, dtype=np.uint8)
    mask[15:30, 20:35, 5:15] = 1
    volume = Volume(data, affine, modality="CT")
    return volume, Segmentation.from_volume(volume, mask), np.roll(mask, 3, axis=0)


def near(path: Path, colour: tuple[int, int, int]) -> np.ndarray:
    pixels = np.asarray(Image.open(path)).astype(int)
    return np.abs(pixels - colour).max(axis=2) < 40


class TestContent:
    def test_contour_known_mask_and_prompt_are_drawn(self, tmp_path: Path) -> None:
        volume, result, known = scene()
        path = tmp_path / "sheet.png"
        bare = tmp_path / "bare.png"
        box = Box((14, 19, 9), (31, 36, 10))
        overlay_figure(volume, result, path, axis=2, reference=known, prompts=[box], count=4)
        overlay_figure(volume, result, bare, axis=2, count=4)
        for colour, least in ((PALETTE[0], 400), (KNOWN, 200), (PROMPT, 100)):
            assert near(path, colour).sum() > least
        assert near(bare, KNOWN).sum() == 0

    def test_empty_mask_shows_whole_slices(self, tmp_path: Path) -> None:
        volume, _, _ = scene()
        empty = Segmentation.from_volume(volume, np.zeros(volume.shape, np.uint8))
        overlay_figure(volume, empty, tmp_path / "empty.png", count=4, columns=2)
        assert Image.open(tmp_path / "empty.png").width == 2 * (250 + 8) + 8

    def test_prompted_slice_is_among_those_shown(self, tmp_path: Path) -> None:
        volume, result, _ = scene()
        click = Point((20, 25, 7))
        overlay_figure(volume, result, tmp_path / "a.png", axis=2, prompts=[click], count=2)
        assert near(tmp_path / "a.png", (90, 220, 110)).sum() > 20

    def test_proportions_are_physical(self, tmp_path: Path) -> None:
        volume, result, _ = scene(np.diag([-1.0, -3.0, 2.0, 1.0]))
        overlay_figure(volume, result, tmp_path / "a.png", axis=2, count=1, tile=300)
        width, height = Image.open(tmp_path / "a.png").size
        assert height > 2 * (width - 16)

    @pytest.mark.parametrize("signs", [(-1, -1), (1, 1), (-1, 1), (1, -1)])
    def test_right_is_on_the_left_and_front_is_up(
        self, tmp_path: Path, signs: tuple[int, int]
    ) -> None:
        volume = Volume(np.full((80, 80, 3), -900, np.int16), np.diag([*signs, 4.0, 1.0]), "CT")
        world = volume.to_world(np.argwhere(np.ones(volume.shape)))
        right, front = world[:, 0], world[:, 1]
        corner = (right > np.quantile(right, 0.75)) & (front > np.quantile(front, 0.75))
        mask = corner.reshape(volume.shape).astype(np.uint8)
        path = tmp_path / "a.png"
        reference = np.ones(volume.shape, np.uint8)
        overlay_figure(
            volume, Segmentation.from_volume(volume, mask), path, axis=2, reference=reference,
            count=1,
        )  # fmt: skip
        tile = near(path, PALETTE[0])[-281:-31]
        rows, cols = np.nonzero(tile)
        assert rows.max() < 100
        assert cols.max() < 100

    @pytest.mark.parametrize("axis", [0, 1, 2, None])
    def test_every_axis(self, tmp_path: Path, axis: int | None) -> None:
        volume, result, known = scene()
        overlay_figure(volume, result, tmp_path / "a.png", axis=axis, reference=known, count=2)
        assert near(tmp_path / "a.png", PALETTE[0]).any()


class TestErrors:
    def test_grids_must_match(self, tmp_path: Path) -> None:
        volume, result, known = scene()
        other = Volume(volume.data[:-1], volume.affine)
        with pytest.raises(VolumeError, match="labels have shape"):
            overlay_figure(other, result, tmp_path / "a.png")
        with pytest.raises(VolumeError, match="known mask"):
            overlay_figure(volume, result, tmp_path / "a.png", reference=known[:-1])
        assert not list(tmp_path.iterdir())

    def test_unwritable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        volume, result, _ = scene()
        with pytest.raises(FormatError, match="cannot be written"):
            overlay_figure(volume, result, tmp_path / "file" / "a.png", count=1)
