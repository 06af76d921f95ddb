"""What the page learns: in the visit, in a training in the background, and ahead of the visitor."""

import json
import time

import pytest
from cases_kit import case_server, make_cases, visitor
from demo_kit import BrightModels, BrightServer, tubes
from support import segmenter, tiny_default

from promptseg.active.loop.claims import keep_claim, release
from promptseg.active.loop.project import Project
from promptseg.active.loop.showing import predict_case
from promptseg.demo import actions, looking
from promptseg.demo.cases import ahead as ahead_module
from promptseg.demo.cases import background
from promptseg.demo.cases.ahead import unpredicted
from promptseg.demo.cases.background import curve_of
from promptseg.demo.loop import working
from promptseg.demo.loop.finishing import accept_case
from promptseg.demo.loop.learning import learn_from_visit
from promptseg.demo.loop.listing import versions_html, worklist_html
from promptseg.demo.loop.opening import open_case
from promptseg.errors import FormatError, PromptsegError
from promptseg.predictor.learning import Effort
from promptseg.predictor.lessons import LEARNED
from promptseg.prompts.types import Point
from promptseg.session import Segmenter

SHORT = Effort(steps=2, seconds=60.0)
SLOW_S = 120.0


class TinyModels(BrightModels):
    """The default network with random weights, under every name."""

    def names(self):
        return [*self.extra, "default"]

    def _open(self, model, adapter):
        return Segmenter(tiny_default(), "cpu", "fp32")


@pytest.fixture
def project(tmp_path):
    return make_cases(tmp_path / "place")


@pytest.fixture
def server(project, tmp_path):
    made = case_server(project, tmp_path / "files")
    yield made
    made.close()


def waited(condition, seconds=SLOW_S):
    """True once a condition holds."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.2)
    return condition()


class TestLearning:
    @pytest.fixture
    def taught(self, project, server):
        server.models = TinyModels("cpu", "fp32", (str(project.parent / "tiny.safetensors"),))
        return server, visitor(server, "one", "ann")

    def test_the_next_case_is_answered_by_what_was_accepted(self, taught):
        server, ann = taught
        for _ in range(2):
            open_case(ann, server)
            accept_case(ann, server)
        open_case(ann, server)
        assert ann.adapter is None
        assert [lesson.name for lesson in ann.loop.waiting] == ["case0", "case1"]
        learn_from_visit(ann, server, effort=SHORT)
        assert ann.message[1].startswith("Learned from 2 case(s)")
        assert (ann.loop.waiting, ann.loop.learned) == ([], ["case0", "case1"])
        assert ann.adapter == LEARNED
        assert ann.segmenter is ann.loop.pupil
        assert ann.segmenter.adapters.active.name == LEARNED
        assert ann.case.version is None
        accept_case_of_any(ann, server)
        open_case(ann, server)
        assert ann.segmenter is ann.loop.pupil
        assert "what this visit learned" in ann.message[1]

    def test_work_that_was_begun_stays(self, taught):
        server, ann = taught
        open_case(ann, server)
        accept_case(ann, server)
        open_case(ann, server)
        actions.give(ann, server.models, Point((24.0, 24.0, 3.0)))
        before = ann.labels
        learn_from_visit(ann, server, effort=SHORT)
        assert ann.labels is before
        assert ann.adapter is None
        assert ann.loop.use

    def test_a_mask_on_an_image_of_one_s_own_teaches_the_next(self, tmp_path):
        server = BrightServer(models=TinyModels("cpu", "fp32"), folder=tmp_path)
        visit = server.visits.begin("one", ("0123456789abcdef",))
        with pytest.raises(PromptsegError, match="nothing to learn from"):
            learn_from_visit(visit, server)
        looking.open_volume(visit, tubes(), "tubes", server.visits)
        visit.segmenter = segmenter()
        actions.give(visit, server.models, Point((14.0, 16.0, 5.0)))
        actions.propagate(visit, server.models)
        learn_from_visit(visit, server, effort=SHORT)
        assert visit.loop.learned == ["tubes"]
        assert visit.adapter is None
        looking.open_volume(visit, tubes(), "next", server.visits)
        assert visit.adapter == LEARNED
        actions.propagate(visit, server.models)
        assert visit.segmenter is visit.loop.pupil
        looking.choose_model(visit, server.models, "default", None)
        assert not visit.loop.use

    def test_it_outlives_a_reload(self, taught):
        server, ann = taught
        open_case(ann, server)
        accept_case(ann, server)
        server.visits.leave("one")
        again = visitor(server, "two", "ann")
        assert [lesson.name for lesson in again.loop.waiting] == ["case0"]
        assert len(server.visits) == 1


def accept_case_of_any(visit, server):
    """Accept what the random network answered, or that it found nothing."""
    if not server.attempt(visit, lambda: accept_case(visit, server)):
        assert server.attempt(visit, lambda: accept_case(visit, server)), visit.message


class TestTraining:
    def test_in_the_background_and_in_use_only_if_it_is_no_worse(
        self, project, server, monkeypatch
    ):
        ann = visitor(server, "one", "ann")
        monkeypatch.setitem(working.LENGTHS, "minutes_20", {"steps": 2})
        monkeypatch.setattr(background, "NICE", "0")
        with pytest.raises(FormatError, match="no case was accepted"):
            working.train(ann, server)
        open_case(ann, server)
        accept_case(ann, server)
        working.train(ann, server)
        with pytest.raises(FormatError, match="running already"):
            working.train(ann, server)
        training = server.projects.of(ann).training
        assert waited(lambda: not training.running), "it did not end"
        assert training.failure == ""
        held = Project(project, "reader")
        assert held.current == 1
        curve = curve_of(held)
        assert (curve.version, curve.done) == (1, 1.0)
        assert curve.points[-1][0] == 2
        held.store.close()
        html = versions_html(ann, server)
        assert "loss" in html
        assert "data-version='0'" in html
        with pytest.raises(FormatError, match="nothing was accepted since"):
            working.train(ann, server)

    def test_what_went_wrong_is_said(self, project, server, monkeypatch):
        ann = visitor(server, "one", "ann")
        open_case(ann, server)
        accept_case(ann, server)
        failing = project.parent / "python"
        failing.write_text(
            f"#!/bin/sh\necho promptseg: {project}/tiny.safetensors is damaged\nexit 1\n"
        )
        failing.chmod(0o755)
        monkeypatch.setattr(background.sys, "executable", str(failing))
        working.train(ann, server)
        training = server.projects.of(ann).training
        assert waited(lambda: not training.running)
        assert "tiny.safetensors" in training.failure
        html = versions_html(ann, server)
        assert "Training failed" in html
        assert str(project.parent) not in html

    def test_the_curve_is_of_the_log_and_a_cut_line_is_left_out(self, project, server):
        held = Project(project, "ann")
        with held.store.change():
            values = (1, 0, "ann", 0.0, "[]", "[]", json.dumps({"steps": 100}))
            held.store.run("INSERT INTO trainings VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        log = held.version_folder(1) / "training" / "log.jsonl"
        log.parent.mkdir(parents=True)
        rows = [{"step": n, "seconds": n, "loss": 1 / n} for n in (20, 40)]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 60, "lo')
        curve = curve_of(held)
        assert (curve.points, curve.done) == (((20, 0.05), (40, 0.025)), 0.4)
        held.store.close()
        html = versions_html(visitor(server, "one", "ann"), server)
        assert "<polyline" in html
        assert "Train goes on with it" in html


class TestAhead:
    def test_predicts_what_nobody_opened(self, tmp_path, monkeypatch):
        project = make_cases(tmp_path / "place")
        server = case_server(project, tmp_path / "files")
        held = Project(project, "ann")
        with held.store.change():
            held.store.run("DELETE FROM predictions WHERE name != 'case1'")
        held.reject("case3", "blurred")
        assert unpredicted(held) == ["case0", "case2"]
        asked = []

        def predict(project, segmenter, name, progress):
            progress("encode", 1, 2)
            asked.append(name)
            with project.store.change():
                project.store.run(
                    "INSERT INTO predictions VALUES (?, 0, 'x', 0.5, NULL, NULL, '')", (name,)
                )

        monkeypatch.setattr(ahead_module, "predict_case", predict)
        ann = visitor(server, "one", "ann")
        working.estimate(ann, server)
        served = server.projects.of(ann)
        assert waited(lambda: not served.ahead.running)
        assert asked == ["case0", "case2"]
        assert "about 50 %" in worklist_html(ann, server)
        working.estimate(ann, server)
        assert "Every case" in ann.message[1]
        held.store.close()
        server.close()

    def test_gives_way_to_people(self, server, project, monkeypatch):
        held = Project(project, "ann")
        with held.store.change():
            held.store.run("DELETE FROM predictions")
        held.store.close()
        served, stages = next(iter(server.projects)), []

        def predict(project, segmenter, name, progress):
            stages.append(name)
            for step in range(200):
                progress("encode", step, 200)
                time.sleep(0.02)

        monkeypatch.setattr(ahead_module, "predict_case", predict)
        served.ahead.start(server.models, server.computing, most=1)
        assert waited(lambda: stages, 20)
        began = time.monotonic()
        with served.network(server.models):
            taken = time.monotonic() - began
        assert taken < 2
        served.ahead.stop()
        assert not served.ahead.running

    def test_a_case_that_fails_is_named_and_not_tried_for_ever(self, server, project, monkeypatch):
        held = Project(project, "ann")
        with held.store.change():
            held.store.run("DELETE FROM predictions WHERE name = 'case2'")
        held.store.close()

        def predict(*_):
            raise PromptsegError("it is blurred")

        monkeypatch.setattr(ahead_module, "predict_case", predict)
        ann = visitor(server, "one", "ann")
        working.estimate(ann, server)
        assert waited(lambda: not server.projects.of(ann).ahead.running)
        assert "it is blurred" in worklist_html(ann, server)


class TestClaims:
    def test_released_is_what_it_was(self, project):
        held = Project(project, "ann")
        held.open("case0")
        assert keep_claim(held, "case0")
        assert release(held, "case0")
        assert held.case("case0")["status"] == "new"
        assert not release(held, "case0")
        assert not keep_claim(held, "case0")
        held.reject("case0", "blurred")
        held.open("case0")
        assert release(held, "case0")
        assert held.case("case0")["status"] == "rejected"
        held.store.close()

    def test_predicting_leaves_the_case_to_others(self, project):
        held = Project(project, "ann")
        shown = predict_case(held, segmenter(), "case0")
        assert shown.version == 0
        assert held.case("case0")["status"] == "new"
        held.store.close()
