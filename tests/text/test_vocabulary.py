import json

import pytest

from promptseg.text.folding import fold
from promptseg.text.vocabulary import Concept, Vocabulary, vocabulary


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("LA", "left atrium"), ("左心房", "left atrium"), ("LV", "left ventricle"),
        ("右心室", "right ventricle"), ("心肌", "myocardium"), ("GTV", "gross tumor volume"),
        ("Kidney_L", "left kidney"), ("右肾", "right kidney"), ("kidneys", "kidney"),
        ("V_Venacava_I", "inferior vena cava"), ("SpinalCord", "spinal cord"),
        ("Femur_Head_R", "right femoral head"), ("Lung_R", "right lung"), ("L3", "vertebra L3"),
        ("rib_left_7", "left rib 7"), ("left 7th rib", "left rib 7"), ("海马", "hippocampus"),
    ],
)  # fmt: skip
def test_names(words, name):
    assert vocabulary().find(words).name == name


def test_every_label_of_totalsegmentator(shared_data):
    by_modality = json.loads((shared_data / "totalsegmentator" / "labels.json").read_text())
    names = {name for labels in by_modality.values() for name in labels.values()}
    assert len(names) > 100
    assert [name for name in names if vocabulary().find(name) is None] == []


def test_no_name_means_two_things():
    taken: dict[tuple[str, ...], str] = {}
    for concept in vocabulary().concepts.values():
        assert vocabulary().find(concept.name) is concept
        for words in concept.wordings:
            key = fold(words).key
            assert key
            assert taken.setdefault(key, concept.name) == concept.name, words


def test_parts_are_known_and_never_go_in_circles():
    for concept in vocabulary().concepts.values():
        assert set(concept.parts) <= set(vocabulary().concepts)
        assert concept.name not in vocabulary().leaves(concept.name)[1:]
    assert "left lung upper lobe" in vocabulary().leaves("lung")


def test_of_two_concepts_the_name_wins_over_a_synonym():
    known = Vocabulary([Concept("one", ("two",)), Concept("two")])
    assert known.find("two").name == "two"
    assert known.find("three") is None


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("segment the right renal tissue, please", "right kidney"),
        ("位于右侧的肾脏区域", "right kidney"),
        ("splenic structure of the patient", "spleen"),
        ("the whole contour of the left atrial cavity", "left atrium"),
        ("renal artery", "renal artery"),
    ],
)
def test_words_that_say_nothing_are_dropped(words, name):
    assert (vocabulary().find(words) or vocabulary().find_plain(words)).name == name


@pytest.mark.parametrize("words", ["region", "the left part", "kidney stone", "肾结石", "hand", ""])
def test_what_remains_must_be_a_name(words):
    assert vocabulary().find(words) is None
    assert vocabulary().find_plain(words) is None
