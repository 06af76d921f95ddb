"""Write weights/step.safetensors from checkpoints of train_step.py.

    python weights/export_step.py runs/step/last.pt weights/step.safetensors

Of several checkpoints the mean of their moving averages is written, as `export_default.py` does.
Prints size and sha256 for registry.toml.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from export_default import soup
from promptseg.backbones.default import load_default
from promptseg.propagation.slice_step import save_step
from promptseg.propagation.step_network import StepNetwork
from promptseg.weights.registry import sha256_file

BASE = Path(__file__).with_name("default.safetensors")


def export(checkpoints: Sequence[Path], target: Path) -> None:
    """Write the mean of some checkpoints in half precision."""
    loaded = [torch.load(path, weights_only=True, map_location="cpu") for path in checkpoints]
    network = StepNetwork(load_default(BASE, "default").module.config)
    network.load_state_dict(soup([state["average"] for state in loaded]))
    base = {state["base"] for state in loaded}
    if base != {sha256_file(BASE)}:
        raise SystemExit(f"trained on the features of {base}, {BASE} is {sha256_file(BASE)}")
    save_step(network, sha256_file(BASE), target, {"steps": str(max(s["step"] for s in loaded))})
    print(f"{target}: {target.stat().st_size} bytes, sha256 {sha256_file(target)}")


if __name__ == "__main__":
    export([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
