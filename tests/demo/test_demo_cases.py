"""Cases of a project on the page: opened, corrected, accepted, given back, and nothing lost."""

import numpy as np
import pytest
from cases_kit import OTHER, SECRET, case_server, make_cases, missed, truth, visitor

from promptseg.active.loop.project import Project
from promptseg.demo import actions, looking
from promptseg.demo.case_state import IDLE_S, Case
from promptseg.demo.cases.drafts import drafts_of
from promptseg.demo.cases.projects import Projects
from promptseg.demo.loop import working
from promptseg.demo.loop.finishing import accept_case, give_back_case, reject_case
from promptseg.demo.loop.listing import PARTS, listed, versions_html, worklist_html
from promptseg.demo.loop.opening import open_case, take_up_other
from promptseg.demo.resuming import offer_to
from promptseg.errors import FormatError, PromptsegError
from promptseg.prompts.types import Point


@pytest.fixture
def project(tmp_path):
    return make_cases(tmp_path / "place")


@pytest.fixture
def server(project, tmp_path):
    made = case_server(project, tmp_path / "files")
    yield made
    made.close()


@pytest.fixture
def ann(server):
    return visitor(server, "one", "ann")


@pytest.fixture
def bob(server):
    return visitor(server, "two", "bob", OTHER)


def opened(visit, server, name=None):
    assert server.attempt(visit, lambda: open_case(visit, server, name)), visit.message
    return visit


def corrected(visit, server, project):
    """A click on a slice that the prediction has not."""
    place = missed(visit.volume, project, visit.case.name)
    point = Point(tuple(float(v) for v in place))
    assert server.attempt(visit, lambda: actions.give(visit, server.models, point)), visit.message
    return place


def row(project, name):
    held = Project(project, "reader")
    try:
        return dict(held.case(name))
    finally:
        held.store.close()


@pytest.fixture
def versions(monkeypatch):
    """Versions that were put in use, with the network of each."""
    used = []
    monkeypatch.setattr(
        "promptseg.demo.loop.arriving.use_version",
        lambda project, segmenter, version: used.append((version, segmenter)),
    )
    return used


class TestWhoCorrects:
    def test_the_version_that_predicted_in_a_network_of_its_own(
        self, server, project, ann, bob, versions
    ):
        opened(ann, server)
        opened(bob, server)
        assert [version for version, _ in versions] == [0, 0]
        assert [ann.segmenter, bob.segmenter] == [network for _, network in versions]
        assert ann.segmenter is not bob.segmenter
        corrected(ann, server, project)
        assert ann.session.segmenter is versions[0][1]

    def test_unfinished_work_goes_on_with_the_version_it_was_begun_with(
        self, server, project, ann, versions
    ):
        opened(ann, server, "case1")
        corrected(ann, server, project)
        server.keeper.flush()
        again = visitor(server, "later", "ann")
        server.visits.drop("one")
        opened(again, server, "case1")
        assert again.prompts.to_json() == ann.prompts.to_json()
        assert again.segmenter is versions[-1][1]
        assert [version for version, _ in versions] == [0, 0]

    def test_one_made_for_other_weights_leaves_it_to_the_base(self, server, ann):
        opened(ann, server)
        assert not ann.own_network
        assert ann.labels.any()


class TestOpening:
    def test_the_prediction_is_there_to_be_corrected(self, server, project, ann):
        opened(ann, server)
        assert (ann.case.name, ann.case.version, ann.name) == ("case0", 0, "case0")
        assert ann.case.effort == pytest.approx(5.0)
        known = truth(project, "case0")
        known[..., -2:] = 0
        assert np.array_equal(ann.labels, known)
        assert ann.propagated
        assert (ann.view.axis, ann.view.indices[2]) == (2, 3)
        assert [t.name for t in ann.targets.values()] == ["disc"]
        assert "expected revision 5 %" in ann.message[1]
        assert "neighbours" in ann.message[1]

    def test_nothing_is_unsaved_before_something_was_done(self, server, project, ann):
        opened(ann, server)
        server.keeper.flush()
        assert not ann.unsaved
        assert drafts_of(project, "case0") == []

    def test_two_people_get_two_cases_and_see_whose(self, server, project, ann, bob):
        opened(ann, server)
        opened(bob, server)
        assert (ann.case.name, bob.case.name) == ("case0", "case1")
        assert not server.attempt(bob, lambda: open_case(bob, server, "case0"))
        assert "open with ann" in bob.message[1]
        assert bob.case.name == "case1"
        assert "open with ann" in worklist_html(bob, server)

    def test_the_same_person_in_another_window_gets_another_case(self, server, ann):
        opened(ann, server)
        again = visitor(server, "three", "ann", OTHER)
        opened(again, server)
        assert again.case.name == "case1"
        assert not server.attempt(again, lambda: open_case(again, server, "case0"))
        assert "another window" in again.message[1]

    def test_no_other_target_can_be_added(self, server, ann):
        opened(ann, server)
        with pytest.raises(PromptsegError, match="the project says"):
            looking.add_target(ann)

    def test_an_image_that_cannot_be_read_can_be_rejected(self, server, project, ann):
        (project.parent / "images" / "case0.nii.gz").write_bytes(b"nothing")
        opened(ann, server)
        assert ann.message[0] == "error"
        assert str(project.parent) not in ann.message[1]
        assert server.attempt(ann, lambda: reject_case(ann, server, "damaged"))
        assert row(project, "case0")["status"] == "rejected"
        assert opened(ann, server).case.name == "case1"

    def test_a_failure_gives_the_case_back(self, server, project, ann, monkeypatch):
        def fail(*_):
            raise PromptsegError("no room")

        monkeypatch.setattr(server.visits, "make_room", fail)
        assert not server.attempt(ann, lambda: open_case(ann, server))
        assert row(project, "case0")["status"] == "new"
        assert ann.case is None

    def test_a_path_is_no_project(self, server, project, ann):
        for name in (str(project), "..", "/etc"):
            with pytest.raises(PromptsegError, match="there is no project"):
                working.choose_project(ann, server, name)
        with pytest.raises(FormatError, match="no case"):
            open_case(ann, server, "../images/case0")

    def test_two_projects_of_one_name_are_refused(self, project, tmp_path):
        other = make_cases(tmp_path / "second", 1, predicted=False)
        with pytest.raises(FormatError, match="rename"):
            Projects([project, other])


class TestAccepting:
    def test_records_mask_revision_time_and_who(self, server, project, ann):
        opened(ann, server)
        place = corrected(ann, server, project)
        assert ann.pending == 1
        ann.case.spent = 41.0
        done = accept_case(ann, server)
        assert done.seconds == pytest.approx(41.0, abs=0.2)
        assert done.revision > 0
        held = Project(project, "reader")
        kept = held.latest(held=False)[0]
        assert (kept["name"], kept["who"]) == ("case0", "ann")
        from promptseg.volume import read

        assert read(project / kept["mask"]).data[place] == 1
        held.store.close()
        assert ann.volume is None
        assert ann.case is None
        assert "revised by" in ann.message[1]

    def test_and_next_opens_the_next(self, server, ann):
        opened(ann, server)
        server.attempt(ann, lambda: working.accept_and_next(ann, server))
        assert ann.case.name == "case1"
        assert ann.message[1].startswith("case0 accepted after 0:00, revised by 0.0 %.")
        assert ann.before == []

    def test_the_last_one_is_accepted_although_none_follows(self, server, project, ann):
        for number in range(4):
            opened(ann, server)
            server.attempt(ann, lambda: working.accept_and_next(ann, server))
            assert row(project, f"case{number}")["status"] == "accepted"
        assert ann.case is None
        assert "no case is left" in ann.message[1]
        assert "measures" in worklist_html(ann, server)

    def test_an_empty_mask_must_be_meant(self, server, project, ann):
        opened(ann, server)
        server.attempt(ann, lambda: actions.clear(ann))
        assert not server.attempt(ann, lambda: accept_case(ann, server))
        assert "once more" in ann.message[1]
        assert server.attempt(ann, lambda: accept_case(ann, server))
        assert row(project, "case0")["status"] == "accepted"

    def test_some_slices_are_no_mask(self, server, project, ann):
        opened(ann, server)
        server.attempt(ann, lambda: actions.clear(ann))
        corrected(ann, server, project)
        assert not server.attempt(ann, lambda: accept_case(ann, server))
        assert "Propagate in 3D first" in ann.message[1]

    def test_what_someone_else_accepted_is_not_replaced(self, server, project, ann, bob):
        opened(ann, server)
        corrected(ann, server, project)
        held = Project(project, "reader")
        with held.store.change():
            held.store.put("claim_minutes", -1)
        held.store.close()
        opened(bob, server, "case0")
        server.attempt(bob, lambda: accept_case(bob, server))
        assert not server.attempt(ann, lambda: accept_case(ann, server))
        assert "meanwhile" in ann.message[1]
        server.keeper.flush()
        assert len(drafts_of(project, "case0", "ann")) == 1

    def test_opened_again_it_shows_what_was_accepted_and_stays_held_back(
        self, server, project, ann
    ):
        for _ in range(4):
            opened(ann, server)
            server.attempt(ann, lambda: accept_case(ann, server))
        assert row(project, "case3")["held"] == 1
        opened(ann, server, "case3")
        assert "accepted before" in ann.message[1]
        corrected(ann, server, project)
        server.attempt(ann, lambda: accept_case(ann, server))
        assert row(project, "case3")["held"] == 1
        opened(ann, server, "case3")
        server.attempt(ann, lambda: give_back_case(ann, server))
        assert row(project, "case3")["status"] == "accepted"


class TestTime:
    def test_pauses_count_only_in_part(self, tmp_path):
        case = Case("loop", "case0", "ann", tmp_path / "draft", touched_at=100.0)
        for now in (105.0, 125.0, 125.0 + 3600):
            case.touch(now)
        assert case.spent == 25.0 + IDLE_S

    def test_looking_counts_and_the_claim_is_renewed(self, server, project, ann):
        opened(ann, server)
        before = row(project, "case0")["opened_at"]
        ann.case.touched_at -= 12.0
        ann.case.claimed_at -= 120.0
        server.look(ann, lambda: looking.show_slice(ann, 2))
        assert ann.case.spent == pytest.approx(12.0, abs=1.0)
        assert row(project, "case0")["opened_at"] > before


class TestDrafts:
    def test_work_is_in_the_project_and_back_after_a_restart(self, server, project, ann, tmp_path):
        opened(ann, server)
        ann.case.spent = 30.0
        corrected(ann, server, project)
        server.attempt(ann, lambda: actions.take_up(ann))
        labels = ann.labels.copy()
        server.close()
        assert len(drafts_of(project, "case0", "ann")) == 1
        assert list((tmp_path / "works").glob("*")) == []
        later = case_server(project, tmp_path / "files2")
        again = visitor(later, "two", "ann")
        offer = offer_to(again, later)
        assert (offer.name, offer.ready, offer.masks) == ("case0", True, True)
        working.bring_back(again, later)
        assert again.case.name == "case0"
        assert np.array_equal(again.labels, labels)
        assert again.case.spent == pytest.approx(30.0, abs=2.0)
        assert "unfinished work" in again.message[1]
        done = accept_case(again, later)
        assert done.revision > 0
        assert drafts_of(project, "case0") == []
        later.close()

    def test_another_browser_of_the_same_person_gets_it_on_opening(
        self, server, project, ann, tmp_path
    ):
        opened(ann, server)
        corrected(ann, server, project)
        server.close()
        later = case_server(project, tmp_path / "files2")
        again = visitor(later, "two", "ann", OTHER)
        assert offer_to(again, later) is None
        assert "your work of" in worklist_html(again, later)
        assert opened(again, later).case.name == "case0"
        assert len(again.prompts) == 2
        later.close()

    def test_start_over_gives_the_prediction_and_undo_the_work(self, server, project, ann):
        opened(ann, server)
        before = ann.labels.copy()
        corrected(ann, server, project)
        server.attempt(ann, lambda: actions.take_up(ann))
        work = ann.labels.copy()
        assert server.attempt(ann, lambda: working.start_over(ann, server))
        assert np.array_equal(ann.labels, before)
        server.attempt(ann, lambda: actions.undo(ann))
        assert np.array_equal(ann.labels, work)
        assert ann.case.name == "case0"

    def test_work_of_someone_else_is_offered(self, server, project, ann, bob):
        opened(ann, server)
        corrected(ann, server, project)
        server.attempt(ann, lambda: actions.take_up(ann))
        work = ann.labels.copy()
        server.attempt(ann, lambda: give_back_case(ann, server))
        opened(bob, server, "case0")
        assert "Someone else's unfinished work" in bob.message[1]
        assert not np.array_equal(bob.labels, work)
        server.attempt(bob, lambda: take_up_other(bob, server))
        assert np.array_equal(bob.labels, work)
        assert "the work of ann" in bob.message[1]

    def test_a_plain_image_with_masks_comes_back_by_undo(self, server, project, ann):
        looking.open_volume(ann, server.sample(), "tubes", server.visits)
        server.attempt(ann, lambda: actions.give(ann, server.models, Point((14.0, 16.0, 5.0))))
        server.attempt(ann, lambda: actions.propagate(ann, server.models))
        mask = ann.labels.copy()
        opened(ann, server)
        server.attempt(ann, lambda: accept_case(ann, server))
        assert ann.volume is None
        assert server.attempt(ann, lambda: actions.undo(ann)), ann.message
        assert ann.name == "tubes"
        assert ann.case is None
        assert np.array_equal(ann.labels, mask)

    def test_no_undo_leads_back_to_an_accepted_case(self, server, project, ann):
        opened(ann, server)
        corrected(ann, server, project)
        opened(ann, server, "case1")
        assert len(ann.before) == 1
        server.attempt(ann, lambda: actions.undo(ann))
        assert ann.case.name == "case0"
        server.attempt(ann, lambda: accept_case(ann, server))
        assert all(one.state["case"].name != "case0" for one in [*ann.before, *ann.after])


class TestListing:
    def test_status_effort_and_who(self, server, project, ann, bob):
        opened(ann, server)
        server.attempt(ann, lambda: accept_case(ann, server))
        opened(bob, server)
        html = worklist_html(ann, server)
        assert "2 new · 1 open · 1 accepted · 0 left out" in html
        assert "accepted by ann" in html
        assert "open with bob since" in html
        assert "about 25 %" in html
        assert html.index("case1") < html.index("case2") < html.index("case0")

    def test_names_are_shown_as_text(self, server, project, ann):
        opened(visitor(server, "x", "<img src=x onerror=alert(1)>", OTHER), server)
        assert "<img" not in worklist_html(ann, server)

    def test_versions_and_revert(self, server, project, ann):
        held = Project(project, "reader")
        with held.store.change():
            held.store.run(
                "INSERT INTO versions VALUES (1, 0, 'versions/0000', 0, '[]', 0.9, 0.8, 1)"
            )
            held.store.put("current", 1)
        held.store.close()
        html = versions_html(ann, server)
        assert "Dice 0.900 (+0.100)" in html
        assert "data-version='0'" in html
        assert "data-version='1'" not in html
        working.revert(ann, server, 0)
        assert "data-version='1'" in versions_html(ann, server)
        with pytest.raises(FormatError, match="no version 7"):
            working.revert(ann, server, 7)

    def test_a_project_that_is_gone_hinders_nothing_else(self, server, project, ann):
        (project / "loop.sqlite").rename(project / "gone")
        for part in PARTS:
            text = listed(ann, server, part)
            assert "no loop project" in text
            assert str(project) not in text

    def test_a_server_without_projects_says_how(self, tmp_path):
        from demo_kit import bright_server

        server = bright_server(tmp_path)
        visit = server.visits.begin("one", (SECRET,))
        assert "--project DIR" in worklist_html(visit, server)
        assert versions_html(visit, server) == ""
