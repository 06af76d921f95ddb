"""Words that no adapter knows, answered by a fake image-text model that knows shapes."""

import numpy as np
import pytest
from clip_kit import save_plain_folder
from shape_kit import BAR, DISC, SHAPE, ShapeModel
from support import BrightRegion, dice, segmenter

import promptseg as ps
from promptseg.errors import PromptError
from promptseg.text import proposals, selecting
from promptseg.text.proposal_masks import MaskRules


@pytest.fixture(autouse=True)
def _few_clicks(monkeypatch):
    monkeypatch.setattr(selecting, "list_adapters", dict)
    monkeypatch.setattr(proposals, "LOOKS", 3)
    quick = MaskRules(grid=8)
    every = proposals.automatic_masks
    monkeypatch.setattr(
        proposals, "automatic_masks", lambda d, f, i, r: every(d, f, i, quick if r is None else r)
    )


@pytest.fixture
def volume():
    data = (DISC | BAR).astype(np.int16) * 100
    return ps.Volume(data, np.diag([1.0, 1.0, 2.0, 1.0]), "MR")


def made(**options):
    return segmenter(BrightRegion(), text_model=ShapeModel(), **options)


class TestWords:
    def test_a_thing_unknown_to_all_adapters_is_found_in_3d(self, volume):
        said = made().segment(volume, [ps.Text("some bar", 4)])
        assert dice(said.data == 4, BAR) > 0.9
        assert said.labels == {4: "some bar"}
        (told,) = said.report["text"]
        assert (told["adapter"], told["found"], told["reason"]) == (None, True, None)
        assert told["likeness"] > 0.9
        assert "slice" in told["note"]

    def test_two_things_are_two_targets(self, volume):
        said = made().segment(volume, [ps.Text("bar"), ps.Text("disc", 2)])
        assert dice(said.data == 1, BAR) > 0.9
        assert dice(said.data == 2, DISC) > 0.9

    def test_a_thing_that_is_not_there_is_empty_with_the_reason(self):
        only = ps.Volume(DISC.astype(np.int16) * 100, np.diag([1.0, 1.0, 2.0, 1.0]), "MR")
        said = made().segment(only, [ps.Text("bar")], uncertainty=True)
        assert said.data.shape == SHAPE
        assert not said.data.any()
        (told,) = said.report["text"]
        assert not told["found"]
        assert "'bar' was not found" in told["reason"]

    def test_known_words_are_asked_for_in_english(self, volume):
        model = ShapeModel()
        segmenter(BrightRegion(), text_model=model).segment(volume, [ps.Text("左心房")])
        assert any("left atrium" in text for text in model.texts)
        assert not any("左" in text for text in model.texts)

    def test_a_click_on_the_answer_corrects_it(self, volume):
        model = ShapeModel()
        session = segmenter(BrightRegion(), text_model=model).session(volume)
        session.add(ps.Text("bar"))
        session.propagate()
        seen = len(model.pictures)
        session.add(ps.Point((10, 11, 5)))
        corrected = session.propagate()
        assert len(model.pictures) == seen
        assert (corrected.data[..., 5] > 0)[10, 11]
        session.undo()
        assert dice(session.propagate().data == 1, BAR) > 0.9

    def test_prompts_that_point_go_before_the_model(self, volume):
        model = ShapeModel()
        said = segmenter(BrightRegion(), text_model=model).segment(
            volume, [ps.Text("bar"), ps.Point((10, 11, 5))]
        )
        assert not model.pictures
        assert dice(said.data == 1, DISC) > 0.9
        assert "other prompts" in said.report["text"][0]["note"]

    def test_without_a_text_model_the_words_are_refused(self, volume):
        with pytest.raises(PromptError):
            segmenter(BrightRegion()).segment(volume, [ps.Text("liver")])


def test_a_folder_is_loaded_as_the_text_model(tmp_path):
    from support import tiny_network

    from promptseg.backbones.default import save_default
    from promptseg.text.clip import ClipModel

    save_plain_folder(tmp_path / "clip")
    save_default(tiny_network(), tmp_path / "tiny.safetensors", {})
    loaded = ps.Segmenter.from_pretrained(
        tmp_path / "tiny.safetensors", device="cpu", text_model=tmp_path / "clip"
    )
    assert isinstance(loaded.text_model, ClipModel)
