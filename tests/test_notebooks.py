"""The notebooks run from their first cell to their last, and are saved with their output."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("nbclient", reason="running notebooks needs nbclient: pip install '.[dev]'")
pytest.importorskip("ipykernel", reason="running notebooks needs ipykernel: pip install '.[dev]'")
pytest.importorskip("matplotlib", reason="the notebooks draw with matplotlib")

import nbformat

DEMOS = Path(__file__).resolve().parents[1] / "demos"
NAMES = (
    "01_first_mask",
    "02_interactive_3d",
    "03_teach_an_organ",
    "04_evaluate_and_compare",
    "05_bring_your_own_sam",
    "06_from_scribbles",
)
USER_PATH = re.compile(r"(/home/|/root/|/Users/|/tmp/|/work/|[A-Z]:\\\\)")
CELL_SECONDS = 900


@pytest.fixture(scope="module")
def demos() -> ModuleType:
    sys.path.insert(0, str(DEMOS))
    try:
        import execute
    finally:
        sys.path.remove(str(DEMOS))
    return execute


def test_every_notebook_is_known(demos: ModuleType) -> None:
    assert tuple(path.stem for path in demos.notebooks()) == NAMES


@pytest.mark.parametrize("name", NAMES)
class TestSaved:
    def test_has_its_output(self, demos: ModuleType, name: str) -> None:
        notebook = nbformat.read(DEMOS / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        outputs = [output for cell in code for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1
        assert not [text for text in demos.texts(notebook) if USER_PATH.search(text)]

    def test_is_small(self, demos: ModuleType, name: str) -> None:
        assert (DEMOS / f"{name}.ipynb").stat().st_size < demos.MOST_BYTES

    def test_begins_and_ends_with_words(self, name: str) -> None:
        cells = nbformat.read(DEMOS / f"{name}.ipynb", as_version=4).cells
        assert cells[0].source.startswith("# ")
        assert cells[-1].cell_type == "markdown"
        assert "next" in cells[-1].source.lower()


@pytest.mark.parametrize("name", NAMES)
def test_runs(demos: ModuleType, name: str) -> None:
    notebook = demos.execute(DEMOS / f"{name}.ipynb", timeout=CELL_SECONDS)
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any("image/png" in out.get("data", {}) for out in shown)
    assert not [text for text in demos.texts(notebook) if USER_PATH.search(text)]
