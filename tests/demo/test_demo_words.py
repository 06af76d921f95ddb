"""Words on the page: two names are one target, what is absent adds nothing."""

import numpy as np
import pytest
from demo_kit import BrightModels, bright_server, masks_equal
from support import segmenter, tiny_default
from text_kit import tiny_tower, worded_adapter, words_for

import promptseg as ps
from promptseg.demo import looking
from promptseg.demo.words import give_words
from promptseg.errors import PromptError
from promptseg.text import selecting
from promptseg.text import tower as towers

KNOWN = (({1: "left atrium"}, "la", 20.0), ({7: "liver"}, "liver", -20.0))


class WordedModels(BrightModels):
    """A tiny network with an adapter that finds the left atrium, and one that finds no liver."""

    def _open(self, model, adapter):
        made = segmenter(tiny_default())
        for labels, name, present in KNOWN:
            words = words_for(labels)
            made.adapters.add(worded_adapter(tiny_default(), labels, name, present, words))
        return made


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(towers, "load_tower", lambda path=None: tiny_tower())
    monkeypatch.setattr(selecting, "load_tower", lambda path=None: tiny_tower())
    monkeypatch.setattr(selecting, "list_adapters", dict)
    made = bright_server(tmp_path)
    made.models = WordedModels("cpu", "fp32")
    return made


@pytest.fixture
def visit(server):
    data = np.random.default_rng(0).normal(100, 30, (40, 44, 6)).astype(np.int16)
    data[10:30, 12:32, 1:5] += 80
    one = server.visits.of("one")
    volume = ps.Volume(data, np.diag([1.0, 1.0, 4.0, 1.0]), "MR")
    looking.open_volume(one, volume, "heart.nii.gz", server.visits)
    return one


class TestWords:
    def test_the_second_name_of_a_target_adds_nothing(self, server, visit):
        give_words(visit, server.models, ps.Text("left atrium"))
        before, prompts = visit.labels, visit.prompts
        assert visit.targets[1].name == "left atrium"
        give_words(visit, server.models, ps.Text("左心房"))
        assert list(visit.targets) == [1]
        assert visit.labels is before
        assert list(visit.prompts) == list(prompts)
        kind, said = visit.message
        assert kind == "error"
        assert "“左心房” means the same as “left atrium” (target 1): nothing was added" in said

    def test_what_is_absent_adds_nothing(self, server, visit):
        give_words(visit, server.models, ps.Text("left atrium"))
        before = visit.labels.copy()
        give_words(visit, server.models, ps.Text("liver"))
        assert list(visit.targets) == [1]
        assert masks_equal(visit.labels, before)
        assert len(visit.prompts) == 1
        assert "“liver” (liver) was not found in this image: nothing was added" in visit.message[1]

    def test_absent_at_first_leaves_the_image_as_it_was_opened(self, server, visit):
        give_words(visit, server.models, ps.Text("肝脏"))
        assert (visit.labels, len(visit.prompts), visit.propagated) == (None, 0, False)
        assert visit.targets[1].name == "target 1"

    def test_words_that_nothing_knows_are_refused(self, server, visit):
        give_words(visit, server.models, ps.Text("left atrium"))
        before = visit.labels
        with pytest.raises(PromptError, match="'optic nerve' is known"):
            give_words(visit, server.models, ps.Text("optic nerve"))
        assert visit.labels is before
