"""Words in sessions, alone and with clicks, on a tiny adapter with random values."""

from dataclasses import replace

import numpy as np
import pytest
from support import segmenter, tiny_default
from text_kit import tiny_tower, use_tiny_tower, worded_adapter, words_for

import promptseg as ps
from promptseg.adapters import write_adapter
from promptseg.errors import PromptError
from promptseg.finetune import words as finetune_words
from promptseg.predictor import automatic as predictor_automatic
from promptseg.session import spoken as session_spoken
from promptseg.text import selecting

HEART = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}


@pytest.fixture(autouse=True)
def tower(monkeypatch, tmp_path):
    use_tiny_tower(monkeypatch, tmp_path)
    assert finetune_words.label_words({1: "liver"}) is not None


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    data = rng.normal(100, 30, (40, 44, 6)).astype(np.int16)
    data[10:30, 12:32, 1:5] += 80
    return ps.Volume(data, np.diag([1.0, 1.0, 4.0, 1.0]), "MR")


def whole(*adapters, active=None):
    """A segmenter on the tiny network with some adapters."""
    made = segmenter(tiny_default())
    for labels, name, present in adapters:
        made.adapters.add(worded_adapter(tiny_default(), labels, name, present, words_for(labels)))
    if active:
        made.adapters.use(active)
    return made


class TestAlone:
    def test_gives_what_no_prompt_gives(self, volume):
        made = whole(({1: "left atrium"}, "la", 20.0), active="la")
        auto = made.segment(volume)
        made.adapters.use(None)
        said = made.segment(volume, [ps.Text("LA")])
        assert auto.data.any()
        assert np.array_equal(said.data, auto.data)
        assert said.labels == {1: "left atrium"}
        assert said.score[1] == pytest.approx(auto.score[1])
        assert made.adapters.active is None
        (told,) = said.report["text"]
        assert (told["concept"], told["adapter"], told["found"]) == ("left atrium", "la", True)
        assert told["likeness"] == 1
        assert said.report["vocabulary"] == ["left atrium"]

    def test_several_words_are_several_targets(self, volume):
        made = whole((HEART, "cardiac", 20.0), ({7: "liver"}, "liver", 20.0))
        said = made.segment(volume, [ps.Text("LV"), ps.Text("myocardium"), ps.Text("liver", 8)])
        assert said.labels == {8: "liver"}
        assert {t["target"]: t["labels"] for t in said.report["text"]} == {1: [3], 9: [2], 8: [7]}
        assert set(said.report["adapters"]) == {"cardiac", "liver"}
        assert said.report["encoded_slices"] > 0
        assert set(said.score) == {8}

    def test_what_lies_where_others_are_is_said_and_not_added(self, volume):
        made = whole((HEART, "cardiac", 20.0), ({7: "liver"}, "liver", 20.0))
        said = made.segment(volume, [ps.Text("liver", 8), ps.Text("LV")])
        assert said.targets == (8,)
        (hidden,) = [told for told in said.report["text"] if told["target"] == 1]
        assert not hidden["found"]
        assert "only where other targets are already" in hidden["reason"]

    def test_two_names_of_one_thing_are_one_target(self, volume):
        made = whole(({1: "left atrium"}, "la", 20.0))
        once = made.segment(volume, [ps.Text("left atrium")])
        twice = made.segment(volume, [ps.Text("left atrium"), ps.Text("左心房", 2)])
        assert np.array_equal(once.data, twice.data)
        assert twice.targets == (1,)
        assert twice.labels == {1: "left atrium"}
        first, second = twice.report["text"]
        assert (first["note"], second["target"], second["found"]) == (None, 1, True)
        assert second["note"] == "'左心房' means the same as 'left atrium': nothing was added"

    def test_one_name_at_two_clicks_is_two_targets(self, volume):
        made = whole(({1: "left atrium"}, "la", 20.0), active="la")
        clicks = [ps.Point((14, 16, 3)), ps.Point((26, 28, 3), target=2)]
        said = made.segment(volume, [*clicks, ps.Text("LA"), ps.Text("LA", 2)])
        assert said.targets == (1, 2)

    def test_organ_of_several_labels_is_one_target(self, volume):
        made = whole((HEART, "cardiac", 20.0), active="cardiac")
        every = made.segment(volume)
        made.adapters.use(None)
        said = made.segment(volume, [ps.Text("cardiac", 5)])
        assert np.array_equal(said.data == 5, every.data > 0)
        assert said.targets == (5,)
        assert set(said.score) == {5}

    def test_absent_is_empty_with_the_reason(self, volume):
        made = whole((HEART, "cardiac", -20.0), ({7: "liver"}, "liver", 20.0))
        said = made.segment(volume, [ps.Text("left ventricle")])
        assert not said.data.any()
        assert (said.targets, said.labels) == ((), {})
        (told,) = said.report["text"]
        assert not told["found"]
        assert "'left ventricle' (left ventricle) was judged absent" in told["reason"]
        assert len(told["nearest"]) == 3
        assert "left ventricle" not in told["nearest"]

    def test_near_words_move_the_token(self, volume, monkeypatch):
        monkeypatch.setattr(tiny_tower(), "threshold", -1.0)
        made = whole(({1: "left atrium"}, "la", 20.0))
        selector = selecting.Selector(made.adapters)
        listed = selector.tokens(selector.choose("left atrium"))[1]
        monkeypatch.setattr(
            selecting.Resolver, "nearest", lambda self, words, count=3: [("left atrium", 0.95)]
        )
        chosen = selector.choose("chamber that is upper left")
        assert chosen.likeness == pytest.approx(0.95)
        assert not np.allclose(selector.tokens(chosen)[1], listed)
        (told,) = made.segment(volume, [ps.Text("chamber that is upper left")]).report["text"]
        assert told["likeness"] == pytest.approx(0.95)
        assert told["nearest"] == ["left atrium"]

    def test_uncertainty(self, volume):
        made = whole(({1: "left atrium"}, "la", 20.0))
        said = made.segment(volume, [ps.Text("left atrium")], uncertainty=True)
        assert said.uncertainty.shape == volume.shape


class TestSections:
    """Words and no prompt know the largest cross-section of each label, along its own axis."""

    @pytest.fixture
    def asked(self, monkeypatch):
        told = []

        def spy(engine, tokens, progress=None, sections=None):
            told.append(dict(sections or {}))
            return automatic(engine, tokens, progress, sections)

        automatic = predictor_automatic.segment_unprompted
        monkeypatch.setattr(predictor_automatic, "segment_unprompted", spy)
        monkeypatch.setattr(session_spoken, "segment_unprompted", spy)
        return told

    def known(self, area=7.5, **info):
        labels = {1: "left atrium"}
        one = worded_adapter(tiny_default(), labels, "la", 20.0, words_for(labels))
        made = segmenter(tiny_default())
        made.adapters.add(replace(one, info=replace(one.info, sections={1: area}, **info)))
        return made

    def test_what_is_larger_than_in_training_is_said_of_its_own_target(self, volume):
        for area, told in ((1e-4, 1), (1e4, 0)):
            session = self.known(area).session(volume)
            session.add(ps.Text("LA", 3))
            found = session.propagate()
            assert found.data.any()
            said = [
                n for n in found.report["notes"] if n.startswith("target 3 has a cross-section")
            ]
            assert len(said) == told

    def test_by_words_by_none_and_under_a_click(self, volume, asked):
        made = self.known()
        session = made.session(volume)
        session.add(ps.Text("LA", 3))
        first = session.propagate()
        assert asked == [{3: 7.5}]
        inside = tuple(int(n) for n in np.argwhere(first.data)[0])
        session.add(ps.Point(inside, positive=False, target=3))
        session.propagate()
        assert asked[-1] == {1: 7.5}
        made.adapters.use("la")
        made.segment(volume)
        assert asked[-1] == {1: 7.5}

    def test_not_along_another_axis(self, volume, asked):
        made = self.known(axis="axial")
        made.segment(volume, [ps.Text("LA")], axis="coronal")
        made.adapters.use("la")
        made.segment(volume, axis="coronal")
        assert asked == [{}, {}]


class TestWithClicks:
    def test_the_token_goes_with_the_click(self, volume):
        made = whole(({1: "left atrium"}, "la", 20.0), active="la")
        click = ps.Point((20, 20, 3))
        plain = made.segment(volume, [click])
        made.adapters.use(None)
        said = made.segment(volume, [click, ps.Text("left atrium")])
        assert said.labels == {1: "left atrium"}
        assert not np.array_equal(said.data, plain.data)
        assert np.array_equal(said.data, made.segment(volume, [ps.Text("左心房"), click]).data)

    def test_targets_without_words_keep_the_active_adapter(self, volume):
        made = whole(({1: "left atrium"}, "la", 20.0))
        box = ps.Box((10, 12, 3), (30, 32, 4), target=2)
        plain = made.segment(volume, [box])
        both = made.segment(volume, [box, ps.Text("left atrium", 3)])
        free = both.data != 3
        assert np.array_equal((both.data == 2) & free, (plain.data == 2) & free)

    def test_corrections_change_what_words_gave(self, volume):
        made = whole(({1: "left atrium"}, "la", 20.0))
        session = made.session(volume)
        session.add(ps.Text("left atrium"))
        first = session.propagate()
        inside = tuple(int(n) for n in np.argwhere(first.data == 1)[0])
        session.add(ps.Point(inside, positive=False))
        assert session.propagate().data.shape == volume.shape
        session.undo()
        assert np.array_equal(session.propagate().data, first.data)
        assert np.array_equal(made.segment(volume, session.prompts).data, first.data)


class TestRefused:
    @pytest.mark.parametrize("prompts", [[], [ps.Point((20, 20, 3))]])
    def test_before_anything_is_computed(self, volume, prompts):
        made = whole(({1: "left atrium"}, "la", 20.0))
        session = made.session(volume)
        with pytest.raises(PromptError, match="'optic nerve' is known"):
            session.add(*prompts, ps.Text("optic nerve"))
        assert not session.prompts

    def test_without_any_adapter(self, volume):
        with pytest.raises(PromptError, match="No adapter"):
            whole().segment(volume, [ps.Text("spleen")])


def test_an_installed_adapter_is_found_and_named(volume, monkeypatch, tmp_path):
    made = whole()
    adapter = worded_adapter(
        made.backbone, {1: "spleen"}, "spleens", 20.0, words_for({1: "spleen"})
    )
    write_adapter(adapter, tmp_path / "spleens")
    monkeypatch.setattr(selecting, "list_adapters", lambda: {"spleens": tmp_path / "spleens"})
    said = made.segment(volume, [ps.Text("lien")])
    assert said.report["text"][0]["adapter"] == "spleens"
    assert made.adapters.active is None
