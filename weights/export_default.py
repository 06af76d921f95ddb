"""Write weights/default.safetensors from checkpoints of train_default.py.

    python weights/export_default.py runs/default/last.pt weights/default.safetensors
    python weights/export_default.py --half runs/default/last.pt runs/checkpoint.safetensors

The moving average of the weights is what is kept. Of several checkpoints the mean is written, a
"model soup" (Wortsman et al., ICML 2022): stages of one training lie in one basin, and so does the
model that a gentle training began with (a .safetensors file). `--nameless` leaves out the tokens of
names: one that finds nothing yet would answer in the place of "that name is not known".
Prints size and sha256 for registry.toml.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptseg.backbones.default import load_default, save_default
from promptseg.backbones.network import PromptsegConfig, PromptsegModel
from promptseg.weights.registry import sha256_file

NAMES = "mask_decoder.names.weight"


def soup(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of state dictionaries with the same names and shapes."""
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def read(path: Path) -> dict[str, Any]:
    """Average, names, steps and crops of a checkpoint or of a model's file."""
    if path.suffix == ".safetensors":
        module = load_default(path, path.stem).module
        return {"average": module.state_dict(), "names": module.config.names, "step": 0, "drawn": 0}
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return {"names": (), **state}


def export(
    checkpoints: Sequence[Path], target: Path, half: bool = False, nameless: bool = False
) -> None:
    """Write the mean of checkpoints and models.

    Args:
        checkpoints: Of train_default.py, or files of models.
        target: File to write.
        half: True for half precision.
        nameless: True to leave out the tokens of names.
    """
    loaded = [read(path) for path in checkpoints]
    last = max(loaded, key=lambda state: state["step"])
    if nameless:
        for state in loaded:
            state["names"] = ()
            state["average"] = {n: v for n, v in state["average"].items() if n != NAMES}
    if len({tuple(state["names"]) for state in loaded}) > 1:
        raise SystemExit("the checkpoints know different names: export them --nameless")
    module = PromptsegModel(PromptsegConfig(names=last["names"]))
    module.load_state_dict(soup([state["average"] for state in loaded]))
    module = module.half() if half else module
    save_default(module, target, {"steps": str(last["step"]), "crops": str(last["drawn"])})
    print(f"{target}: {target.stat().st_size} bytes, sha256 {sha256_file(target)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--half", action="store_true", help="half precision, for a checkpoint")
    parser.add_argument("--nameless", action="store_true", help="leave out the tokens of names")
    chosen = parser.parse_args()
    export(chosen.checkpoints, chosen.target, chosen.half, chosen.nameless)
