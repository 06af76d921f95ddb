"""Cells of the learning curve: chosen, kept, drawn."""

import argparse
import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "learning_curve.py"
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def curve():
    spec = importlib.util.spec_from_file_location("learning_curve", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dice(mean):
    return {"mean": mean, "std": 0.01, "n": 12}


@pytest.fixture
def folder(tmp_path):
    own = {"minutes": 20.0, "steps": 7, "processes": 1}
    points = [
        {"method": "unet", "cases": 4, "auto_3d": dice(0.6), **own},
        {"method": "adapter", "cases": 8, "box_2d": dice(0.9), "auto_3d": dice(0.8),
         "base": "0" * 64, **own},
        {"method": "adapter", "cases": 1, "box_2d": dice(0.8), "auto_3d": dice(0.5),
         "base": "0" * 64, **own},
    ]  # fmt: skip
    for point in points:
        path = tmp_path / f"point_{point['method']}_{point['cases']}.json"
        path.write_text(json.dumps(point))
    return tmp_path


class TestCells:
    def test_method_and_cases(self, curve):
        assert curve.cell("adapter:8") == ("adapter", 8)

    @pytest.mark.parametrize("text", ["adapter", "adapter:", "adapter:3", "net:8", "adapter:x"])
    def test_refused(self, curve, text):
        with pytest.raises(argparse.ArgumentTypeError, match="give one of"):
            curve.cell(text)


class TestReport:
    def test_points_in_order_as_json_table_and_figure(self, curve, folder):
        curve.report(folder)
        points = json.loads((folder / "learning_curve.json").read_text())["points"]
        assert [(p["method"], p["cases"]) for p in points] == [
            ("adapter", 1), ("adapter", 8), ("unet", 4)]  # fmt: skip
        lines = (folder / "learning_curve.csv").read_text().splitlines()
        assert lines[0].startswith("method,cases,minutes,processes,steps")
        assert lines[-1] == "unet,4,20.0,1,7,auto_3d,0.6,0.01,12"
        assert len(lines) == 6
        assert (folder / "learning_curve.png").stat().st_size > 10_000

    def test_points_of_another_base_are_refused(self, curve, folder):
        chosen = argparse.Namespace(out=folder, model="default")
        with pytest.raises(SystemExit, match="another base"):
            curve.same_base(chosen)

    def test_nothing_yet(self, curve, tmp_path):
        curve.report(tmp_path)
        assert json.loads((tmp_path / "learning_curve.json").read_text()) == {"points": []}
