import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptseg.errors import FormatError, VolumeError
from promptseg.prompts.types import Box, Point, Scribble
from promptseg.report.visualization.pictures import (
    INSIDE,
    KNOWN,
    OUTSIDE,
    PALETTE,
    PROMPT,
    overlay,
    overlay_figure,
    side_by_side,
    three_views,
)
from promptseg.volume import Segmentation, Volume

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


def scene(affine: np.ndarray = LPS) -> tuple[Volume, Segmentation, np.ndarray]:
    data = np.full((60, 50, 20), -100, dtype=np.int16)
    mask = np.zeros(data.shape, dtype=np.uint8)
    mask[15:30, 20:35, 5:15] = 1
    volume = Volume(data, affine, modality="CT")
    return volume, Segmentation.from_volume(volume, mask), np.roll(mask, 3, axis=0)


def near(path: Path, colour: tuple[int, int, int]) -> np.ndarray:
    return close(np.asarray(Image.open(path)).astype(int), colour)


def close(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
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


class TestSideBySide:
    def test_every_answer_and_its_prompts_are_drawn(self) -> None:
        volume, result, known = scene()
        click = Point((20, 25, 7), positive=False)
        sheet = side_by_side(
            volume, {"bare": None, "one": result}, prompts={"one": [click]}, reference=known,
            axis="axial", tile=200,
        )  # fmt: skip
        pixels = np.asarray(sheet.image).astype(int)
        bare, one = pixels[:, : pixels.shape[1] // 2], pixels[:, pixels.shape[1] // 2 :]
        for colour in (PALETTE[0], OUTSIDE):
            assert close(one, colour).sum() > 20
            assert close(bare[40:], colour).sum() == 0
        assert close(bare[40:], KNOWN).sum() > 50

    def test_slice_is_that_of_the_prompt_else_the_largest(self) -> None:
        volume, result, _ = scene()
        data = result.data.copy()
        data[15:30, 20:35, 5:14] = 0
        largest = Segmentation.from_volume(volume, data)
        options = {"axis": 2, "around": data, "tile": 120}
        found = side_by_side(volume, {"x": largest}, **options)
        named = side_by_side(volume, {"x": largest}, index=14, **options)
        assert np.array_equal(np.asarray(found.image), np.asarray(named.image))
        asked = side_by_side(volume, {"x": largest}, prompts={"y": [Point((1, 1, 2))]}, **options)
        assert not close(np.asarray(asked.image).astype(int), PALETTE[0])[40:].any()

    def test_scribbles_are_drawn_on_their_slice(self) -> None:
        volume, _, _ = scene()
        stroke = Scribble(np.array([(i, 10, 6) for i in range(5, 40)]))
        sheet = side_by_side(volume, {"x": None}, prompts={"x": [stroke]}, axis=2)
        assert close(np.asarray(sheet.image).astype(int), INSIDE).sum() > 100
        sheet = side_by_side(volume, {"x": None}, prompts={"x": [stroke]}, axis=2, index=7)
        assert not close(np.asarray(sheet.image).astype(int), INSIDE).any()

    def test_refusals(self) -> None:
        volume, result, _ = scene()
        with pytest.raises(VolumeError, match="nothing to show"):
            side_by_side(volume, {})
        with pytest.raises(VolumeError, match="slice 20: valid 0 to 19"):
            side_by_side(volume, {"x": result}, axis=2, index=20)
        with pytest.raises(VolumeError, match="labels have shape"):
            side_by_side(Volume(volume.data[:-1], volume.affine), {"x": result})


class TestThreeViews:
    def test_shows_the_mask_in_every_direction(self) -> None:
        volume, result, _ = scene()
        pixels = np.asarray(three_views(volume, result, tile=150).image).astype(int)
        thirds = np.array_split(pixels[40:], 3, axis=1)
        assert all(close(third, PALETTE[0]).sum() > 50 for third in thirds)

    def test_place_must_be_inside(self) -> None:
        volume, result, _ = scene()
        with pytest.raises(VolumeError, match="valid 0 to 19"):
            three_views(volume, result, at=(0, 0, 30))


class TestSheet:
    def test_notebooks_show_what_is_saved(self, tmp_path: Path) -> None:
        volume, result, _ = scene()
        sheet = overlay(volume, result, count=2)
        sheet.save(tmp_path / "a.png")
        shown = Image.open(io.BytesIO(sheet._repr_png_()))
        assert np.array_equal(np.asarray(shown), np.asarray(Image.open(tmp_path / "a.png")))
