"""Write weights/default.safetensors from checkpoints of train_default.py.

    python weights/export_default.py runs/default/last.pt weights/default.safetensors
    python weights/export_default.py --half runs/default/last.pt runs/checkpoint.safetensors

The moving average of the weights is what is kept. Of several checkpoints the mean is written, a
"model soup" (Wortsman et al., ICML 2022): stages of one training lie in one basin.
Prints size and sha256 for registry.toml.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from promptseg.backbones.default import save_default
from promptseg.backbones.network import PromptsegConfig, PromptsegModel
from promptseg.weights.registry import sha256_file


def soup(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of state dictionaries with the same names and shapes."""
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def export(checkpoints: Sequence[Path], target: Path, half: bool = False) -> None:
    """Write the mean of checkpoints; in half precision if `half`."""
    loaded = [torch.load(path, weights_only=True, map_location="cpu") for path in checkpoints]
    last = max(loaded, key=lambda state: state["step"])
    module = PromptsegModel(PromptsegConfig(names=last.get("names", ())))
    module.load_state_dict(soup([state["average"] for state in loaded]))
    module = module.half() if half else module
    save_default(module, target, {"steps": str(last["step"]), "crops": str(last["drawn"])})
    print(f"{target}: {target.stat().st_size} bytes, sha256 {sha256_file(target)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--half", action="store_true", help="half precision, for a checkpoint")
    chosen = parser.parse_args()
    export(chosen.checkpoints, chosen.target, chosen.half)
