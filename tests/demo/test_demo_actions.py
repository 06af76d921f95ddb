import numpy as np
import pytest
from demo_kit import bright_server, masks_equal, tubes
from support import segmenter

from promptseg.demo import actions, looking, pointing
from promptseg.demo.downloads import answered_prompts, segmentation, write_download
from promptseg.demo.python_code import python_code
from promptseg.demo.showing import labels_plane
from promptseg.demo.visit import BusyError, CancelledError
from promptseg.errors import PromptError, PromptsegError
from promptseg.prompts.types import Box, Mask, Point, PromptSet, Scribble, Text
from promptseg.report import load_manifest
from promptseg.volume import read

INSIDE = Point((14, 16, 5))
SECOND = Point((28, 34, 5), target=2)
STROKE = Scribble.polyline(np.array([[26, 34, 7], [30, 34, 7]]), positive=False)
OUTSIDE = Point((28, 34, 7), positive=False)


@pytest.fixture
def server(tmp_path):
    return bright_server(tmp_path)


@pytest.fixture
def visit(server):
    opened = server.visits.of("one")
    looking.open_volume(opened, tubes(), "tubes.nii.gz", server.visits)
    return opened


class TestOpening:
    def test_the_view_is_the_middle_of_the_thickest_axis(self, visit):
        assert visit.view.axis == 2
        assert visit.view.indices == [20, 24, 6]

    def test_nothing_can_be_done_before(self, server):
        empty = server.visits.of("two")
        for work in (actions.undo, actions.clear, lambda v: actions.give(v, server.models, INSIDE)):
            with pytest.raises(PromptsegError, match="open an image first"):
                work(empty)

    def test_opening_again_forgets_the_masks(self, server, visit):
        actions.give(visit, server.models, INSIDE)
        looking.open_volume(visit, tubes(), "again.nii.gz", server.visits)
        assert (visit.labels, visit.session, len(visit.prompts)) == (None, None, 0)


class TestPrompting:
    def test_a_click_answers_its_slice_at_once(self, server, visit):
        actions.give(visit, server.models, INSIDE)
        assert np.flatnonzero(visit.labels.any((0, 1))).tolist() == [5]
        assert not visit.propagated

    def test_a_refused_prompt_is_not_kept(self, server, visit):
        actions.give(visit, server.models, INSIDE)
        before = visit.labels.copy()
        for bad in (Point((99, 0, 0)), Text(" "), Point((3, 3, 5), positive=False, target=4)):
            with pytest.raises(PromptError):
                actions.give(visit, server.models, bad)
            assert len(visit.prompts) == 1
            assert masks_equal(visit.labels, before)

    def test_a_box_across_the_slices_in_use_is_refused(self, server, visit):
        actions.give(visit, server.models, INSIDE)
        with pytest.raises(PromptError, match="belong on Axial slices"):
            actions.give(visit, server.models, Box((14, 9, 2), (15, 24, 9)))

    def test_the_first_flat_prompt_decides_the_axis(self, server, visit):
        actions.give(visit, server.models, Box((14, 9, 2), (15, 24, 9)))
        assert visit.session_axis == 0

    def test_a_new_target_gets_a_name_and_a_colour(self, server, visit):
        actions.give(visit, server.models, INSIDE, SECOND)
        assert visit.targets[2].name == "target 2"
        assert visit.targets[2].colour != visit.targets[1].colour

    def test_clicks_on_the_picture_become_voxels(self, visit):
        middle = pointing.point(visit, (0.5, 0.5), 6, True)
        assert middle.at == (19.5, 23.5, 6.0)
        drawn = pointing.box(visit, (0.2, 0.3), (0.6, 0.7), 6)
        assert drawn.hi[2] - drawn.lo[2] == 1
        assert all(a < b for a, b in zip(drawn.lo, drawn.hi, strict=True))


class TestCorrecting:
    @pytest.fixture
    def both(self, server, visit):
        actions.give(visit, server.models, Box((5, 7, 5), (35, 41, 6)))
        actions.propagate(visit, server.models)
        return visit

    def shown(self, visit):
        return np.stack([labels_plane(visit, 2, k) for k in range(12)], axis=2)

    def test_a_correction_is_previewed_and_changes_no_mask(self, server, both):
        before = both.labels.copy()
        actions.give(both, server.models, OUTSIDE)
        assert masks_equal(both.labels, before)
        assert masks_equal(segmentation(both).data, before)
        plane = labels_plane(both, 2, 7)
        assert plane[14, 16] == 1
        assert plane[28, 34] == 0
        assert both.pending == 1

    @pytest.mark.parametrize("correction", [OUTSIDE, STROKE])
    def test_the_preview_shows_what_refine_does(self, server, both, correction):
        actions.give(both, server.models, correction)
        previewed = self.shown(both)
        actions.take_up(both)
        assert masks_equal(previewed, both.labels)
        assert masks_equal(segmentation(both).data, both.labels)
        assert masks_equal(self.shown(both), both.labels)

    def test_a_correction_taken_back_is_previewed_no_more(self, server, both):
        before = both.labels.copy()
        actions.give(both, server.models, OUTSIDE)
        actions.give(both, server.models, STROKE)
        actions.undo(both)
        previewed = self.shown(both)
        actions.undo(both)
        assert masks_equal(self.shown(both), before)
        actions.redo(both)
        assert masks_equal(self.shown(both), previewed)

    def test_refine_takes_it_up(self, server, both):
        actions.give(both, server.models, OUTSIDE)
        actions.take_up(both)
        assert both.pending == 0
        assert (both.preview, both.trial) == ({}, None)
        assert both.labels[28, 34, 7] == 0

    def test_undo_gives_the_masks_before(self, server, both):
        before = both.labels.copy()
        actions.give(both, server.models, OUTSIDE)
        actions.take_up(both)
        after = both.labels.copy()
        actions.undo(both)
        assert masks_equal(both.labels, before)
        actions.redo(both)
        assert masks_equal(both.labels, after)

    def test_undo_of_everything_leaves_nothing(self, both):
        actions.undo(both)
        assert both.labels is None
        actions.redo(both)
        assert both.labels.any()

    def test_a_new_target_after_the_3d_mask_is_taken_up_by_the_network(self, server, both):
        actions.undo(both)
        actions.clear(both)
        actions.give(both, server.models, INSIDE)
        actions.propagate(both, server.models)
        actions.give(both, server.models, SECOND)
        assert both.preview[5][1][28, 34] == 2
        actions.take_up(both)
        assert both.labels[28, 34, 3] == 2

    def test_masks_nobody_asked_for_become_prompts_once_they_are_corrected(self, server, both):
        found = both.labels.copy()
        actions.clear(both)
        both.labels, both.propagated, both.session_axis = found, True, 2
        actions.give(both, server.models, OUTSIDE)
        assert isinstance(both.prompts[0], Mask)
        assert labels_plane(both, 2, 7)[28, 34] == 0


class TestStopping:
    def test_cancel_leaves_the_masks_as_they_were(self, server, visit):
        actions.give(visit, server.models, INSIDE)
        before = visit.labels.copy()

        def stop(stage, done, total):
            visit.cancel.set()

        with pytest.raises(CancelledError):
            actions.propagate(visit, server.models, stop)
        assert masks_equal(visit.labels, before)
        with visit.exclusive(long_running=True):
            assert not visit.cancel.is_set()

    def test_nothing_else_runs_meanwhile(self, visit):
        with visit.exclusive(long_running=True), pytest.raises(BusyError), visit.exclusive():
            pytest.fail("two at once")


class TestDownloads:
    @pytest.fixture
    def done(self, server, visit):
        actions.give(visit, server.models, INSIDE, SECOND)
        actions.propagate(visit, server.models)
        actions.give(visit, server.models, Point((14, 24, 6), positive=False))
        actions.take_up(visit)
        return visit

    def test_the_mask_is_what_python_gives_for_the_prompts(self, done, tmp_path):
        mask = read(write_download(done, "mask", tmp_path))
        prompts = PromptSet.load(write_download(done, "prompts", tmp_path))
        again = segmenter().segment(tubes(), prompts)
        assert masks_equal(mask.data, again.data)

    def test_waiting_corrections_are_in_neither_file(self, server, done, tmp_path):
        actions.give(done, server.models, Point((28, 29, 6), target=2, positive=False))
        assert len(answered_prompts(done)) == 3
        assert len(PromptSet.load(write_download(done, "prompts", tmp_path))) == 3
        assert "1 correction" in done.message[1]

    def test_the_report_can_be_read_again(self, done, tmp_path):
        manifest = load_manifest(write_download(done, "report", tmp_path))
        assert manifest["result"]["sha256"] == segmentation(done).sha256
        assert manifest["input"]["path"] == "tubes.nii.gz"

    def test_nothing_to_take_home(self, visit, tmp_path):
        for kind in ("mask", "prompts", "report"):
            with pytest.raises(PromptError):
                write_download(visit, kind, tmp_path)

    def test_python_code_runs_and_gives_the_same(self, done, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        from promptseg.session import Segmenter
        from promptseg.volume import write

        write(tubes(), tmp_path / "tubes.nii.gz")
        monkeypatch.setattr(Segmenter, "from_pretrained", lambda model: segmenter())
        code = python_code(done)
        exec(compile(code, "copied", "exec"), {})
        assert masks_equal(read(tmp_path / "mask.nii.gz").data, done.labels)


class TestChecking:
    def test_each_time_another_slice_and_an_end(self, server, visit):
        actions.give(visit, server.models, Box((5, 7, 5), (35, 41, 6)))
        actions.propagate(visit, server.models)
        seen = []
        while len(seen) < 13:
            actions.suggest(visit)
            if "every slice that stands out" in visit.message[1]:
                break
            seen.append(visit.view.indices[2])
        assert len(seen) > 1
        assert len(set(seen)) == len(seen) < 13
        actions.suggest(visit)
        assert visit.view.indices[2] == seen[0]


class TestTargets:
    def test_rename_and_paint(self, visit):
        looking.rename_target(visit, 1, " spleen ", "rgba(255, 0, 16, 1)")
        assert (visit.targets[1].name, visit.targets[1].colour) == ("spleen", "#ff0010")
        looking.rename_target(visit, 1, "", "javascript:alert(1)")
        assert (visit.targets[1].name, visit.targets[1].colour) == ("spleen", "#ff0010")

    def test_no_such_target(self, visit):
        with pytest.raises(PromptError, match="no target 7"):
            looking.choose_target(visit, 7)


class TestNotes:
    def test_what_an_answer_has_to_say_is_on_the_status_line(self, server, visit):
        far = Point((1, 1, 5), target=2)
        actions.give(visit, server.models, INSIDE)
        assert visit.notes == ()
        actions.give(visit, server.models, far)
        (note,) = visit.notes
        assert note.startswith("target 2 came out empty")
        assert visit.message[0] == "info"
        assert visit.message[1].endswith(f" T{note[1:]}.")

    def test_it_goes_with_its_answer(self, server, visit):
        actions.give(visit, server.models, Point((1, 1, 5), target=2))
        assert visit.notes
        actions.clear(visit)
        assert visit.notes == ()
        assert "came out empty" not in visit.message[1]
        actions.undo(visit)
        assert "came out empty" in visit.notes[0]
