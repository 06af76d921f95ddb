import pytest
import torch
from adapter_kit import cohort, config, random_adapter
from support import tiny_default

from promptseg.adapters import write_adapter
from promptseg.errors import AdapterError
from promptseg.finetune.config import load_recipe
from promptseg.finetune.running import train_adapter

BARELY = {"steps": 1, "rate": 1e-9, "weight_decay": 0.0, "average": 0.0, "batch": 1}


def trained(folder, backbone, start, named=None, **options):
    images, labels = cohort(2)
    chosen = config(**{**BARELY, **options}, label_names={1: "disc"}, start=named)
    return train_adapter(chosen, images, labels, folder, backbone=backbone, start=start)


class TestStart:
    def test_goes_on_from_the_adapter(self, tmp_path):
        backbone = tiny_default()
        start, _ = random_adapter(backbone)
        found = trained(tmp_path / "out", backbone, start)
        assert found.lora.keys() == start.lora.keys()
        for name, value in start.lora.items():
            assert torch.allclose(found.lora[name], value, atol=1e-6)
        for name, value in start.deltas.items():
            assert torch.allclose(found.deltas[name], value, atol=1e-4)
        assert torch.allclose(found.tokens[1], start.tokens[1], atol=1e-5)

    def test_without_a_start_begins_at_the_base(self, tmp_path):
        found = trained(tmp_path / "out", tiny_default(), None)
        assert all(bool((d == 0).all()) for d in found.deltas.values())

    def test_other_rank_is_refused(self, tmp_path):
        backbone = tiny_default()
        start, _ = random_adapter(backbone)
        with pytest.raises(AdapterError, match="rank and targets"):
            trained(tmp_path / "out", backbone, start, rank=3)

    def test_what_would_not_learn_is_refused(self, tmp_path):
        backbone = tiny_default()
        start, _ = random_adapter(backbone)
        with pytest.raises(AdapterError, match="would not learn"):
            trained(tmp_path / "out", backbone, start, decoder="frozen")

    def test_other_base_is_refused(self, tmp_path):
        start, _ = random_adapter(tiny_default(1))
        with pytest.raises(AdapterError, match="was trained on"):
            trained(tmp_path / "out", tiny_default(0), start)

    def test_resume_with_another_start_is_refused(self, tmp_path):
        backbone = tiny_default()
        one, _ = random_adapter(backbone)
        other, _ = random_adapter(backbone, seed=5)
        trained(tmp_path / "out", backbone, one)
        images, labels = cohort(2)
        chosen = config(**BARELY, label_names={1: "disc"})
        with pytest.raises(AdapterError, match="start was"):
            train_adapter(chosen, images, labels, tmp_path / "out", resume=True,
                          backbone=backbone, start=other)  # fmt: skip


class TestNamedInTheRecipe:
    def test_goes_on_from_it(self, tmp_path):
        backbone = tiny_default()
        start, _ = random_adapter(backbone)
        write_adapter(start, tmp_path / "first")
        found = trained(tmp_path / "out", backbone, None, named=str(tmp_path / "first"))
        for name, value in start.deltas.items():
            assert torch.allclose(found.deltas[name], value, atol=1e-4)

    def test_lies_beside_the_recipe(self, tmp_path):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text('organ = "disc"\nstart = "first"\n')
        assert load_recipe(recipe).start_folder == str(tmp_path / "first")

    def test_its_place_may_change_before_a_resume(self, tmp_path):
        backbone = tiny_default()
        start, _ = random_adapter(backbone)
        for name in ("first", "moved"):
            write_adapter(start, tmp_path / name)
            images, labels = cohort(2)
            chosen = config(**BARELY, label_names={1: "disc"}, start=str(tmp_path / name))
            train_adapter(chosen, images, labels, tmp_path / "out", resume=True, backbone=backbone)

    def test_nothing_there_is_refused_before_training(self, tmp_path):
        with pytest.raises(AdapterError, match="nowhere"):
            trained(tmp_path / "out", tiny_default(), None, named=str(tmp_path / "nowhere"))
        assert not (tmp_path / "out").exists()
