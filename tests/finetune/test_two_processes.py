"""Two processes on the CPU give what one process gives.

They are started by `torchrun`, which `accelerate launch` starts too for several GPUs: with
`--cpu` and no MPI it starts a single process, whatever its `--num_processes`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from adapter_kit import write_cohort
from support import tiny_network

from promptseg.adapters import read_adapter
from promptseg.backbones.default import save_default

pytest.importorskip("accelerate")
ROOT = Path(__file__).parents[2]


def launch(out: Path, place: Path, count: int) -> None:
    recipe = place / "recipe.toml"
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*(several if count > 1 else []), "-m", "promptseg", "finetune", str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command, "-o", str(out)],
        env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("written") == 1
    assert (f"{count} processes" in done.stdout) == (count > 1)


def test_same_adapter(tmp_path):
    save_default(tiny_network(), tmp_path / "tiny.safetensors", {})
    write_cohort(tmp_path, 2)
    (tmp_path / "recipe.toml").write_text(
        f"""
organ = "disc"
images = "images"
labels = "labels"
backbone = "{tmp_path / "tiny.safetensors"}"
steps = 3
batch = 4
rank = 2
rate = 2e-3
precision = "fp32"
device = "cpu"
validation_share = 0.0
final_slices = 0
"""
    )
    launch(tmp_path / "one", tmp_path, 1)
    launch(tmp_path / "two", tmp_path, 2)
    one, two = read_adapter(tmp_path / "one"), read_adapter(tmp_path / "two")
    assert one.info.steps == two.info.steps == 3
    for mine, theirs in ((one.lora, two.lora), (one.tokens, two.tokens)):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert torch.allclose(mine[name], theirs[name], atol=1e-4), name
