"""Notes on an answer, in the language of who reads the page."""

import ast
import inspect
import re
import textwrap

import pytest

from promptseg.demo.note_texts import NOTES, in_chinese, sentence
from promptseg.demo.visit import Visit
from promptseg.predictor import notes, rings
from promptseg.text import proposals, reporting
from promptseg.volume import grey_levels, intensity

CJK = re.compile("[\u4e00-\u9fff]")
SOURCES = (
    notes,
    rings,
    grey_levels.GreyLevels.notes.fget,
    intensity._named_window,
    reporting.told_of,
    proposals._judged,
)


def sentences_in(source):
    """What a module or function may say of an answer, every value replaced by 7."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(source)))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(p) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for p in n.values}
    for node in ast.walk(tree):
        if id(node) in told | parts:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(p.value if isinstance(p, ast.Constant) else "7" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


SAID = sorted({text for source in SOURCES for text in sentences_in(source) if text.count(" ") > 5})


class TestNotesInChinese:
    def test_the_sources_are_read(self):
        assert len(SAID) >= 15
        assert any("came out empty" in text for text in map(str, NOTES))

    @pytest.mark.parametrize("note", SAID)
    def test_every_note_has_one(self, note):
        assert CJK.search(in_chinese(note) or "")

    @pytest.mark.parametrize("english", [english for english, _ in NOTES])
    def test_values_stay_as_they_are(self, english):
        names = re.findall(r"{(\w+)}", english)
        values = {name: f"value{n}" for n, name in enumerate(names)}
        said = in_chinese(english.format(**values))
        assert all(value in said for value in values.values())

    def test_a_reason_inside_a_note_is_put_into_chinese_too(self):
        note = (
            "target 3 came out empty: 'Leber' was not found: no mask on 5 slices is trusted by the "
            "network"
        )
        assert in_chinese(note) == "目标 3 的结果为空：没有找到'Leber'：网络不信任5 层上的任何掩膜"

    def test_what_nobody_put_into_chinese_stays_english(self):
        assert sentence("something new: 7", "zh") == "Something new: 7."
        assert sentence("something new: 7", "en") == "Something new: 7."

    def test_the_page_follows_its_language(self):
        note = "the box of target 1 is the single voxel (3, 4, 5)"
        visit = Visit("key", notes=(note,))
        visit.tell("undone")
        assert "The box of target 1 is the single voxel (3, 4, 5)." in visit.message[1]
        visit.speak("zh")
        assert "目标 1 的框只有一个体素 (3, 4, 5)。" in visit.message[1]
        assert "single voxel" not in visit.message[1]
