"""One crop factor: kept with the model or the adapter, used in training and at every prompt."""

import json
from dataclasses import replace

import numpy as np
import pytest
from adapter_kit import cohort, config, disc_cases, random_adapter
from support import bright_volume, discs, segmenter, tiny_default, tiny_network

from promptseg.adapters import read_adapter, save_merged
from promptseg.backbones import load_backbone
from promptseg.backbones.default import DefaultBackbone, save_default
from promptseg.errors import AdapterError, FormatError, WeightsError
from promptseg.finetune.running import train_adapter
from promptseg.finetune.views import ViewMaker
from promptseg.inference.crop import CROP, choose_region
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.prompts.types import PromptSet


def model_with(factor):
    network = tiny_network()
    network.config.crop_factor = factor
    return DefaultBackbone(network)


def shown_share(backbone, **options) -> float:
    """Mean share of a plain training view that its target fills."""
    maker = ViewMaker(disc_cases(), 1, backbone.spec, config(**options), training=False)
    return float(np.mean([maker[n].masks[0].mean() for n in range(6)]))


class TestModel:
    def test_is_kept_in_its_file(self, tmp_path):
        save_default(model_with(2.2).module, tmp_path / "m.safetensors", {})
        assert load_backbone(tmp_path / "m.safetensors").spec.crop_factor == 2.2

    def test_a_file_without_one_says_none(self, tmp_path):
        save_default(tiny_network(), tmp_path / "m.safetensors", {})
        assert load_backbone(tmp_path / "m.safetensors").spec.crop_factor is None

    @pytest.mark.parametrize("factor", [0.5, 80, float("nan"), "wide", True])
    def test_one_that_no_view_can_have_is_refused(self, factor):
        with pytest.raises(WeightsError, match="crop_factor is"):
            model_with(factor)


class TestTraining:
    def test_views_are_cut_with_it(self):
        usual, twice = shown_share(tiny_default()), shown_share(model_with(2 * CROP.trained))
        assert usual / twice == pytest.approx(4, rel=0.1)

    def test_the_recipe_wins_over_the_model(self):
        assert shown_share(model_with(3.4), crop_factor=2.0) == pytest.approx(
            shown_share(model_with(2.0)), rel=1e-6
        )

    def test_the_adapter_keeps_it(self, tmp_path):
        trained = train_adapter(
            config(crop_factor=2.0, steps=1), *cohort(), tmp_path / "a", backbone=tiny_default()
        )
        assert trained.info.crop_factor == 2.0
        assert read_adapter(tmp_path / "a").info.crop_factor == 2.0
        told = json.loads((tmp_path / "a" / "promptseg.json").read_text())
        told["crop_factor"] = 40
        (tmp_path / "a" / "promptseg.json").write_text(json.dumps(told))
        with pytest.raises(AdapterError, match="crop_factor is 40"):
            read_adapter(tmp_path / "a")

    def test_a_recipe_with_an_impossible_one_is_refused(self):
        with pytest.raises(FormatError, match="crop_factor"):
            config(crop_factor=0.2)


class TestPrompts:
    """The view that a box is answered in, in boxes."""

    def view(self, backbone, *adapters, use=None) -> float:
        whole = segmenter(backbone)
        for adapter in adapters:
            whole.adapters.add(adapter)
        whole.adapters.use(use)
        volume = bright_volume(discs((96, 96, 3), 2, {1: (48, 48, 12)}))
        session = whole.session(volume)
        engine = session.asker.prepared(PromptSet(), 2)
        box = SlicePrompts(box=((36, 36, 1), (60, 60, 2)))
        return choose_region(engine.decoder, 2, engine.spacing, {1: box}).shape[0] / 24

    def test_of_a_model(self):
        assert self.view(model_with(3.0)) == pytest.approx(3.0, abs=0.1)

    def test_of_an_adapter_before_that_of_its_model(self):
        backbone = model_with(3.0)
        adapter, _ = random_adapter(backbone)
        own = replace(adapter, name="own", info=replace(adapter.info, crop_factor=2.0))
        assert self.view(backbone, own, adapter, use="own") == pytest.approx(2.0, abs=0.1)
        assert self.view(backbone, use=None) == pytest.approx(3.0, abs=0.1)

    def test_files_without_one_are_asked_as_ever(self):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        assert self.view(backbone, adapter) == pytest.approx(CROP.trained, abs=0.1)
        assert self.view(tiny_default(), adapter, use="one") == pytest.approx(CROP.adapted, abs=0.1)

    def test_a_merged_model_keeps_that_of_its_adapter(self, tmp_path):
        backbone = tiny_default()
        adapter, _ = random_adapter(backbone)
        whole = segmenter(backbone)
        whole.adapters.add(replace(adapter, info=replace(adapter.info, crop_factor=2.0)))
        whole.adapters.use("one")
        path = save_merged(whole.adapters, tmp_path / "merged.safetensors")
        assert load_backbone(path).spec.crop_factor == 2.0
        assert backbone.spec.crop_factor is None
