"""Tokens of labels that follow words, in training and in the adapter's files."""

import json
from dataclasses import replace

import pytest
import torch
from adapter_kit import cohort, config, disc_cases
from support import tiny_default, tiny_sam
from text_kit import WIDTH, tiny_tower, worded_adapter, words_for

from promptseg.adapters import read_adapter, write_adapter
from promptseg.adapters.stack import AdapterStack
from promptseg.errors import AdapterError, WeightsError
from promptseg.finetune.learning import rows_of
from promptseg.finetune.lora import make_learner
from promptseg.finetune.processes import Processes
from promptseg.finetune.running import plan_adapter, train_adapter
from promptseg.finetune.trainer import Trainer
from promptseg.finetune.views import ViewMaker
from promptseg.finetune.words import label_words
from promptseg.text import tower as towers

NAMES = {1: "left atrium", 2: "left ventricle"}
ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def tower(monkeypatch):
    monkeypatch.setattr(towers, "load_tower", lambda path=None: tiny_tower())
    return tiny_tower()


def trainer(**options) -> Trainer:
    chosen = config(**options)
    backbone = tiny_default()
    learner = make_learner(backbone, chosen, 1, words_for({1: "left atrium"}))
    return Trainer(learner, ViewMaker(disc_cases(), 1, backbone.spec, chosen), chosen, ALONE)


class TestWords:
    def test_names_synonyms_and_phrases_of_each_label(self):
        words = words_for(NAMES)
        assert words.names[0][0] == "left atrium"
        assert {"LA", "左心房"} <= set(words.names[0])
        assert "左心室" in words.names[1]
        assert len(words.embeddings[0]) > 3 * len(words.names[0])
        assert words.size == WIDTH

    def test_synonyms_of_the_recipe_are_the_only_labels(self):
        assert "upper left room" in label_words({1: "left atrium"}, ["upper left room"]).names[0]
        assert "upper left room" not in sum(label_words(NAMES, ["upper left room"]).names, ())

    def test_a_name_that_is_no_concept(self):
        assert words_for({1: "disc of mine"}).names == (("disc of mine",),)

    def test_without_a_tower_nothing_is_projected(self, monkeypatch, caplog):
        def missing(path=None):
            raise WeightsError("text.safetensors is nowhere")

        monkeypatch.setattr(towers, "load_tower", missing)
        assert label_words(NAMES) is None
        assert "text.safetensors is nowhere" in caplog.text


class TestLearning:
    @pytest.mark.parametrize("make", [tiny_default, tiny_sam])
    def test_tokens_follow_the_wording_of_each_view(self, make):
        learner = make_learner(make(), config(), 2, words_for(NAMES))
        plain = learner.named([0, 1])
        drawn = torch.stack([learner.named([0], [n])[0] for n in range(40)])
        assert len(torch.unique(drawn.detach().round(decimals=5), dim=0)) > 10
        assert torch.equal(learner.named([0, 1], [5, 5]), learner.named([0, 1], [5, 5]))
        assert not torch.allclose(plain[0], plain[1])

    def test_the_projection_learns_and_the_tower_does_not(self):
        before = {n: p.clone() for n, p in tiny_tower().module.named_parameters()}
        one = trainer()
        start = one.parameters["projection"].detach().clone()
        one.update([one.views[n] for n in range(2)])
        assert not torch.equal(start, one.parameters["projection"])
        assert all(torch.equal(p, before[n]) for n, p in tiny_tower().module.named_parameters())

    def test_same_gradient_in_parts(self):
        grads = []
        for micro in (4, 1):
            one = trainer(batch=4, micro_batch=micro)
            one.learner.modes()
            one.gradients([one.views[n] for n in range(4)])
            grads.append(one.parameters["projection"].grad)
        assert torch.allclose(*grads, atol=1e-5 * float(grads[0].abs().max()))

    def test_some_prompts_are_named_too_in_training_only(self):
        one = trainer()
        views = [one.views[n] for n in range(8)]
        named = [rows for rows in rows_of(views, 1, named=True) if rows.tokens and rows.prompted]
        assert 0 < sum(len(rows.views) for rows in named) < sum(len(v.prompts) for v in views) / 2
        assert not any(rows.tokens and rows.prompted for rows in rows_of(views, 1))
        plain = sum(len(rows.views) for rows in rows_of(views, 1))
        assert plain == sum(len(rows.views) for rows in rows_of(views, 1, named=True))


class TestFiles:
    def test_names_tokens_and_projection_come_back(self, tmp_path, tower):
        backbone = tiny_default()
        adapter = worded_adapter(backbone, NAMES, words=words_for(NAMES))
        read = write_adapter(adapter, tmp_path / "heart")
        assert torch.equal(read.projection, adapter.projection)
        assert read.info.text_sha256 == tower.digest
        assert "左心房" in read.info.vocabulary[1]
        assert torch.equal(read.token(2), adapter.tokens[2])
        assert read.digest != replace(read, projection=None).digest

    def test_the_token_moves_with_the_words(self, tower):
        adapter = worded_adapter(tiny_default(), NAMES, words=words_for(NAMES))
        names = torch.from_numpy(tower.embed(["left atrium", "chamber of the left atrium"]))
        assert torch.equal(adapter.token(1, names[0] - names[0]), adapter.tokens[1])
        moved = adapter.token(1, names[1] - names[0]) - adapter.tokens[1]
        assert torch.allclose(moved, adapter.projection @ (names[1] - names[0]), atol=1e-6)

    def test_an_adapter_of_before_still_loads(self, tmp_path):
        backbone = tiny_default()
        adapter = worded_adapter(backbone, NAMES)
        read = write_adapter(adapter, tmp_path / "old")
        about = json.loads((tmp_path / "old" / "promptseg.json").read_text())
        for name in ("label_words", "text_sha256"):
            del about[name]
        (tmp_path / "old" / "promptseg.json").write_text(json.dumps(about))
        again = read_adapter(tmp_path / "old")
        assert again.projection is None
        assert again.info.vocabulary == {1: ("left atrium",), 2: ("left ventricle",)}
        assert torch.equal(again.token(1, torch.ones(WIDTH)), read.tokens[1])

    def test_a_projection_for_another_model_is_refused(self):
        adapter = worded_adapter(tiny_default(), NAMES, words=words_for(NAMES))
        with pytest.raises(AdapterError, match="projection of words"):
            AdapterStack(tiny_default()).add(replace(adapter, projection=torch.ones(3, WIDTH)))

    def test_from_training(self, tmp_path, tower):
        chosen = config(label_names={1: "left atrium"}, steps=2)
        adapter = train_adapter(chosen, *cohort(), tmp_path / "la", backbone=tiny_default())
        assert adapter.projection.shape == (32, WIDTH)
        assert adapter.info.text_sha256 == tower.digest
        assert "LA" in adapter.info.vocabulary[1]
        plan = plan_adapter(chosen, *cohort(), backbone=tiny_default())
        assert plan.heads_bytes > 4 * (32 + 32 * WIDTH)
