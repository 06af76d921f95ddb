"""What is imported before it is needed: modules are checked, not seconds."""

import ast
import json
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from promptseg.io.toml_text import parse_toml

HEAVY = {"torch", "transformers", "scipy", "skimage", "nibabel", "PIL", "matplotlib", "numba"}
SCRIPT = """
import json, sys
from promptseg.commands.cli import main
status = main(sys.argv[1:])
print("\\n" + json.dumps([status, sorted(name for name in sys.modules if "." not in name)]))
"""


def loaded_by(*arguments: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60
    )
    status, modules = json.loads(done.stdout.splitlines()[-1])
    return status, set(modules)


class TestStartup:
    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            (["--help"], 0),
            (["--version"], 0),
            (["nonsense"], 2),
            (["segment", "--help"], 0),
            (["segment"], 2),
            (["rerun", "--help"], 0),
            (["doctor", "--help"], 0),
        ],
    )
    def test_help_imports_no_package_at_all(self, arguments: list[str], status: int) -> None:
        found, modules = loaded_by(*arguments)
        assert found == status
        assert not modules & (HEAVY | {"numpy", "tqdm"})

    @pytest.mark.parametrize("arguments", [["list"], ["info", "sam_vit_b"], ["info", "nothing"]])
    def test_weights_imports_nothing_heavy(self, arguments: list[str]) -> None:
        assert not loaded_by("weights", *arguments)[1] & HEAVY

    def test_a_missing_image_is_refused_before_the_network_is_imported(self, tmp_path) -> None:
        out = str(tmp_path / "out.nii.gz")
        status, modules = loaded_by(
            "segment", str(tmp_path / "a.nii.gz"), "-o", out, "--box", "0,0,0,5,5,1"
        )
        assert status == 2
        assert not modules & {"torch", "transformers"}


ROOT = Path(__file__).resolve().parents[1]
OF_EXTRAS = {"demo": "promptseg.demo.launch", "train": "promptseg.finetune.running"}
LOADED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
own = [m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "promptseg"]
print("\\n" + json.dumps([file for file in own if file]))
"""


def brought_by(wanted: list[str]) -> set[str]:
    """Names of distributions that come with some requirements, as far as they are installed."""
    found: set[str] = set()
    left = [Requirement(one) for one in wanted]
    while left:
        one = left.pop()
        name = one.name.lower().replace("_", "-")
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        if name in found:
            continue
        found.add(name)
        with suppress(metadata.PackageNotFoundError):
            left += [Requirement(r) for r in metadata.requires(name) or () if "extra ==" not in r]
    return found


def imported_at_once(file: str) -> set[str]:
    """Top packages that a module imports as it is imported itself."""
    names: set[str] = set()
    for node in ast.parse(Path(file).read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"promptseg"}


class TestExtras:
    """In the tests' own environment everything is installed: what an extra lacks shows nowhere."""

    @pytest.mark.parametrize("extra", sorted(OF_EXTRAS))
    def test_an_extra_brings_all_that_its_modules_import(self, extra: str) -> None:
        project = parse_toml((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        wanted = [*project["dependencies"], *extras[extra]]
        further = {e for one in wanted for e in Requirement(one).extras
                   if Requirement(one).name == "promptseg"}  # fmt: skip
        brought = brought_by(wanted + [one for name in further for one in extras[name]])
        done = subprocess.run(
            [sys.executable, "-c", LOADED, OF_EXTRAS[extra]], capture_output=True, text=True,
            timeout=120, check=True,
        )  # fmt: skip
        files = json.loads(done.stdout.splitlines()[-1])
        owners = metadata.packages_distributions()
        lacking = {
            name
            for file in files
            for name in imported_at_once(file)
            if not {d.lower().replace("_", "-") for d in owners.get(name, [name])} & brought
        }
        assert len(files) > 50
        assert lacking == set()
