import numpy as np
import pytest
import torch
from support import tiny_default
from text_kit import tiny_tower, worded_adapter

import promptseg as ps
from promptseg.adapters import AdapterInfo, AdapterStack, write_adapter
from promptseg.errors import PromptError, WeightsError
from promptseg.text import selecting
from promptseg.text.selecting import Selector, labels_for, own_labels
from promptseg.text.vocabulary import vocabulary

HEART = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
LUNGS = {
    1: "lung_upper_lobe_left", 2: "lung_lower_lobe_left", 3: "lung_upper_lobe_right",
    4: "lung_middle_lobe_right", 5: "lung_lower_lobe_right", 9: "liver",
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(selecting, "list_adapters", dict)
    monkeypatch.setenv("PROMPTSEG_ADAPTERS", str(tmp_path))


def info(labels, organ="thing", **further) -> AdapterInfo:
    return AdapterInfo(organ, labels, "default", "promptseg", "0", **further)


class TestLabels:
    def test_by_concept_and_by_parts(self):
        def found(name):
            return labels_for(info(LUNGS), vocabulary()[name])

        assert found("left lung upper lobe") == (1,)
        assert found("left lung") == (1, 2)
        assert found("lung") == (1, 2, 3, 4, 5)
        assert found("liver") == (9,)
        assert found("heart") == ()
        assert labels_for(info(HEART), vocabulary()["heart"]) == ()

    def test_by_the_adapters_own_words(self):
        own = info(HEART, "heart", synonyms=("ventricles",), label_words={2: ("muscly bit",)})
        assert own_labels(own, "the Muscly Bits") == (2,)
        assert own_labels(own, "heart") == (1, 2, 3)
        assert own_labels(own, "Ventricle") == (1, 2, 3)
        assert own_labels(own, "liver") == ()


class TestChoice:
    @pytest.fixture
    def selector(self):
        stack = AdapterStack(tiny_default())
        stack.add(worded_adapter(tiny_default(), HEART, "cardiac"))
        stack.add(worded_adapter(tiny_default(), {1: "liver"}, "liver", modality="CT"))
        return Selector(stack, tiny_tower())

    def test_words_select_their_adapter(self, selector):
        assert selector.known() == (*HEART.values(), "liver")
        chosen = selector.choose("左心室")
        assert (chosen.adapter, chosen.labels, chosen.name) == ("cardiac", (3,), "left ventricle")
        assert chosen.likeness == 1
        assert selector.choose("hepar").adapter == "liver"

    def test_other_modality_is_noted(self, selector):
        assert selector.choose("liver", "CT").note == ""
        assert "trained on CT, this volume is MR" in selector.choose("liver", "MR").note

    def test_known_but_not_segmented_here(self, selector):
        with pytest.raises(PromptError, match=r"'optic chiasm' is known.*no adapter here") as told:
            selector.choose("optic chiasm")
        near = str(told.value).partition("Nearest that can be asked for: ")[2].split(". ")[0]
        assert len(near.split(", ")) == 3
        assert set(near.split(", ")) <= set(selector.known())

    def test_unknown(self, selector, monkeypatch):
        monkeypatch.setattr(selector.tower, "threshold", 1.1)
        with pytest.raises(PromptError, match="nothing that is known by words") as told:
            selector.choose("quarterly report")
        assert "1.10 is needed" in str(told.value)
        assert "Nearest that can be asked for" in str(told.value)

    def test_no_adapter_at_all(self):
        selector = Selector(AdapterStack(tiny_default()), tiny_tower())
        with pytest.raises(PromptError, match="No adapter is loaded or installed"):
            selector.choose("liver")

    def test_unlisted_words_without_a_tower(self, selector, monkeypatch):
        def missing(path=None):
            raise WeightsError("text.safetensors is nowhere")

        monkeypatch.setattr(selecting, "load_tower", missing)
        selector = Selector(selector.stack)
        assert selector.choose("LV").labels == (3,)
        with pytest.raises(WeightsError, match="nowhere"):
            selector.choose("whatever pumps the blood")


class TestInstalled:
    def test_is_loaded_when_words_ask_for_it(self, monkeypatch, tmp_path):
        backbone = tiny_default()
        write_adapter(worded_adapter(backbone, {1: "spleen"}, "spleens"), tmp_path / "spleens")
        monkeypatch.setattr(selecting, "list_adapters", lambda: {"spleens": tmp_path / "spleens"})
        selector = Selector(AdapterStack(backbone), tiny_tower())
        chosen = selector.choose("脾脏")
        assert chosen.adapter == "spleens"
        assert not selector.stack.names
        assert set(selector.tokens(chosen)) == {1}
        assert selector.stack.names == ("spleens",)
        assert selector.stack.active is None
        assert selector.choose("脾脏") == chosen

    def test_the_one_for_fewer_things_comes_first(self, monkeypatch, tmp_path):
        backbone, places = tiny_default(), {}
        for name, labels in (("all", {1: "liver", 2: "left ventricle"}), ("one", {1: "liver"})):
            places[name] = tmp_path / name
            write_adapter(worded_adapter(backbone, labels, name), places[name])
        monkeypatch.setattr(selecting, "list_adapters", lambda: places)
        stack = AdapterStack(backbone)
        selector = Selector(stack, tiny_tower())
        assert selector.choose("liver").adapter == "one"
        assert selector.choose("LV").adapter == "all"
        stack.add(worded_adapter(backbone, {1: "spleen", 2: "liver"}, "loaded"))
        assert selector.choose("liver").adapter == "loaded"

    def test_for_another_model_is_said(self, monkeypatch, tmp_path):
        write_adapter(worded_adapter(tiny_default(1), {1: "spleen"}, "other"), tmp_path / "other")
        monkeypatch.setattr(selecting, "list_adapters", lambda: {"other": tmp_path / "other"})
        selector = Selector(AdapterStack(tiny_default()), tiny_tower())
        with pytest.raises(PromptError, match=r"other is for another model"):
            selector.choose("spleen")

    def test_that_cannot_be_read_is_passed_over(self, monkeypatch, tmp_path):
        (tmp_path / "promptseg.json").write_text("no")
        monkeypatch.setattr(selecting, "list_adapters", lambda: {"broken": tmp_path})
        with pytest.raises(PromptError, match="no adapter here"):
            Selector(AdapterStack(tiny_default()), tiny_tower()).choose("spleen")


class TestImagesOfOneSlice:
    """Installed: `flat` for liver and colon in images of one slice, `deep` for liver in volumes."""

    @pytest.fixture
    def stack(self, monkeypatch, tmp_path):
        backbone, places = tiny_default(), {}
        for name, labels in (("flat", {1: "liver", 2: "colon"}), ("deep", {1: "liver"})):
            places[name] = tmp_path / name
            made = worded_adapter(backbone, labels, name, single_slice=name == "flat")
            write_adapter(made, places[name])
        monkeypatch.setattr(selecting, "list_adapters", lambda: places)
        return AdapterStack(backbone)

    @pytest.mark.parametrize(("single_slice", "name"), [(True, "flat"), (False, "deep")])
    def test_have_adapters_of_their_own(self, stack, single_slice, name):
        selector = Selector(stack, tiny_tower(), single_slice)
        assert selector.choose("liver").adapter == name

    @pytest.mark.parametrize(
        ("modality", "name"), [("MR", "hearts"), ("CT", "flat"), (None, "flat")]
    )
    def test_one_for_their_very_modality_comes_first(self, stack, modality, name, tmp_path):
        made = worded_adapter(stack.backbone, {1: "liver"}, "hearts", modality="MR")
        write_adapter(made, tmp_path / "hearts")
        selecting.list_adapters()["hearts"] = tmp_path / "hearts"
        selector = Selector(stack, tiny_tower(), single_slice=True)
        assert selector.choose("liver", modality).adapter == name
        assert Selector(stack, tiny_tower()).choose("liver", "CT").adapter == "deep"

    def test_what_was_loaded_for_a_volume_does_not_answer_a_picture(self, stack):
        volumes = Selector(stack, tiny_tower())
        volumes.use(volumes.choose("liver"))
        pictures = Selector(stack, tiny_tower(), single_slice=True)
        pictures.use(pictures.choose("liver"))
        assert set(stack.names) == {"deep", "flat"}
        assert volumes.choose("liver").adapter == "deep"
        assert pictures.choose("liver").adapter == "flat"

    def test_their_adapters_are_not_asked_of_volumes(self, stack):
        with pytest.raises(PromptError, match="flat is for images of one slice"):
            Selector(stack, tiny_tower()).choose("colon")

    def test_unless_one_is_in_use(self, stack):
        selector = Selector(stack, tiny_tower(), single_slice=True)
        selector.use(selector.choose("colon"))
        stack.use("flat")
        assert Selector(stack, tiny_tower()).choose("colon").adapter == "flat"

    def test_the_users_own_come_first(self, stack):
        stack.add(worded_adapter(stack.backbone, {1: "liver"}, "mine"))
        for single_slice in (True, False):
            assert Selector(stack, tiny_tower(), single_slice).choose("liver").adapter == "mine"

    @pytest.mark.parametrize(("shape", "name"), [((24, 32, 1), "flat"), ((32, 1, 24), "flat"),
                                                 ((32, 32, 4), "deep")])  # fmt: skip
    def test_sessions_tell_them_by_their_shape(self, stack, shape, name):
        rng = np.random.default_rng(0)
        volume = ps.Volume(rng.integers(0, 255, shape).astype(np.uint8), np.eye(4))
        segmenter = ps.Segmenter(stack.backbone)
        result = segmenter.segment(volume, [ps.Text("liver")])
        assert result.report["text"][0]["adapter"] == name


class TestOwnNames:
    @pytest.fixture
    def backbone(self):
        return tiny_default(names=("liver", "left kidney"))

    def test_a_network_that_knows_names_needs_no_adapter(self, backbone):
        selector = Selector(AdapterStack(backbone), tiny_tower())
        chosen = selector.choose("肝脏")
        assert (chosen.name, chosen.labels) == ("liver", (1,))
        token = selector.tokens(chosen)[1]
        assert torch.equal(token, backbone.named_tokens()[0])
        assert selector.known() == ("liver", "left kidney")

    def test_installed_adapters_come_first_on_one_slice_too(self, backbone, monkeypatch, tmp_path):
        write_adapter(worded_adapter(backbone, {1: "liver"}, "livers"), tmp_path / "livers")
        monkeypatch.setattr(selecting, "list_adapters", lambda: {"livers": tmp_path / "livers"})
        for single_slice in (True, False):
            selector = Selector(AdapterStack(backbone), tiny_tower(), single_slice)
            assert selector.choose("liver").adapter == "livers"
            assert selector.choose("left kidney").name == "left kidney"

    def test_an_adapter_for_the_same_organ_comes_first(self, backbone):
        stack = AdapterStack(backbone)
        stack.add(worded_adapter(backbone, {1: "liver"}, "mine"))
        selector = Selector(stack, tiny_tower())
        assert selector.choose("liver").adapter == "mine"
        assert selector.choose("left kidney").name == "left kidney"

    def test_a_network_without_names_offers_none(self):
        assert Selector(AdapterStack(tiny_default()), tiny_tower()).known() == ()

    def test_it_answers_in_a_session(self, backbone):
        rng = np.random.default_rng(0)
        volume = ps.Volume(rng.integers(0, 255, (32, 32, 8)).astype(np.uint8), np.eye(4))
        result = ps.Segmenter(backbone).segment(volume, [ps.Text("liver")])
        assert result.report["text"][0]["concept"] == "liver"
        assert result.data.shape == volume.shape
