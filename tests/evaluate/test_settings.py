"""Options of an evaluation by name."""

from dataclasses import fields
from pathlib import Path

import pytest

import promptseg as ps
from promptseg.evaluate.settings import Settings, settings_of


class TestOptions:
    def test_every_field_can_be_given(self):
        given = {field.name: field.default for field in fields(Settings)}
        assert settings_of(given.pop("protocol"), given) == Settings()

    def test_lists_and_paths_as_people_give_them(self):
        found = settings_of("scribble", {"against": ["ellipse"], "scribbles": "strokes"})
        assert found.against == ("ellipse",)
        assert found.scribbles == Path("strokes")

    def test_an_unknown_one_is_named_with_the_known_ones(self):
        with pytest.raises(ps.PromptError, match=r"no option 'clickz': use one of dims, label, "):
            settings_of("clicks", {"clickz": 3})

    def test_the_public_call_refuses_it_before_anything_is_read(self):
        with pytest.raises(ps.PromptError, match="no option 'dim'"):
            ps.evaluate(None, "nowhere", "nowhere", dim="3d")
