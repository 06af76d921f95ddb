"""The mean of several checkpoints, which becomes the default model."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from export_default import export, soup
from promptseg.backbones.default import load_default
from promptseg.backbones.network import PromptsegConfig, PromptsegModel


def checkpoint(path: Path, seed: int, step: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    average = PromptsegModel(PromptsegConfig()).state_dict()
    torch.save({"average": average, "step": step, "drawn": 8 * step}, path)
    return average


class TestSoup:
    def test_is_the_mean_of_every_tensor(self) -> None:
        states = [{"a": torch.tensor([x, 2 * x]), "b": torch.tensor(x)} for x in (1.0, 2.0, 6.0)]
        mean = soup(states)
        assert mean["a"].tolist() == [3.0, 6.0]
        assert mean["b"].item() == 3.0

    def test_of_one_is_that_one(self) -> None:
        state = {"a": torch.randn(3)}
        assert torch.equal(soup([state])["a"], state["a"])

    def test_refuses_other_shapes(self) -> None:
        with pytest.raises(RuntimeError, match="size"):
            soup([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}])


class TestExport:
    def test_writes_a_model_that_loads_with_the_mean_and_the_last_step(self, tmp_path) -> None:
        first = checkpoint(tmp_path / "first.pt", 0, 7)
        last = checkpoint(tmp_path / "last.pt", 1, 9)
        target = tmp_path / "default.safetensors"
        export([tmp_path / "last.pt", tmp_path / "first.pt"], target)
        for name, value in load_default(target, "mean").module.state_dict().items():
            torch.testing.assert_close(value, (first[name] + last[name]) / 2)
        with safe_open(target, "pt") as file:
            assert (file.metadata()["steps"], file.metadata()["crops"]) == ("9", "72")

    def test_names_and_half_precision(self, tmp_path) -> None:
        torch.manual_seed(2)
        average = PromptsegModel(PromptsegConfig(names=("liver", "spleen"))).state_dict()
        state = {"average": average, "step": 3, "drawn": 24, "names": ["liver", "spleen"]}
        torch.save(state, tmp_path / "last.pt")
        target = tmp_path / "half.safetensors"
        export([tmp_path / "last.pt"], target, half=True)
        assert target.stat().st_size < 8e6
        loaded = load_default(target, "half")
        assert loaded.spec.names == ("liver", "spleen")
        expected = average["mask_decoder.names.weight"]
        torch.testing.assert_close(loaded.named_tokens(), expected, atol=1e-3, rtol=1e-3)

    def named(self, path, names, seed):
        torch.manual_seed(seed)
        average = PromptsegModel(PromptsegConfig(names=names)).state_dict()
        torch.save({"average": average, "step": 3, "drawn": 24, "names": list(names)}, path)
        return average

    def test_a_model_is_averaged_with_a_run_that_knows_names_without_them(self, tmp_path) -> None:
        first = checkpoint(tmp_path / "first.pt", 0, 7)
        began = tmp_path / "began.safetensors"
        export([tmp_path / "first.pt"], began)
        last = self.named(tmp_path / "last.pt", ("liver",), 1)
        target = tmp_path / "both.safetensors"
        export([began, tmp_path / "last.pt"], target, nameless=True)
        loaded = load_default(target, "both")
        assert loaded.spec.names == ()
        for name, value in loaded.module.state_dict().items():
            torch.testing.assert_close(value, (first[name] + last[name]) / 2)

    def test_different_names_are_refused(self, tmp_path) -> None:
        self.named(tmp_path / "a.pt", ("liver",), 0)
        self.named(tmp_path / "b.pt", ("spleen",), 1)
        with pytest.raises(SystemExit, match="--nameless"):
            export([tmp_path / "a.pt", tmp_path / "b.pt"], tmp_path / "c.safetensors")
