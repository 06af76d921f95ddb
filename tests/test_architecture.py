"""The limits that keep the house small: rooms, functions and classes."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "promptseg"
ROOMS = 20
LONGEST_FUNCTION, MOST_FUNCTIONS, LONGEST_CLASS = 60, 30, 260
BESIDE = {"__init__.py", "__main__.py", "py.typed", "__pycache__", "_assets"}


@cache
def sources() -> list[tuple[Path, ast.Module]]:
    folders = PACKAGE, ROOT / "weights" / "pretraining"
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [(path.relative_to(ROOT), ast.parse(path.read_text("utf-8"))) for path in paths]


def lengths(*kinds: type[ast.AST]) -> dict[str, int]:
    """Lines from `def` or `class` to the last, docstring and all."""
    return {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    }


class TestRooms:
    def test_at_most_twenty(self):
        found = {path.name for path in PACKAGE.iterdir()} - BESIDE
        assert len(found) <= ROOMS, sorted(found)

    def test_each_says_what_it_is_for(self):
        rooms = [path for path in PACKAGE.iterdir() if path.is_dir() and path.name not in BESIDE]
        unsaid = [
            room.name
            for room in rooms
            if not ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        ]
        assert rooms
        assert unsaid == []

    def test_nothing_installed_imports_the_training_scripts(self):
        imported = {
            name
            for path, tree in sources()
            if path.parts[0] == "promptseg"
            for node in ast.walk(tree)
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in getattr(node, "names", ())]
            )
        }
        assert "promptseg.errors" in imported
        assert not [name for name in imported if name.partition(".")[0] == "pretraining"]


class TestLengths:
    def test_functions(self):
        found = lengths(ast.FunctionDef, ast.AsyncFunctionDef)
        long = {name: lines for name, lines in found.items() if lines > LONGEST_FUNCTION}
        assert long == {}
        ordered = sorted(found.values())
        assert ordered[int(0.95 * len(ordered))] <= MOST_FUNCTIONS

    def test_classes(self):
        found = lengths(ast.ClassDef)
        assert {name: lines for name, lines in found.items() if lines > LONGEST_CLASS} == {}

    def test_test_modules_have_names_of_their_own(self):
        found = [path.name for path in (ROOT / "tests").rglob("*.py")]
        names = [name for name in found if name != "conftest.py"]
        assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("page", ["docs/architecture.md"])
def test_the_diagram_names_every_room(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    diagram = text.split("```")[1].split()
    missing = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.name not in BESIDE}
    assert sorted(missing - set(diagram)) == []
