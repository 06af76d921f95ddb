import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapter_kit import METHODS, answers, random_adapter
from safetensors.torch import load_file, save_file
from support import tiny_default, tiny_network

from promptseg.adapters import AdapterStack, list_adapters, read_adapter, write_adapter
from promptseg.adapters.files import CONFIG, HEADS, INFO, LORA
from promptseg.errors import AdapterError


@pytest.fixture
def folder(tmp_path) -> Path:
    adapter, _ = random_adapter(tiny_default())
    write_adapter(adapter, tmp_path / "disc")
    return tmp_path / "disc"


class TestRoundTrip:
    @pytest.mark.parametrize("method", METHODS)
    def test_read_answers_as_written(self, method, tmp_path):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone, "disc", **METHODS[method])
        written = write_adapter(adapter, tmp_path / "disc")
        again = read_adapter(tmp_path / "disc")
        assert again.digest == written.digest == adapter.digest
        assert replace(again.info, files={}) == adapter.info
        stack = AdapterStack(backbone)
        stack.add(again)
        stack.use("disc")
        got = answers(backbone, again.tokens[4][None])
        other = tiny_default()
        stack = AdapterStack(other)
        stack.add(adapter)
        stack.use("disc")
        assert torch.allclose(got, answers(other, adapter.tokens[4][None]), atol=3e-2)

    def test_loads_in_peft(self, tmp_path):
        from peft import PeftModel

        backbone = tiny_default()
        adapter, learned = random_adapter(
            backbone, targets="attention+mlp", decoder="lora", dora=True
        )
        write_adapter(adapter, tmp_path)
        other = tiny_default()
        PeftModel.from_pretrained(other.module, str(tmp_path))
        assert torch.allclose(answers(other), learned[:2], atol=1e-5)

    def test_sizes(self, tmp_path):
        """Within 1 MB and 4 MB on the default model's own shape."""
        from promptseg.backbones.default import DefaultBackbone
        from promptseg.backbones.network import PromptsegConfig, PromptsegModel

        backbone = DefaultBackbone(PromptsegModel(PromptsegConfig()))
        from adapter_kit import config, info_of

        from promptseg.finetune.lora import make_learner

        chosen = config(rank=8, targets="attention_all+mlp+convolutions")
        info = info_of(backbone, chosen, True)
        learner = make_learner(backbone, chosen, 2)
        write_adapter(learner.adapter("big", info), tmp_path)
        lora, heads = ((tmp_path / name).stat().st_size for name in (LORA, HEADS))
        assert lora < 1_000_000
        assert lora + heads < 4_000_000


class TestNames:
    def test_listed_and_found(self, folder, monkeypatch):
        monkeypatch.setenv("PROMPTSEG_ADAPTERS", str(folder.parent))
        assert list_adapters()["disc"] == folder
        assert read_adapter("disc").info.organ == "disc"
        with pytest.raises(AdapterError, match="Did you mean disc"):
            read_adapter("disk")

    def test_folder_without_adapter(self, tmp_path):
        with pytest.raises(AdapterError, match=r"no promptseg\.json"):
            read_adapter(tmp_path)


class TestDamage:
    def edit(self, path: Path, **values) -> None:
        content = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps(content))

    def refused(self, folder: Path, words: str) -> None:
        with pytest.raises(AdapterError, match=words):
            read_adapter(folder)

    @pytest.mark.parametrize(
        ("file", "values", "words"),
        [
            (INFO, {"format": "other"}, "expected format"),
            (INFO, {"version": 99}, "version 99"),
            (INFO, {"rank": 5}, "r is 2"),
            (INFO, {"rank": 0}, "rank is 0"),
            (INFO, {"labels": {}}, "labels"),
            (INFO, {"labels": {"7": "x"}}, "tokens"),
            (INFO, {"organ": " "}, "organ is empty"),
            (INFO, {"labels": 3}, "malformed"),
            (CONFIG, {"r": 3}, "r is 3"),
            (CONFIG, {"use_dora": True}, "use_dora"),
            (CONFIG, {"bias": "all"}, "bias"),
            (CONFIG, {"target_modules": ["q"]}, "target_modules"),
            (CONFIG, {"peft_type": "IA3"}, "peft_type"),
        ],
    )
    def test_values(self, folder, file, values, words):
        self.edit(folder / file, **values)
        self.refused(folder, words)

    def test_missing_key(self, folder):
        content = json.loads((folder / INFO).read_text())
        del content["base_sha256"]
        (folder / INFO).write_text(json.dumps(content))
        self.refused(folder, "base_sha256")

    @pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
    def test_no_json(self, folder, text):
        (folder / INFO).write_text(text)
        self.refused(folder, "JSON")

    def test_huge_json(self, folder):
        (folder / INFO).write_text(" " * (1 << 21))
        self.refused(folder, "more than")

    def test_file_of_another_adapter(self, folder, tmp_path):
        adapter, _ = random_adapter(tiny_default(), seed=5)
        write_adapter(adapter, tmp_path / "other")
        shutil.copy(tmp_path / "other" / LORA, folder / LORA)
        self.refused(folder, "copy the whole folder")

    def test_truncated(self, folder):
        data = (folder / HEADS).read_bytes()
        (folder / HEADS).write_bytes(data[: len(data) // 2])
        self.edit(folder / INFO, files={})
        self.refused(folder, "whole safetensors")

    @pytest.mark.parametrize("name", [LORA, HEADS])
    def test_not_finite(self, folder, name):
        tensors = load_file(folder / name)
        key = sorted(tensors)[0]
        tensors[key] = torch.full_like(tensors[key], float("nan"))
        save_file(tensors, folder / name)
        self.edit(folder / INFO, files={})
        self.refused(folder, "finite")

    def test_full_disk_keeps_the_old(self, folder, monkeypatch):
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        adapter, _ = random_adapter(tiny_default(), seed=3)
        real = Path.write_bytes

        def full(self, data):
            if self.name == HEADS:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(self, data)

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(AdapterError, match="No space left"):
            write_adapter(adapter, folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


class TestPlainPeftModel:
    def test_state_names_are_those_of_peft(self, tmp_path):
        """`save_pretrained` of peft and ours name the same tensors."""
        from peft import PeftModel

        adapter, _ = random_adapter(tiny_default(), dora=True, decoder="frozen")
        write_adapter(adapter, tmp_path / "ours")
        wrapped = PeftModel.from_pretrained(tiny_network(), str(tmp_path / "ours"))
        wrapped.peft_config["default"].base_model_name_or_path = None
        wrapped.save_pretrained(str(tmp_path / "theirs"))
        ours, theirs = (load_file(tmp_path / who / LORA) for who in ("ours", "theirs"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
