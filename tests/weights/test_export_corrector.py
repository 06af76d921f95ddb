"""The mean of several checkpoints, which becomes the corrector."""

from pathlib import Path

import torch

from export_corrector import export
from promptseg.refine.corrector import load_corrector
from promptseg.refine.corrector_network import ClickCorrector


def test_writes_a_corrector_that_loads_with_the_mean(tmp_path: Path) -> None:
    averages = []
    for number in range(2):
        torch.manual_seed(number)
        averages.append(ClickCorrector().state_dict())
        torch.save({"average": averages[-1], "step": number}, tmp_path / f"{number}.pt")
    export([tmp_path / "0.pt", tmp_path / "1.pt"], tmp_path / "corrector.safetensors")
    for name, value in (
        load_corrector(tmp_path / "corrector.safetensors").network.state_dict().items()
    ):
        mean = (averages[0][name] + averages[1][name]) / 2
        torch.testing.assert_close(value, mean, atol=1e-3, rtol=1e-3)
