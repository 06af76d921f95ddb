import doctest
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import promptseg as ps

PACKAGE = Path(ps.__file__).parent
NAMES = [name for name in ps.__all__ if not name.startswith("__")]


def with_examples() -> list[str]:
    """Modules that hold an example that can be run."""
    return sorted(
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^ *>>> (?!.*\+SKIP)", path.read_text(encoding="utf-8"), re.MULTILINE)
    )


def functions() -> Iterator[tuple[str, object]]:
    """Public functions, classes and their public methods and properties, by name."""
    for name in NAMES:
        found = getattr(ps, name)
        found = getattr(found, name) if inspect.ismodule(found) else found
        yield name, found
        if inspect.isclass(found):
            for attribute, member in vars(found).items():
                if not attribute.startswith("_") and (callable(member) or hasattr(member, "fget")):
                    yield f"{name}.{attribute}", member


def missing_arguments(found: object) -> set[str]:
    """Parameters that the `Args:` section does not name."""
    target = found.__init__ if inspect.isclass(found) else found
    text = inspect.getdoc(found) or ""
    wanted = {
        name
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in ("self", "cls")
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    return {name for name in wanted if not re.search(rf"^ *{name}: ", text, re.MULTILINE)}


class TestExamples:
    @pytest.mark.parametrize("name", with_examples())
    def test_they_give_what_they_say(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        failed, tried = doctest.testmod(import_module(name))
        assert tried > 0
        assert failed == 0

    def test_all_prompts_have_one(self):
        for name in ("Box", "MarginPoints", "Mask", "Point", "PromptSet", "Scribble", "Text"):
            assert ">>> " in getattr(ps, name).__doc__


class TestEveryPublicName:
    @pytest.mark.parametrize(
        ("name", "found"), list(functions()), ids=[name for name, _ in functions()]
    )
    def test_says_what_it_is_for(self, name, found):
        documented = getattr(found, "__func__", found)
        assert (inspect.getdoc(documented) or "").strip(), f"{name} has no docstring"

    @pytest.mark.parametrize(
        "name", ["Segmenter", "Session", "Volume", "Segmentation", "Box", "Point", "Scribble",
                 "Mask", "Text", "MarginPoints", "PromptSet", "read", "write", "evaluate",
                 "finetune"],
    )  # fmt: skip
    def test_names_its_arguments(self, name):
        found = dict(functions())[name]
        assert missing_arguments(found) == set()
