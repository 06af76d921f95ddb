"""What words are resolved to, before anything is computed."""

import dataclasses

import numpy as np
import pytest
from support import segmenter, tiny_default
from text_kit import tiny_tower, use_tiny_tower, worded_adapter, words_for

from promptseg.errors import PromptError
from promptseg.prompts.types import Box, Point, PromptSet, Scribble, Text
from promptseg.text.plan import Planner
from promptseg.text.selecting import Selector

HEART = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
BOX = Box((2, 2, 1), (9, 9, 2))


@pytest.fixture(autouse=True)
def tower(monkeypatch, tmp_path):
    use_tiny_tower(monkeypatch, tmp_path)


def planner(proposes=False) -> Planner:
    made = segmenter(tiny_default())
    for labels, name in ((HEART, "cardiac"), ({7: "liver"}, "liver")):
        adapter = worded_adapter(tiny_default(), labels, name, 20.0, words_for(labels))
        made.adapters.add(adapter)
    return Planner(Selector(made.adapters, tiny_tower()), "MR", proposes)


def ways(plan) -> dict:
    return {name: [(one.target, one.how) for one in wanted] for name, wanted in plan.wanted.items()}


class TestPlan:
    def test_each_target_by_the_adapter_that_knows_it(self):
        given = [Text("liver", 2), Text("LV"), BOX, Box((2, 2, 1), (9, 9, 2), target=5)]
        plan = planner().plan(PromptSet(given), active="mine")
        assert ways(plan) == {
            "liver": [(2, "alone")],
            "cardiac": [(1, "pointed")],
            "mine": [(5, "pointed")],
        }
        (ventricle,) = plan.wanted["cardiac"]
        assert ventricle.prompts == (BOX,)
        assert (ventricle.choice.name, list(ventricle.tokens)) == ("left ventricle", [3])
        assert plan.alone == {2}

    def test_an_organ_of_several_labels_has_a_token_of_each(self):
        (one,) = planner().plan(PromptSet([Text("cardiac")])).wanted["cardiac"]
        assert (one.how, sorted(one.tokens)) == ("alone", [1, 2, 3])

    @pytest.mark.parametrize(
        "prompt",
        [
            Point((3, 3, 1), positive=False),
            Point((3, 3, 1), role="correction"),
            Scribble(np.array([[3, 3, 1]]), positive=False),
        ],
        ids=["away", "later", "beside"],
    )
    def test_what_does_not_say_where_corrects_what_the_words_give(self, prompt):
        plan = planner().plan(PromptSet([Text("liver"), prompt]))
        assert ways(plan) == {"liver": [(1, "corrected")]}

    def test_the_same_meaning_again_adds_nothing(self):
        again = Text("Liver", 2)
        plan = planner().plan(PromptSet([Text("liver"), again]))
        assert ways(plan) == {"liver": [(1, "alone")]}
        assert plan.repeated == [(again, 1)]

    def test_unknown_words_are_refused_unless_an_image_text_model_can_be_asked(self):
        words = PromptSet([Text("blue whale")])
        with pytest.raises(PromptError):
            planner().plan(words)
        plan = planner(proposes=True).plan(words, active="mine")
        assert ways(plan) == {"mine": [(1, "proposed")]}
        (one,) = plan.wanted["mine"]
        assert (one.words, one.choice) == ("blue whale", None)
        pointed = planner(proposes=True).plan(PromptSet([Text("blue whale"), BOX]))
        assert ways(pointed) == {None: [(1, "pointed")]}

    def test_is_frozen(self):
        plan = planner().plan(PromptSet([Text("liver")]))
        with pytest.raises(dataclasses.FrozenInstanceError):
            plan.alone = frozenset()
