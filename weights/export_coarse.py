"""Write weights/coarse.safetensors from checkpoints of train_coarse.py.

    python weights/export_coarse.py runs/coarse/last.pt weights/coarse.safetensors

Of several checkpoints the mean of their moving averages is written, as `export_default.py` does.
Prints size and sha256 for registry.toml.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from export_default import soup
from promptseg.propagation.coarse import save_coarse
from promptseg.propagation.coarse_inputs import CHANNELS
from promptseg.propagation.coarse_network import CoarseNetwork
from promptseg.weights.registry import sha256_file


def export(checkpoints: Sequence[Path], target: Path) -> None:
    """Write the mean of some checkpoints in half precision."""
    loaded = [torch.load(path, weights_only=True, map_location="cpu") for path in checkpoints]
    network = CoarseNetwork(CHANNELS)
    network.load_state_dict(soup([state["average"] for state in loaded]))
    save_coarse(network, target, {"steps": str(max(state["step"] for state in loaded))})
    print(f"{target}: {target.stat().st_size} bytes, sha256 {sha256_file(target)}")


if __name__ == "__main__":
    export([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
