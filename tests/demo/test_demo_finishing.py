import numpy as np
import pytest
from demo_kit import bright_server, tubes

from promptseg.demo import actions, looking
from promptseg.demo.downloads import segmentation, write_download
from promptseg.demo.finishing import CHOICES, choose_steps, chosen_name
from promptseg.demo.python_code import python_code
from promptseg.errors import PromptError
from promptseg.prompts.types import Point
from promptseg.report import load_manifest
from promptseg.volume import read

INSIDE, SECOND = Point((14, 16, 5)), Point((28, 34, 5))


@pytest.fixture
def visit(tmp_path):
    server = bright_server(tmp_path)
    opened = server.visits.of("one")
    looking.open_volume(opened, tubes(), "tubes.nii.gz", server.visits)
    for prompt in (INSIDE, SECOND):
        actions.give(opened, server.models, prompt)
    actions.propagate(opened, server.models)
    return opened


class TestSteps:
    def test_what_is_seen_is_what_is_saved(self, visit, tmp_path) -> None:
        both = int(visit.labels.sum())
        choose_steps(visit, CHOICES["largest"])
        assert 0 < int(visit.labels.sum()) < both
        np.testing.assert_array_equal(segmentation(visit).data, visit.labels)
        saved = read(write_download(visit, "mask", tmp_path))
        np.testing.assert_array_equal(saved.data, visit.labels)

    def test_off_again_gives_back_all(self, visit) -> None:
        before = visit.labels.copy()
        choose_steps(visit, ["largest"])
        choose_steps(visit, [])
        np.testing.assert_array_equal(visit.labels, before)
        assert chosen_name(visit) == "none"

    def test_a_mistake_changes_nothing(self, visit) -> None:
        before = visit.labels.copy()
        choose_steps(visit, ["largest"])
        for steps in (["larges"], ["largest:9"]):
            with pytest.raises(PromptError):
                choose_steps(visit, steps)
        assert visit.post == ("largest",)
        assert (visit.labels != before).any()

    def test_the_next_answer_is_finished_too(self, visit, tmp_path) -> None:
        choose_steps(visit, ["largest"])
        actions.undo(visit)
        assert chosen_name(visit) == "largest"
        assert int((visit.labels > 0).sum()) == int((segmentation(visit).data > 0).sum())

    def test_report_page_and_program_tell(self, visit, tmp_path) -> None:
        choose_steps(visit, ["largest", "margin,mm=3"])
        assert chosen_name(visit) == "largest; margin,mm=3"
        manifest = load_manifest(write_download(visit, "report", tmp_path))
        assert manifest["settings"]["postprocess"] == ["largest", "margin,mm=3"]
        visit.language = "zh"
        page = write_download(visit, "review", tmp_path).read_text(encoding="utf-8")
        assert "margin,mm=3" in page
        assert "分割质量报告" in page
        assert "ps.postprocess(result, ['largest', 'margin,mm=3'], volume)" in python_code(visit)
