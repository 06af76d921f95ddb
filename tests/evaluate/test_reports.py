import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import case_of, two_discs
from PIL import Image
from support import segmenter

from promptseg.errors import FormatError
from promptseg.evaluate.figures import apart
from promptseg.evaluate.reports import Report, ordered_columns, spread, summarise
from promptseg.evaluate.running import run
from promptseg.evaluate.scores import CURVES, QUALITY, finite_mean
from promptseg.evaluate.settings import Settings


@pytest.fixture(scope="module")
def report() -> Report:
    settings = Settings(axis=2, clicks=3, slices=2, against=("ellipse", "random_walker"))
    return run(segmenter(), [case_of(two_discs(n), f"c{n}") for n in range(3)], settings)


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "out"
    report.save(path)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def values(rows: list[dict[str, str]], column: str, label: str | None = None) -> list[float]:
    return [float(r[column]) for r in rows if r[column] and label in (None, r["label"])]


class TestFiles:
    def test_one_row_a_case_and_label(self, folder):
        rows = read_csv(folder / "cases.csv")
        assert [(r["case"], r["label"]) for r in rows] == [
            (f"c{n}", label) for n in range(3) for label in ("1", "2")]  # fmt: skip
        columns = list(rows[0])
        assert columns[:9] == ["case", "label", "n_slices", *QUALITY]
        assert {"revision_degree", "seconds", "seconds_per_click", "prompts"} <= set(columns)
        assert "random_walker_dice_click_3" in columns

    def test_summary_equals_the_rows(self, folder):
        rows = read_csv(folder / "cases.csv")
        summary = json.loads((folder / "summary.json").read_text())
        for label in (None, "1", "2"):
            table = summary if label is None else summary["labels"][label]
            for name in QUALITY:
                found = values(rows, name, label)
                assert table[name]["n"] == len(found)
                assert table[name]["mean"] == pytest.approx(np.mean(found))
                assert table[name]["std"] == pytest.approx(np.std(found))
            curve = [np.mean(values(rows, f"dice_click_{n}", label)) for n in (1, 2, 3)]
            assert table["dice_per_click"] == pytest.approx(curve)
            for name in CURVES:
                assert table[name] == pytest.approx(np.mean(values(rows, name, label)))

    def test_dice_is_the_one_after_the_last_click(self, folder):
        for row in read_csv(folder / "cases.csv"):
            assert row["dice"] == row["dice_click_3"]
            curve = [float(row[f"dice_click_{n}"]) for n in (1, 2, 3)]
            assert float(row["dice_auc"]) == pytest.approx(np.trapezoid(curve))
            assert float(row["dice_mean_of_clicks"]) == pytest.approx(np.mean(curve))

    def test_the_summary_says_what_the_columns_of_clicks_mean(self, folder):
        meanings = json.loads((folder / "summary.json").read_text())["meanings"]
        assert set(meanings) == set(CURVES)
        assert "N - 1 at best" in meanings["dice_auc"]

    def test_baselines_have_tables_too(self, folder):
        rows = read_csv(folder / "cases.csv")
        table = json.loads((folder / "summary.json").read_text())["against"]["random_walker"]
        found = values(rows, "random_walker_dice")
        assert table["dice"]["mean"] == pytest.approx(np.mean(found))
        assert len(table["dice_per_click"]) == 3
        assert set(table["labels"]) == {"1", "2"}

    def test_settings_tell_how(self, folder):
        settings = json.loads((folder / "summary.json").read_text())["settings"]
        assert settings["model"] == "bright"
        assert (settings["protocol"], settings["seed"], settings["clicks"]) == ("clicks", 0, 3)

    def test_figures_are_pictures(self, folder):
        names = {path.name for path in folder.iterdir()}
        assert names == {"cases.csv", "summary.json", "dice_by_label.png", "dice_by_click.png",
                         "worst.png"}  # fmt: skip
        for path in folder.glob("*.png"):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            assert min(pixels.shape[:2]) > 300
            assert pixels.std() > 10

    def test_a_folder_that_cannot_be_made(self, report, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(FormatError, match="cannot be written"):
            report.save(tmp_path / "file" / "out", figures=False)


class TestWorst:
    def test_are_the_lowest_in_order(self, report):
        dices = [picture.dice for picture in report.worst]
        assert dices == sorted(dices)
        assert len(dices) == 6

    def test_show_clicks_on_their_slice(self, report):
        for picture in report.worst:
            assert picture.image.shape == picture.truth.shape == picture.mask.shape
            assert len(picture.points) >= 1
            row, column, positive = picture.points[0]
            assert positive
            assert picture.truth[int(row), int(column)]

    def test_show_strokes_on_their_side(self):
        settings = Settings(protocol="scribble", axis=2, label=1, slices=1)
        (picture,) = run(segmenter(), [case_of(two_discs())], settings).worst
        places = picture.strokes[:, :2].astype(int)
        assert {0.0, 1.0} == set(picture.strokes[:, 2])
        assert np.array_equal(picture.truth[tuple(places.T)], picture.strokes[:, 2] == 1)

    def test_of_a_volume_shows_the_slice_with_most_errors(self):
        settings = Settings(protocol="box", dims="3d", axis=2, label=1)
        labels = two_discs()
        image = labels == 1
        image[8:22, 8:21, 4] = True
        (picture,) = run(segmenter(), [case_of(labels, image=image)], settings).worst
        assert picture.where == "label 1, slice 4"
        assert np.array_equal(picture.truth, labels[..., 4] == 1)
        assert picture.mask.sum() > picture.truth.sum()
        assert picture.box is None


class TestSummary:
    def test_undefined_distances_are_left_out_and_counted(self):
        rows = [
            {"case": "a", "label": 1, "dice": 0.0, "hd95_mm": math.inf},
            {"case": "b", "label": 1, "dice": 1.0, "hd95_mm": 4.0},
        ]
        summary = summarise(rows)
        assert summary["hd95_mm"] == {"mean": 4.0, "std": 0.0, "n": 1}
        assert summary["dice"] == {"mean": 0.5, "std": 0.5, "n": 2}

    def test_nothing_defined(self):
        assert spread([math.nan, math.inf]) == {"mean": None, "std": None, "n": 0}
        assert math.isnan(finite_mean([]))

    def test_undefined_cells_are_empty_and_the_json_is_strict(self, tmp_path):
        row = {"case": "a", "label": 1, "dice": 0.0, "hd95_mm": math.inf}
        Report([row]).save(tmp_path, figures=False)
        assert read_csv(tmp_path / "cases.csv")[0]["hd95_mm"] == ""
        text = (tmp_path / "summary.json").read_text()
        assert json.loads(text, parse_constant=pytest.fail)["hd95_mm"]["n"] == 0

    def test_columns_keep_their_order(self):
        rows = [
            {"label": 1, "case": "a", "x_dice": 1.0, "dice": 1.0},
            {"case": "b", "seconds": 1.0},
        ]
        assert ordered_columns(rows) == ["case", "label", "dice", "seconds", "x_dice"]


class TestFigures:
    def test_many_labels_become_one_box(self, tmp_path):
        rows = [{"case": "a", "label": n, "dice": n / 100} for n in range(1, 90)]
        Report(rows).save(tmp_path)
        width, _ = Image.open(tmp_path / "dice_by_label.png").size
        assert width < 1200

    def test_names_of_curves_do_not_overlap(self):
        placed = apart([0.9, 0.91, 0.2, 0.905])
        assert sorted(placed, reverse=True) == [placed[1], placed[3], placed[0], placed[2]]
        assert min(np.abs(np.diff(sorted(placed)))) >= 0.04 - 1e-9
