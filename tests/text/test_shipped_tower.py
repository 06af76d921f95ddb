"""The tower that ships, on words that neither training nor calibration ever drew."""

import sys
from pathlib import Path

import pytest

from promptseg.text.folding import fold
from promptseg.text.resolving import Resolver
from promptseg.text.tower import load_tower
from promptseg.text.vocabulary import vocabulary
from promptseg.weights import registry as weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LISTS = tomllib.loads((Path(__file__).parent / "data" / "unseen.toml").read_text("utf-8"))
PARAPHRASES: dict[str, str] = LISTS["paraphrases"]
FOREIGN: list[str] = LISTS["foreign"]["words"]

if weights.locate("text") is None:
    pytest.skip("weights/text.safetensors is not here", allow_module_level=True)


@pytest.fixture(scope="module")
def resolver():
    return Resolver(load_tower(), vocabulary())


class TestUnseen:
    """The lists are what they claim to be."""

    def test_no_paraphrase_is_a_listed_name(self):
        assert len(PARAPHRASES) == 40
        assert sum(not words.isascii() for words in PARAPHRASES) == 20
        assert [words for words in PARAPHRASES if vocabulary().find(words)] == []
        assert set(PARAPHRASES.values()) <= set(vocabulary().concepts)

    def test_nor_made_by_a_template(self):
        from text_wordings import CHINESE_TEMPLATES, TEMPLATES

        wanted = {fold(words).text: words for words in PARAPHRASES}
        for template in (*TEMPLATES, *CHINESE_TEMPLATES):
            chinese = not template.isascii()
            for name in set(PARAPHRASES.values()):
                for words in vocabulary()[name].wordings:
                    if words.isascii() == chinese and template != "{}":
                        continue
                    assert fold(template.format(words)).text not in wanted, (template, words)

    def test_no_foreign_word_is_drawn(self):
        from text_wordings import Wordings

        drawn = Wordings(vocabulary())
        listed = {*drawn.foreign, *drawn.held_foreign, *drawn.words, *drawn.held_words}
        assert len(FOREIGN) == 40
        assert {word.lower() for word in FOREIGN} & listed == set()
        assert [word for word in FOREIGN if vocabulary().find(word)] == []


class TestRates:
    def test_paraphrases_mean_what_they_should(self, resolver):
        found = {words: resolver.resolve(words).concept for words in PARAPHRASES}
        right = [w for w, c in found.items() if c is not None and c.name == PARAPHRASES[w]]
        wrong = {w: c and c.name for w, c in found.items() if w not in right}
        assert len(right) >= 0.9 * len(PARAPHRASES), wrong

    def test_foreign_words_are_refused(self, resolver):
        found = {words: resolver.resolve(words).concept for words in FOREIGN}
        accepted = {words: c.name for words, c in found.items() if c is not None}
        assert len(accepted) <= 0.1 * len(FOREIGN), accepted

    def test_every_listed_name_also_by_the_tower_alone(self, resolver):
        names = list(vocabulary().concepts)
        right = sum(resolver.nearest(name, 1)[0][0] == name for name in names)
        assert right >= 0.95 * len(names)


def test_size_and_digest():
    entry = weights.lookup("text")
    path = weights.locate("text")
    assert path.stat().st_size == entry.size <= 8 << 20
    assert weights.sha256_file(path) == entry.sha256
    assert set(load_tower().concepts) == set(vocabulary().concepts)
