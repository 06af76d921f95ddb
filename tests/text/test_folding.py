import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.text.folding import fold, singular


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Kidney_L", "the left kidneys"),
        ("LEFT KIDNEY", "kidney, left"),
        ("SpinalCord", "spinal cord"),
        ("Glnd_Submand_R", "right glnd submand"),
        ("oesophagus", "Esophagus"),
        ("the tumour's oedema", "tumor edema"),
        ("both lungs", "lung"),
        ("左侧肾脏", "左 肾脏"),
        ("右側腎臟", "右肾脏"),
        ("双肺", "肺"),
        ("atria", "atrium"),
        ("ＬＶ", "lv"),
    ],
)
def test_the_same(one, other):
    assert fold(one).key == fold(other).key


@pytest.mark.parametrize(
    ("one", "other"),
    [("left kidney", "right kidney"), ("vertebra L1", "vertebra L2"), ("LA", "LV"), ("肾", "胃")],
)
def test_not_the_same(one, other):
    assert fold(one).key != fold(other).key


def test_sides_and_numbers():
    assert fold("Rib_R_7").side == "right"
    assert fold("left and right kidney").side == ""
    assert fold("左第3肋").side == "left"
    assert fold("vertebra T12").numbers == ("t12",)
    assert fold("LAA").side == ""


@pytest.mark.parametrize("word", ["pancreas", "uterus", "pelvis", "aortic", "abscess", "meniscus"])
def test_what_is_no_plural(word):
    assert singular(word) == word


@given(st.text(max_size=40))
def test_any_text_folds_and_folding_again_changes_nothing(text):
    folded = fold(text)
    assert fold(folded.text).words == fold(fold(folded.text).text).words
    assert folded.side in ("", "left", "right")
