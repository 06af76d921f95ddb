"""What is imported before it is needed: modules are checked, not seconds."""

import json
import subprocess
import sys

import pytest

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
