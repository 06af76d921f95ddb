"""Write weights/default.safetensors from the latest checkpoint of train_default.py.

    python weights/export_default.py runs/default/last.pt weights/default.safetensors

The moving average of the weights is what is kept. Prints size and sha256 for registry.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from promptseg.backbones.default import save_default
from promptseg.backbones.network import PromptsegConfig, PromptsegModel
from promptseg.weights import sha256_file


def export(checkpoint: Path, target: Path) -> None:
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    module = PromptsegModel(PromptsegConfig())
    module.load_state_dict(state["average"])
    save_default(module, target, {"steps": str(state["step"]), "crops": str(state["drawn"])})
    print(f"{target}: {target.stat().st_size} bytes, sha256 {sha256_file(target)}")


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
