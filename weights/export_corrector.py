"""Write weights/corrector.safetensors from checkpoints of train_corrector.py.

    python weights/export_corrector.py runs/corrector_1/last.pt runs/corrector_2/last.pt \\
        weights/corrector.safetensors

Of several checkpoints the mean of their moving averages is written, as `export_default.py` does.
Prints size and sha256 for registry.toml.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from export_default import soup
from promptseg.refine.corrector import save_corrector
from promptseg.refine.corrector_network import ClickCorrector
from promptseg.weights.registry import sha256_file


def export(checkpoints: Sequence[Path], target: Path) -> None:
    loaded = [torch.load(path, weights_only=True, map_location="cpu") for path in checkpoints]
    network = ClickCorrector()
    network.load_state_dict(soup([state["average"] for state in loaded]))
    save_corrector(network, target, {"steps": str(max(state["step"] for state in loaded))})
    print(f"{target}: {target.stat().st_size} bytes, sha256 {sha256_file(target)}")


if __name__ == "__main__":
    export([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
