import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from promptseg.errors import PromptsegError
from promptseg.prompts.types import Box, Point, Text
from promptseg.refine.postprocessing import postprocess
from promptseg.report.pictures import curve_svg
from promptseg.report.quality import page, review, write_page
from promptseg.report.texts import LANGUAGES, REASONS, labels
from promptseg.volume import Segmentation, Volume

MODEL = {"name": "default", "licence": "research", "sha256": "ab" * 32}
MANIFEST = {
    "created": "2026-01-02T03:04:05+00:00",
    "model": MODEL,
    "settings": {"window": "auto"},
    "input": {"path": "/data/Miller^Jane/ct", "sha256": "cd" * 32},
    "versions": {"promptseg": "0.1.0", "torch": "2.9"},
    "notes": ["taken for <CT>"],
}
ADAPTER = {"name": "kidney", "digest": "ef" * 32}


@pytest.fixture(scope="module")
def reviewed():
    i, j, k = np.indices((40, 40, 20))
    ball = (i - 20) ** 2 + (j - 20) ** 2 + (k - 10) ** 2 * 4 <= 14**2
    data = ball.astype(np.uint8)
    data[:, :, 12] = 0
    data[1:3, 1:3, 3] = 2
    volume = Volume((100 * ball).astype(np.int16), np.diag([1, 1, 2, 1.0]), "MR")
    result = Segmentation(
        data,
        volume.affine,
        score={1: 0.9},
        labels={1: "<script>", 2: "b"},
        report={"axis": 2, "model": MODEL, "adapter": ADAPTER},
    )
    result = postprocess(result, ["margin:1,mm=2,to=3,name=CTV"], volume)
    prompts = [Box((10, 10, 9), (30, 30, 10)), Point((1, 1, 12), positive=False), Text("kidney", 2)]
    return review(volume, result, prompts)


class TestReview:
    def test_json_names_every_flagged_slice_with_a_reason(self, reviewed) -> None:
        told = json.loads(json.dumps(reviewed.to_dict(), allow_nan=False))
        findings = told["targets"]["1"]["findings"]
        gap = next(one for one in findings if one["kind"] == "gap")
        assert gap["slice"] == 12
        assert gap["reason"] == "the mask is missing here, between slices that have it"
        assert 12 in told["flagged_slices"]
        assert told["axis"] == 2


class TestPage:
    def test_one_self_contained_file(self, reviewed) -> None:
        text = page(reviewed, MANIFEST)
        assert not re.search(r"(src|href)=\"(?!data:)", text)
        assert "<link" not in text
        assert "<script" not in text
        pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
        assert len(pictures) == len(reviewed.flagged) + 12
        assert all(base64.b64decode(one)[:2] == b"\xff\xd8" for one in pictures)

    def test_names_are_text(self, reviewed) -> None:
        text = page(reviewed, MANIFEST)
        assert "&lt;script&gt;" in text
        assert "taken for &lt;CT&gt;" in text

    def test_says_what_made_it_and_nothing_private(self, reviewed) -> None:
        text = page(reviewed, MANIFEST)
        for said in ("ab" * 32, "cd" * 32, "ef" * 32, reviewed.result.sha256, "kidney", "CTV"):
            assert said in text
        assert "margin:1,mm=2,to=3,name=CTV" in text
        assert "Miller" not in text
        assert "Miller^Jane" in page(reviewed, MANIFEST, patient=["Miller^Jane"])

    def test_every_slice_and_prompt_is_listed(self, reviewed) -> None:
        text = page(reviewed, MANIFEST)
        for index in reviewed.flagged:
            assert f"k = {index}</b>" in text
        assert "(10, 10, 9) … (30, 30, 10)" in text
        assert "(1, 1, 12)" in text
        assert "outside" in text
        assert "“kidney”" in text

    def test_chinese(self, reviewed, tmp_path: Path) -> None:
        write_page(reviewed, MANIFEST, tmp_path / "r.html", "zh")
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert '<html lang="zh">' in text
        assert "分割质量报告" in text
        assert "前后层面均有轮廓，本层缺失" in text
        assert "slices to check" not in text

    def test_languages_say_the_same(self) -> None:
        fields = {
            kind: [set(re.findall(r"{(\w+)", one)) for one in REASONS[kind]] for kind in REASONS
        }
        assert all(one == other for one, other in fields.values())
        assert len({tuple(labels(language)) for language in LANGUAGES}) == 1
        with pytest.raises(PromptsegError, match="use en or zh"):
            labels("fr")

    def test_an_empty_answer_has_a_page(self) -> None:
        volume = Volume(np.zeros((9, 9, 9), np.int16), np.eye(4), "MR")
        empty = Segmentation(np.zeros((9, 9, 9), np.uint8), np.eye(4), score={1: 0.1})
        text = page(review(volume, empty), MANIFEST)
        assert "nothing was found" in text


class TestCurve:
    def test_marks_and_scale(self) -> None:
        drawn = curve_svg([(3, 100.0), (4, 900.0), (5, 200.0)], [4, 77], "red")
        assert drawn.count("<circle") == 1
        assert ">10<" in drawn
        assert ">3<" in drawn
        assert ">5<" in drawn
