"""Prompts as scribbles: the page says what they lack to be learned from."""

import numpy as np
import pytest
from demo_kit import bright_server, tubes

from promptseg.demo import actions, looking
from promptseg.demo.downloads import write_download
from promptseg.demo.stroke_advice import stroke_advice
from promptseg.prompts.types import Point, PromptSet, Scribble


def stroke(row, column, positive=True, target=1):
    """A short stroke on slice 5."""
    return Scribble(np.array([[row, column + n, 5] for n in range(3)]), positive, target)


@pytest.fixture
def visit(tmp_path):
    server = bright_server(tmp_path)
    held = server.visits.begin("one")
    looking.open_volume(held, tubes(), "tubes", server.visits)
    actions.give(held, server.models, stroke(14, 16))
    return held


INSIDE, BESIDE, EDGE = stroke(14, 16), stroke(14, 30, False), stroke(1, 20, False)


class TestAdvice:
    @pytest.mark.parametrize(
        ("prompts", "words"),
        [
            ([INSIDE, BESIDE], []),
            ([INSIDE, EDGE, BESIDE], []),
            ([INSIDE], ["a stroke outside"]),
            ([INSIDE, EDGE], ["only at the edge"]),
            ([BESIDE], ["inside target 1"]),
            ([INSIDE, Point((28.0, 34.0, 5.0), False, 2)], ["inside 2", "a stroke outside"]),
            ([Point((14.0, 16.0, 5.0))], []),
        ],
    )
    def test_what_is_lacking(self, visit, prompts, words):
        found = stroke_advice(visit, PromptSet(prompts))
        assert len(found) == len(words)
        for text, word in zip(found, words, strict=True):
            assert word in text

    def test_is_said_when_prompts_are_taken_home(self, visit, tmp_path):
        write_download(visit, "prompts", tmp_path)
        assert visit.message[1].startswith("prompts.json is ready.")
        assert "a stroke outside" in visit.message[1]
