"""Lengths worked out by hand on grids whose voxels are not cubes."""

import csv
from pathlib import Path

import numpy as np
import pytest

from promptseg.errors import VolumeError
from promptseg.report.measurements import diameters, measure, write_csv
from promptseg.volume import Segmentation, Volume

FLAT = np.eye(3)[:, :2]


def measured(mask: np.ndarray, spacing=(1.0, 1.0, 3.0), affine=None, **fields) -> dict:
    affine = np.diag([*spacing, 1.0]) if affine is None else affine
    grey = np.arange(mask.size, dtype=np.int16).reshape(mask.shape)
    volume = Volume(grey, affine, "CT")
    return measure(Segmentation(mask.astype(np.uint8), affine, **fields), volume)


class TestDiameters:
    def test_a_disc_is_as_long_as_it_is_wide(self) -> None:
        row, column = np.indices((60, 60))
        found = diameters((row - 30) ** 2 + (column - 30) ** 2 <= 20**2, FLAT)
        assert found.long_mm == pytest.approx(41)
        assert found.short_mm == pytest.approx(41)

    def test_no_pixel_of_any_shape_is_lost(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(200):
            mask = rng.random(rng.integers(1, 10, 2)) < 0.4
            found = diameters(mask, FLAT)
            assert (found is None) == (not mask.any())
            assert found is None or found.long_mm >= 1

    def test_an_ellipse_on_pixels_of_1_by_2_mm(self) -> None:
        row, column = np.indices((60, 60))
        found = diameters(((row - 30) / 20) ** 2 + ((column - 30) / 8) ** 2 <= 1, FLAT * [1, 2])
        assert found.long_mm == pytest.approx(41)
        assert found.short_mm == pytest.approx(34)

    def test_one_pixel_and_a_line(self) -> None:
        one = diameters(np.ones((1, 1), bool), FLAT * [2, 3])
        assert (one.long_mm, one.short_mm) == (3, 2)
        line = diameters(np.ones((1, 7), bool), FLAT)
        assert (line.long_mm, line.short_mm) == (7, 1)

    def test_short_is_across_the_long_one(self) -> None:
        # Ten by four pixels: the outline's furthest corners are (0, 3) and (10, 0) apart.
        found = diameters(np.ones((10, 4), bool), FLAT)
        assert found.long_mm == pytest.approx(np.hypot(10, 3))
        along = np.subtract(*found.long_ends)
        across = np.subtract(*found.short_ends)
        assert along @ across == pytest.approx(0, abs=0.02)

    def test_apart_lesions_are_not_measured_as_one(self) -> None:
        two = np.zeros((40, 40), bool)
        two[2:8, 2:8] = two[30:38, 30:36] = True
        assert diameters(two, FLAT).long_mm < 11

    def test_nothing(self) -> None:
        assert diameters(np.zeros((4, 4), bool), FLAT) is None


class TestMeasure:
    def block(self) -> np.ndarray:
        mask = np.zeros((20, 20, 6), bool)
        mask[5:15, 5:9, 2] = mask[5:8, 5:8, 3] = True
        return mask

    def test_all_of_one(self) -> None:
        found = measured(self.block(), labels={1: "nodule"})["1"]
        values = np.arange(20 * 20 * 6).reshape(20, 20, 6)[self.block()]
        assert found["name"] == "nodule"
        assert found["voxels"] == 49
        assert found["volume_ml"] == pytest.approx(0.147)
        assert found["bounding_box"] == {"lo": [5, 5, 2], "hi": [15, 9, 4], "mm": [10, 4, 6]}
        assert found["recist"]["slice"] == 2
        assert found["largest_axial_diameter_mm"] == found["recist"]["long_mm"]
        assert found["intensity"]["mean"] == pytest.approx(values.mean())
        assert found["intensity"]["sd"] == pytest.approx(values.std(ddof=1))
        assert found["intensity"]["unit"] == "HU"

    def test_axial_is_found_through_the_affine(self) -> None:
        # Stored with the axial direction first: the same lesion, the same numbers.
        mask = np.moveaxis(self.block(), 2, 0)
        affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [3, 0, 0, 0], [0, 0, 0, 1.0]])
        turned, plain = measured(mask, affine=affine)["1"], measured(self.block())["1"]
        assert turned["recist"]["axis"] == 0
        assert turned["recist"]["slice"] == 2
        for key in ("long_mm", "short_mm"):
            assert turned["recist"][key] == pytest.approx(plain["recist"][key])

    def test_an_empty_target_and_other_grids(self) -> None:
        nothing = np.zeros((4, 4, 4))
        found = measured(nothing, score={1: 0.1})["1"]
        assert (found["voxels"], found["recist"], found["intensity"]) == (0, None, None)
        with pytest.raises(VolumeError, match="shape"):
            measure(
                Segmentation(np.ones((3, 3, 3), np.uint8), np.eye(4)),
                Volume(np.zeros((4, 3, 3)), np.eye(4)),
            )


class TestCsv:
    def test_a_row_a_target_that_a_spreadsheet_reads(self, tmp_path: Path) -> None:
        mask = np.zeros((20, 20, 6), np.uint8)
        mask[5:15, 5:9, 2], mask[1, 1, 1] = 1, 2
        names = {1: "=HYPERLINK(1)", 2: "肝脏, left"}
        write_csv(measured(mask, labels=names, score={3: 0.0}), tmp_path / "m.csv")
        with (tmp_path / "m.csv").open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["target"] for row in rows] == ["1", "2", "3"]
        assert rows[0]["name"] == "'=HYPERLINK(1)"
        assert rows[1]["name"] == "肝脏, left"
        assert float(rows[0]["recist_long_mm"]) == pytest.approx(np.hypot(10, 3), rel=1e-5)
        assert rows[0]["box_hi_i"] == "15"
        assert rows[2]["recist_long_mm"] == ""
