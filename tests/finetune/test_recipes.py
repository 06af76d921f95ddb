from dataclasses import fields
from pathlib import Path

import pytest

from promptseg.errors import FormatError
from promptseg.finetune.config import FinetuneConfig, load_recipe, to_toml

RECIPES = sorted((Path(__file__).parents[2] / "adapters").glob("*/recipe.toml"))


class TestRoundTrip:
    def test_every_option_survives(self, tmp_path):
        config = FinetuneConfig(
            organ='left "atrium"',
            images="/a",
            labels="/b",
            synonyms=("LA", "Vorhof"),
            label_names={1: "atrium", 3: "ventricle"},
            cases="1-16",
            validation_cases="57-68",
            minutes=12.5,
            dora=True,
            micro_batch=2,
        )
        config.save(tmp_path / "recipe.toml")
        assert load_recipe(tmp_path / "recipe.toml") == config

    def test_every_option_is_explained(self):
        assert all(item.metadata["help"] for item in fields(FinetuneConfig))
        text = to_toml(FinetuneConfig(organ="x"))
        for item in fields(FinetuneConfig):
            assert f"# {item.metadata['help']}\n" in text
            assert f"{item.name} =" in text or f"[{item.name}]" in text

    def test_paths_are_relative_to_the_recipe(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SOMEWHERE", "/data")
        recipe = tmp_path / "recipe.toml"
        recipe.write_text('organ = "x"\nimages = "here/images"\nlabels = "$SOMEWHERE/labels"\n')
        config = load_recipe(recipe)
        assert config.folders == (str(tmp_path / "here" / "images"), "/data/labels")

    def test_a_copy_keeps_the_variables(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SOMEWHERE", "/data")
        recipe, copy = tmp_path / "recipe.toml", tmp_path / "run" / "recipe.toml"
        recipe.write_text('organ = "x"\nimages = "$SOMEWHERE/images"\nlabels = "~/labels"\n')
        copy.parent.mkdir()
        load_recipe(recipe).save(copy)
        assert 'images = "$SOMEWHERE/images"' in copy.read_text()
        assert 'labels = "~/labels"' in copy.read_text()
        monkeypatch.setenv("SOMEWHERE", "/elsewhere")
        assert load_recipe(copy).folders[0] == "/elsewhere/images"

    def test_overrides_win(self, tmp_path):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text('organ = "x"\nminutes = 5.0\nimages = "$NOWHERE_AT_ALL/x"\n')
        config = load_recipe(recipe, steps=7, images="elsewhere")
        assert (config.steps, config.minutes, config.images) == (7, None, "elsewhere")


class TestRefusals:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('rank = "8"', "a whole number"),
            ("rank = 0", "from 1"),
            ("rank = true", "a whole number"),
            ("steps = 1.5", "a whole number"),
            ("minutes = nan", "minutes"),
            ("steps = 5\nminutes = 1.0", "give one"),
            ('targets = "queries"', "attention_all"),
            ('encoder = "thawed"', "lora or frozen or full"),
            ('decoder = "thawed"', "full"),
            ('objective = "guess"', "supervised"),
            ('modality = "PET"', "CT or MR"),
            ('group = "("', "regular expression"),
            ('synonyms = "one"', "a list"),
            ("synonyms = [1]", "a list"),
            ("[label_names]\nliver = 1", "label_names"),
            ('[label_names]\n0 = "x"', "count from 1"),
            ("colour = 3", "colour"),
            ('encoder = "frozen"\ndecoder = "frozen"\nunprompted = 0.0', "nothing is"),
            ("rank =", "not TOML"),
            ('images = "$NOWHERE_AT_ALL/x"', "not set"),
        ],
    )
    def test_values(self, tmp_path, line, words):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(f'organ = "x"\n{line}\n')
        with pytest.raises(FormatError, match=words):
            load_recipe(recipe)

    def test_missing_file(self, tmp_path):
        with pytest.raises(FormatError, match="cannot be read"):
            load_recipe(tmp_path / "recipe.toml")


class TestShippedRecipes:
    def test_there_are_two(self):
        assert {path.parent.name for path in RECIPES} >= {"left_atrium", "cardiac"}

    @pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
    def test_loads(self, path, monkeypatch, tmp_path):
        for name in ("PROMPTSEG_DATA", "PROMPTSEG_ANATOMY", "PROMPTSEG_PICTURES"):
            monkeypatch.setenv(name, str(tmp_path))
        config = load_recipe(path)
        assert config.label_names
        assert config.images.startswith("$PROMPTSEG_")
        assert all(folder.startswith(str(tmp_path)) for folder in config.folders)
