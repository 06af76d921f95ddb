"""The tab of cases in a real browser: a worklist done by two people, and a server that restarts."""

import os

import numpy as np
import pytest
from browser_kit import Tab
from cases_kit import case_server, make_cases, truth

from promptseg.active.loop.project import Project
from promptseg.volume import read

pytest.importorskip("gradio", reason="the demo needs the `demo` extra")
from promptseg.demo.launch import serve

BAR = "#ps-casebar"


class CaseServers:
    """A server of one project that keeps its port when it is started again."""

    def __init__(self, folder):
        self.folder, self.starts, self.port = folder, 0, 0
        self.project = make_cases(folder / "place")
        self.start()

    def start(self):
        self.starts += 1
        self.server = case_server(self.project, self.folder / f"files{self.starts}")
        self.blocks, self.address = serve(self.server, port=self.port, block=False)
        self.port = int(self.address.rstrip("/").rsplit(":", 1)[1])

    def stop(self):
        self.blocks.close()
        self.server.close()

    def accepted(self):
        project = Project(self.project, "reader")
        try:
            return [dict(row) for row in project.store.run("SELECT * FROM accepted")]
        finally:
            project.store.close()


@pytest.fixture
def servers(tmp_path, monkeypatch):
    monkeypatch.setattr("promptseg.demo.showing.PULSE_MS", 300)
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ.get("GRADIO_TEMP_DIR", ""))
    made = CaseServers(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def person(browser, servers):
    """Opens the page for a person, in a browser of their own."""
    contexts = []

    def come(name):
        contexts.append(browser.new_context(viewport={"width": 1366, "height": 768}))
        tab = Tab(contexts[-1].new_page(), servers.address)
        tab.page.get_by_role("tab", name="Cases").click()
        tab.page.wait_for_function(
            "() => document.querySelector('#ps-who input, #ps-who textarea').value"
        )
        tab.page.fill("#ps-who input, #ps-who textarea", name)
        tab.page.keyboard.press("Tab")
        tab.page.wait_for_selector("#ps-worklist tbody tr")
        return tab

    yield come
    for context in contexts:
        context.close()


def in_bar(tab, text):
    tab.page.wait_for_function(
        "text => (document.querySelector('#ps-case-text') || {innerText: ''}).innerText"
        ".includes(text)",
        arg=text,
    )


def open_next(tab, name):
    tab.page.click("#ps-next_case")
    in_bar(tab, name)
    tab.page.wait_for_selector(".pv-stage[data-index]:not([hidden])")


def correct(tab, servers, name):
    """A click on the last slice of the disc, which the prediction has not, and Refine."""
    known = truth(servers.project, name)
    last = int(np.flatnonzero(known.any((0, 1)))[-1])
    rows, columns = np.nonzero(known[..., last])
    tab.page.locator(".pv-frame").focus()
    while tab.page.locator(".pv-stage").get_attribute("data-index") != str(last):
        tab.after(lambda: tab.page.keyboard.press("ArrowDown"))
    area = tab.page.locator(".pv-stage").bounding_box()
    x, y = 1 - (rows.mean() + 0.5) / 48, 1 - (columns.mean() + 0.5) / 48
    place = area["x"] + x * area["width"], area["y"] + y * area["height"]
    tab.after(lambda: tab.page.mouse.click(*place))
    assert "1 correction" in tab.status()
    tab.press("refine")


class TestWorklist:
    def test_two_people_open_correct_accept_and_reject(self, person, servers):
        ann, bob = person("ann"), person("bob")
        open_next(ann, "case0")
        open_next(bob, "case1")
        correct(ann, servers, "case0")
        ann.page.click("#ps-case_accept_next")
        in_bar(ann, "case2")
        assert "case0 accepted" in ann.status()
        ann.page.get_by_role("tab", name="Cases").click()
        row = ann.page.locator("#ps-worklist tr", has_text="case1")
        assert "open with bob" in row.inner_text()
        assert row.locator("button").is_disabled()
        bob.page.fill("#ps-case_reason input, #ps-case_reason textarea", "blurred")
        bob.page.click("#ps-case_reject")
        bob.page.wait_for_selector(BAR, state="hidden")
        bob.page.wait_for_selector("#ps-worklist tr:has-text('left out')")
        # The other page sees it without being touched.
        ann.page.wait_for_selector("#ps-worklist tr.pk-rejected:has-text('case1')")
        kept = servers.accepted()
        assert [(one["name"], one["who"]) for one in kept] == [("case0", "ann")]
        assert kept[0]["revision"] > 0
        prediction = servers.project / "predictions" / "0000" / "case0.nii.gz"
        mask = read(servers.project / kept[0]["mask"]).data
        assert mask.sum() > read(prediction).data.sum()

    def test_every_control_is_in_the_window(self, person):
        tab = person("ann")
        names = ["project", "who", "estimate", "next_case", "train", "train_stop", "learn"]
        bar = ["case_release", "case_afresh", "case_reason", "case_reject", "case_accept",
               "case_accept_next", "status"]  # fmt: skip
        assert_inside(tab, names)
        open_next(tab, "case0")
        assert_inside(tab, [*bar, "viewer"])
        hint = tab.page.locator(".pv-hint").bounding_box()
        assert hint["y"] + hint["height"] <= tab.page.locator(BAR).bounding_box()["y"]

    def test_what_cannot_be_trained_is_said(self, person):
        tab = person("ann")
        tab.page.click("#ps-train")
        tab.page.wait_for_selector("#ps-status .ps-error")
        assert "no case was accepted" in tab.status()


def assert_inside(tab, names):
    for name in names:
        area = tab.page.locator(f"#ps-{name}").bounding_box()
        assert area is not None, name
        assert area["x"] >= 0, name
        assert area["x"] + area["width"] <= 1366, name
        assert area["y"] + area["height"] <= 768, name


class TestLosses:
    def test_a_restart_and_a_closed_tab_lose_nothing(self, person, servers):
        tab = person("ann")
        asked = []
        tab.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
        open_next(tab, "case0")
        correct(tab, servers, "case0")
        before = tab.page.inner_text("#ps-targets")
        servers.stop()
        servers.start()
        tab.page.wait_for_selector("#ps-gone[data-why=gone]")
        tab.page.click("#ps-gone button")
        brought_back(tab, before)
        context = tab.page.context
        tab.page.close()
        again = Tab(context.new_page(), servers.address)
        brought_back(again, before)
        again.page.click("#ps-case_accept")
        again.page.wait_for_selector("#ps-worklist tr:has-text('accepted by ann')")
        assert servers.accepted()[0]["name"] == "case0"
        assert asked == []

    def test_tab_and_presets_leave_the_case(self, person, servers):
        tab = person("ann")
        open_next(tab, "case0")
        correct(tab, servers, "case0")
        before = tab.page.inner_text("#ps-targets")
        tab.page.locator("#ps-case_release").focus()
        for _ in range(12):
            tab.page.keyboard.press("Tab")
        tab.after(lambda: tab.page.select_option("#ps-preset select", "lung"))
        in_bar(tab, "case0")
        assert tab.page.inner_text("#ps-targets") == before
        assert servers.accepted() == []


def brought_back(tab, before):
    tab.page.wait_for_selector("#ps-offer")
    assert "case0" in tab.page.inner_text("#ps-offer")
    tab.page.click("#ps-bring_back")
    in_bar(tab, "case0")
    tab.page.wait_for_selector(".pv-stage[data-index]:not([hidden])")
    assert tab.page.inner_text("#ps-targets") == before
