"""Output on consoles that are not UTF-8, as Windows and bare servers have them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_network

from promptseg.datasets.phantom import abdomen_phantom
from promptseg.report import load_manifest
from promptseg.volume import read, write

NAME = "Björn 左心房 ct.nii.gz"
BOX = ["--box", "30,15,8,42,28,9", "--no-propagate"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("Größe") / NAME
    write(abdomen_phantom(shape=(60, 45, 16), spacing=(6.0, 6.0, 15.0))[0], path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_network().save_pretrained(folder)
    return str(folder)


def run(encoding: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "promptseg", *map(str, arguments)],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=300,
        check=False,
    )


class TestOtherConsoles:
    @pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
    def test_a_run_ends_with_what_it_wrote(self, image, model, tmp_path, encoding):
        out, report = tmp_path / "маска.nii.gz", tmp_path / "报告.json"
        done = run(
            encoding, "segment", image, "-o", out, *BOX, "--model", model, "--report", report
        )
        assert done.returncode == 0, done.stderr
        assert b"\\u043c\\u0430\\u0441\\u043a\\u0430.nii.gz written" in done.stdout
        assert read(out).shape == (60, 45, 16)
        assert load_manifest(report)["outputs"]["mask"]["path"] == str(out)

    def test_json_stays_json(self, image, model, tmp_path):
        out = tmp_path / "маска.nii.gz"
        done = run("ascii", "segment", image, "-o", out, *BOX, "--model", model, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.decode("ascii"))["outputs"]["mask"]["path"] == str(out)

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
    def test_a_refusal_names_the_file(self, tmp_path, encoding):
        done = run(encoding, "segment", tmp_path / "нет.nii.gz", "-o", tmp_path / "m.nii.gz", *BOX)
        assert done.returncode == 2
        assert b"no such file" in done.stderr

    def test_help_is_printed(self):
        assert run("ascii", "evaluate", "--help").returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX are bytes")
def test_a_name_that_is_no_text_at_all(image, model, tmp_path):
    named = os.fsdecode(os.fsencode(tmp_path) + b"/ct\xff.nii.gz")
    os.symlink(image, named)
    report = tmp_path / "report.json"
    done = run("utf-8", "segment", named, "-o", tmp_path / "m.nii.gz", *BOX, "--model", model,
               "--report", report)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_manifest(report)["format"] == "promptseg-run"
