import pytest
from text_kit import tiny_tower

from promptseg.text.folding import fold
from promptseg.text.resolving import Resolver
from promptseg.text.vocabulary import vocabulary


@pytest.fixture
def resolver():
    return Resolver(tiny_tower(), vocabulary())


def test_a_listed_name_needs_no_tower(resolver, monkeypatch):
    monkeypatch.setattr(resolver.tower, "embed", None)
    found = resolver.resolve("左心房")
    assert (found.concept.name, found.likeness, found.listed) == ("left atrium", 1.0, True)


def test_near_words_by_the_tower(resolver):
    resolver.tower.embed([""])
    near = resolver.nearest("the spleenn")
    assert len(near) == 3
    assert near[0][1] >= near[1][1] >= near[2][1]


def test_threshold_decides(resolver, monkeypatch):
    words = "qwertz uiop"
    monkeypatch.setattr(resolver.tower, "threshold", 1.1)
    refused = resolver.resolve(words)
    assert refused.concept is None
    assert len(refused.nearest) == 3
    monkeypatch.setattr(resolver.tower, "threshold", -1.0)
    taken = resolver.resolve(words)
    assert taken.concept.name == refused.nearest[0]
    assert not taken.listed


def test_never_the_other_side_or_another_number(resolver):
    for words in ("left renall organ", "organ to the right", "左侧某器官"):
        side = "right" if "right" in words else "left"
        for name, _ in resolver.nearest(words, 50):
            assert side in {fold(w).side for w in vocabulary()[name].wordings}, name
    assert [name for name, _ in resolver.nearest("the bone called T7", 50)] == ["vertebra T7"]
    assert resolver.nearest("vertebra T99") == []
    assert resolver.resolve("").concept is None


def test_nearest_of_some(resolver):
    among = ("liver", "left atrium", "no concept")
    assert resolver.ranked("left atrium", among)[0] == "left atrium"
    assert set(resolver.ranked("xyz", among)) == set(among)
