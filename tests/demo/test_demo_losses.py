"""Nothing that a visitor made is lost: what replaces it can be undone, what ends it is kept."""

import time

import numpy as np
import pytest
from demo_kit import BrightModels, bright_server, masks_equal, tubes

from promptseg.demo import actions, looking
from promptseg.demo.keeping import Keeper
from promptseg.demo.resuming import forget_offer, offer_to, restore, take_up_again
from promptseg.demo.uploads import without_folders
from promptseg.demo.work_file import read_work, work_of, write_work
from promptseg.errors import FormatError, PromptsegError, VolumeError
from promptseg.prompts.types import Box, Point, PromptSet
from promptseg.volume import Volume

INSIDE = Point((14, 16, 5))
OUTSIDE = Point((28, 34, 7), positive=False)
BOTH = Box((5, 7, 5), (35, 41, 6))
SECRET = "0123456789abcdef"


class TwoModels(BrightModels):
    """Offers the same network under two names."""

    def names(self):
        return ["default", "other"]


@pytest.fixture
def server(tmp_path):
    made = bright_server(tmp_path / "files", keeper=Keeper(tmp_path / "works"))
    made.models = TwoModels("cpu", "fp32")
    return made


def opened(server, key="one", secrets=(SECRET,)):
    visit = server.visits.begin(key, secrets)
    looking.open_volume(visit, tubes(), "tubes.nii.gz", server.visits)
    return visit


@pytest.fixture
def masked(server):
    visit = opened(server)
    server.attempt(visit, lambda: actions.give(visit, server.models, BOTH))
    server.attempt(visit, lambda: actions.propagate(visit, server.models))
    return visit


class TestLooking:
    """What a user sees never touches masks."""

    def test_presets_and_limits_leave_everything_else(self, masked):
        before, session = masked.labels, masked.session
        looking.choose_preset(masked, "40,30")
        assert (masked.view.low, masked.view.high) == (10.0, 50.0)
        looking.choose_limits(masked, -10.0, 20.0)
        assert masked.view.preset == "custom"
        assert masked.labels is before
        assert masked.session is session
        assert (masked.propagated, masked.model_window) == (True, "auto")

    def test_the_same_preset_again_leaves_the_limits(self, masked):
        looking.choose_preset(masked, "40,30")
        looking.choose_limits(masked, -10.0, 20.0)
        looking.choose_preset(masked, "custom")
        assert (masked.view.low, masked.view.high) == (-10.0, 20.0)


class TestChoosing:
    def test_the_model_that_is_in_use_changes_nothing(self, server, masked):
        before = masked.session
        looking.choose_model(masked, server.models, "default", None)
        assert masked.session is before
        assert masked.propagated

    def test_undo_brings_back_the_3d_mask_of_the_former_model(self, server, masked):
        before = masked.labels.copy()
        looking.choose_model(masked, server.models, "other", None)
        assert not masked.propagated
        assert "Undo" in masked.message[1]
        actions.undo(masked)
        assert masked.model == "default"
        assert masked.propagated
        assert masks_equal(masked.labels, before)
        actions.redo(masked)
        assert masked.model == "other"

    def test_undo_brings_back_the_window_that_the_model_saw(self, masked):
        looking.choose_model_window(masked, "percentile")
        assert masked.session.choices.window == "percentile"
        actions.undo(masked)
        assert (masked.model_window, masked.session.choices.window) == ("auto", "auto")
        assert masked.propagated

    def test_a_failure_leaves_all_as_it_was(self, server, masked, monkeypatch):
        before, session = masked.labels, masked.session

        def fail(visit):
            visit.session = None
            raise PromptsegError("no")

        monkeypatch.setattr(looking, "rebuild", fail)
        with pytest.raises(PromptsegError):
            looking.choose_model(masked, server.models, "other", None)
        assert masked.model == "default"
        assert masked.labels is before
        assert masked.session is session
        assert masked.before == []


class TestClearing:
    def test_undo_brings_everything_back_and_redo_clears_again(self, server, masked):
        looking.rename_target(masked, 1, "spleen", "#112233")
        before = masked.labels.copy()
        actions.clear(masked)
        assert (len(masked.prompts), masked.labels) == (0, None)
        actions.undo(masked)
        assert masks_equal(masked.labels, before)
        assert masked.targets[1].name == "spleen"
        actions.redo(masked)
        assert masked.labels is None
        actions.undo(masked)
        actions.give(masked, server.models, OUTSIDE)
        actions.take_up(masked)
        assert masked.labels[28, 34, 7] == 0

    def test_newer_prompts_are_taken_back_first(self, server, masked):
        before = masked.labels.copy()
        actions.clear(masked)
        actions.give(masked, server.models, INSIDE)
        actions.undo(masked)
        assert masked.labels is None
        actions.undo(masked)
        assert masks_equal(masked.labels, before)
        actions.redo(masked)
        actions.redo(masked)
        assert [prompt.at for prompt in masked.prompts] == [INSIDE.at]

    def test_nothing_cleared_is_nothing_to_undo(self, server):
        visit = opened(server)
        actions.clear(visit)
        with pytest.raises(PromptsegError, match="give a prompt first"):
            actions.undo(visit)


class TestOpening:
    def test_undo_brings_back_the_image_before(self, server, masked):
        before = masked.labels.copy()
        other = Volume(np.zeros((9, 9, 9), np.int16), np.eye(4), "CT")
        looking.open_volume(masked, other, "other.nii.gz", server.visits)
        assert masked.nbytes > 2 * before.size
        actions.undo(masked)
        assert (masked.name, masked.volume.shape) == ("tubes.nii.gz", (40, 48, 12))
        assert masks_equal(masked.labels, before)

    def test_where_both_do_not_fit_the_former_work_is_offered_when_it_is_opened_again(
        self, server, masked
    ):
        server.visits.max_bytes = int(1.2 * masked.nbytes)
        other = Volume(tubes().data + 1, np.eye(4), "CT")
        looking.open_volume(masked, other, "other.nii.gz", server.visits)
        assert masked.before == []
        assert masked.nbytes <= server.visits.max_bytes
        looking.open_volume(masked, tubes(), "tubes.nii.gz", server.visits)
        assert offer_to(masked, server).prompts == 1


class TestUnsaved:
    def test_until_the_mask_is_downloaded(self, server, masked, tmp_path):
        from promptseg.demo.downloads import write_download

        assert masked.unsaved
        write_download(masked, "prompts", tmp_path)
        assert masked.unsaved
        write_download(masked, "mask", tmp_path)
        assert not masked.unsaved
        actions.give(masked, server.models, OUTSIDE)
        assert masked.unsaved
        write_download(masked, "mask", tmp_path)
        assert masked.unsaved
        actions.clear(masked)
        assert not masked.unsaved


class TestLeaving:
    def test_a_reload_is_offered_the_whole_visit(self, server, masked):
        server.visits.leave("one")
        assert not server.visits.alive(masked.ident)
        fresh = server.visits.begin("two", [SECRET])
        offer = offer_to(fresh, server)
        assert (offer.name, offer.masks, offer.ready) == ("tubes.nii.gz", True, True)
        going = take_up_again(fresh, server)
        assert going is masked
        assert server.visits.of("two") is masked
        assert server.visits.alive(masked.ident)
        assert offer_to(masked, server) is None

    def test_a_reload_that_comes_before_the_old_page_says_goodbye(self, server, masked):
        fresh = server.visits.begin("two", [SECRET])
        assert take_up_again(fresh, server) is masked
        server.visits.leave("one")
        assert server.visits.of("two") is masked

    def test_nobody_else_is_offered_it(self, server, masked):
        server.visits.leave("one")
        for secrets in ([], ["another-secret-0000"], ["short"], ["*" * 20]):
            assert offer_to(server.visits.begin("two", secrets), server) is None

    def test_a_tab_that_is_still_open_keeps_its_own(self, server, masked):
        fresh = server.visits.begin("two", ["my-own-secret-000000", SECRET])
        server.keeper.folder = None
        assert offer_to(fresh, server) is None

    def test_without_work_it_ends(self, server):
        visit = opened(server)
        server.visits.leave("one")
        assert server.visits.of("one") is not visit

    def test_left_visits_go_when_idle(self, server, masked):
        server.visits.leave("one")
        server.visits.idle_seconds = -1.0
        server.visits.sweep()
        assert len(server.visits) == 0


class TestEnding:
    def test_a_page_whose_visit_is_gone_is_told_and_can_do_nothing(self, server, masked):
        server.visits.drop("one")
        again = server.visits.known("one")
        assert again.ended
        assert again.message[0] == "error"
        assert "has ended" in again.message[1]
        done = server.attempt(
            again, lambda: looking.open_volume(again, tubes(), "x.nii", server.visits)
        )
        assert not done
        assert again.volume is None

    def test_a_page_that_is_loaded_again_starts_afresh(self, server):
        server.visits.known("one")
        assert not server.visits.begin("one").ended

    def test_a_visit_that_is_held_is_not_told_so(self, server, masked):
        assert server.visits.known("one") is masked
        assert not masked.ended


class TestKeeping:
    def test_work_comes_back_after_a_restart(self, server, masked, tmp_path):
        server.attempt(masked, lambda: actions.give(masked, server.models, OUTSIDE))
        looking.rename_target(masked, 1, "肝", "#112233")
        masked.kept = ()
        server.keeper.keep(masked)
        server.close()
        after = bright_server(tmp_path / "after", keeper=Keeper(tmp_path / "works"))
        fresh = after.visits.begin("two", [SECRET])
        assert not offer_to(fresh, after).ready
        looking.open_volume(fresh, tubes(), "same.nii.gz", after.visits)
        offer = offer_to(fresh, after)
        assert (offer.prompts, offer.masks, offer.ready) == (2, True, True)
        take_up_again(fresh, after)
        assert masks_equal(fresh.labels, masked.labels)
        assert (fresh.pending, fresh.trial.prompts) == (1, 2)
        assert fresh.targets[1].name == "肝"
        actions.take_up(fresh)
        assert fresh.labels[28, 34, 7] == 0
        after.keeper.keep(fresh)
        assert offer_to(fresh, after) is None

    def test_new_work_on_the_image_does_not_replace_what_is_offered(self, server, masked):
        server.visits.drop("one")
        fresh = opened(server, "two")
        server.attempt(fresh, lambda: actions.give(fresh, server.models, INSIDE))
        assert offer_to(fresh, server).masks
        before = fresh.labels.copy()
        take_up_again(fresh, server)
        assert fresh.propagated
        actions.undo(fresh)
        assert masks_equal(fresh.labels, before)

    def test_forgotten_is_gone(self, server, masked, tmp_path):
        server.visits.leave("one")
        fresh = server.visits.begin("two", [SECRET])
        forget_offer(fresh, server)
        assert offer_to(fresh, server) is None
        assert list((tmp_path / "works").iterdir()) == []
        assert server.visits.left_by(fresh) is None

    def test_another_image_is_offered_nothing(self, server, masked):
        server.visits.drop("one")
        fresh = server.visits.begin("two", [SECRET])
        other = Volume(tubes().data + 1, tubes().affine, "MR")
        looking.open_volume(fresh, other, "tubes.nii.gz", server.visits)
        assert offer_to(fresh, server) is None
        with pytest.raises(FormatError, match="another image"):
            restore(fresh, server.models, work_of(masked))

    def test_masks_that_the_prompts_no_longer_give_come_back_as_they_were(
        self, server, masked, tmp_path
    ):
        kept = work_of(masked)
        other = np.where(kept.labels == 0, 0, 3).astype(np.uint16)
        changed = type(kept)(**{**vars(kept), "labels": other})
        fresh = opened(server, "two")
        restore(fresh, server.models, changed)
        assert masks_equal(fresh.labels, other)
        assert fresh.propagated

    def test_it_is_removed_in_time_and_holds_no_image(self, server, masked, tmp_path):
        server.keeper.flush()
        (path,) = (tmp_path / "works").iterdir()
        assert path.stat().st_mode & 0o077 == 0
        assert path.stat().st_size < tubes().data.nbytes / 10
        assert SECRET not in path.name
        server.keeper.hours = 1e-9
        time.sleep(0.01)
        server.keeper.sweep()
        assert not path.exists()

    def test_nothing_is_kept_without_a_folder_or_a_secret(self, tmp_path):
        quiet = bright_server(tmp_path / "files")
        visit = opened(quiet)
        quiet.attempt(visit, lambda: actions.give(visit, quiet.models, INSIDE))
        assert quiet.keeper.latest(visit) is None
        loud = bright_server(tmp_path / "files", keeper=Keeper(tmp_path / "works"))
        visit = opened(loud, secrets=())
        loud.attempt(visit, lambda: actions.give(visit, loud.models, INSIDE))
        loud.keeper.flush()
        assert not (tmp_path / "works").exists()


class TestWorkFile:
    def test_round_trip(self, masked, tmp_path):
        work = work_of(masked)
        write_work(work, tmp_path / "a.session")
        again = read_work(tmp_path / "a.session")
        assert masks_equal(again.labels, work.labels)
        assert again.prompts.to_dict() == PromptSet([BOTH]).to_dict()
        left = {key: value for key, value in vars(work).items() if key != "labels"}
        for key in left.keys() - {"prompts"}:
            assert getattr(again, key) == left[key], key

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"{}"])
    def test_what_is_none_is_refused(self, content, tmp_path):
        path = tmp_path / "a.session"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"a\.session: not a session file"):
            read_work(path)

    def test_a_claim_of_a_huge_image_is_refused(self, masked, tmp_path):
        work = work_of(masked)
        huge = type(work)(**{**vars(work), "shape": (10**6, 10**6, 10**6)})
        write_work(huge, tmp_path / "a.session")
        with pytest.raises(FormatError, match="its image has shape"):
            read_work(tmp_path / "a.session")


class TestNames:
    def test_what_was_typed_before_the_last_is_left_out(self, masked):
        looking.rename_target(masked, 1, "live", "#112233", 2.0)
        looking.rename_target(masked, 1, "li", "#112233", 1.0)
        assert masked.targets[1].name == "live"

    def test_folders_of_the_server_are_in_no_message(self, server, masked):
        def fail():
            raise VolumeError("/var/tmp/promptseg-x/0001-a.dcm: cannot be read")

        server.attempt(masked, fail)
        assert masked.message == ("error", "0001-a.dcm: cannot be read")

    @pytest.mark.parametrize(
        ("said", "shown"),
        [
            ("cannot read '/home/me/my/f.nii.gz'", "cannot read 'f.nii.gz'"),
            (r"C:\Users\me\a.nii is bad", "a.nii is bad"),
            ("0.5 mm/s and/or 400/40", "0.5 mm/s and/or 400/40"),
            ("see https://a.org/b/c.html", "see https://a.org/b/c.html"),
        ],
    )
    def test_only_folders_go(self, said, shown):
        assert without_folders(said) == shown
