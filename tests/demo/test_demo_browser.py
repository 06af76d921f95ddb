"""The page in a real browser: load, click, draw, propagate, correct, undo, take home."""

import os
import zipfile

import pytest
from browser_kit import Tab
from demo_kit import bright_server, masks_equal, running, tubes
from series_kit import series
from support import segmenter

from promptseg.prompts.types import Box, Point, PromptSet, Scribble
from promptseg.volume import read

pytest.importorskip("gradio", reason="the demo needs the `demo` extra")
from promptseg.demo.keeping import Keeper
from promptseg.demo.launch import serve

SIZES = [(1366, 768), (1920, 1080)]
CONTROLS = [
    "open", "sample", "model", "adapter", "axis", "preset", "model_window", "low", "high",
    "opacity", "doubt", "colour",
    "target-name", "add_target", "tool", "words", "add_words", "undo", "redo", "clear",
    "propagate", "cancel", "refine", "suggest", "mask", "prompts", "report", "language", "theme",
    "status",
]  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    blocks, address = running(bright_server(tmp_path_factory.mktemp("page")))
    yield address
    blocks.close()


@pytest.fixture
def tab(browser, address):
    context = browser.new_context(viewport={"width": 1366, "height": 768}, accept_downloads=True)
    yield Tab(context.new_page(), address)
    context.close()


class TestSegmenting:
    def test_from_the_sample_to_the_files(self, tab, tmp_path):
        tab.sample()
        tab.click((14, 16))
        tab.click((16, 18))
        tab.page.click("#ps-add_target")
        tab.page.wait_for_selector("#ps-targets [data-target='2'][aria-pressed=true]")
        tab.tool("box")
        tab.drag((22, 28), (35, 41))
        tab.page.fill("#ps-words input, #ps-words textarea", "left kidney")
        tab.page.click("#ps-add_words")
        tab.page.wait_for_selector("#ps-status .ps-error")
        assert "left kidney" in tab.status()
        tab.press("propagate")
        assert "ml" in tab.page.inner_text("#ps-targets")
        tab.tool("plus")
        tab.click((28, 38), button="right")
        assert "1 correction" in tab.status()
        tab.press("refine")
        tab.press("undo")
        mask = read(tab.download("mask", tmp_path))
        prompts = PromptSet.load(tab.download("prompts", tmp_path))
        assert [type(prompt) for prompt in prompts] == [Point, Point, Box]
        assert masks_equal(mask.data, segmenter().segment(tubes(), prompts).data)
        assert tab.download("report", tmp_path).name == "report.json"

    def test_two_clicks_make_a_box_and_a_stroke_a_scribble(self, tab, tmp_path):
        tab.sample()
        tab.tool("box")
        tab.page.mouse.click(*tab.place((5, 7)))
        tab.click((24, 26))
        tab.tool("brush")
        tab.drag((12, 14), (16, 18))
        prompts = PromptSet.load(tab.download("prompts", tmp_path))
        assert [type(prompt) for prompt in prompts] == [Box, Scribble]
        assert prompts[0].lo[2] == 6
        assert len(prompts[1].voxels) >= 4

    def test_wheel_keys_and_axis_change_the_slice(self, tab):
        tab.sample()
        stage = tab.page.locator(".pv-stage")
        tab.page.mouse.move(*tab.place((14, 16)))
        tab.after(lambda: tab.page.mouse.wheel(0, 100))
        assert stage.get_attribute("data-index") == "7"
        tab.page.locator(".pv-frame").focus()
        tab.after(lambda: tab.page.keyboard.press("ArrowUp"))
        assert stage.get_attribute("data-index") == "6"
        tab.after(lambda: tab.page.keyboard.press("Home"))
        assert stage.get_attribute("data-index") == "0"
        coronal = tab.page.locator("#ps-axis input[value=coronal]")
        tab.after(lambda: coronal.check(force=True))
        assert stage.get_attribute("data-axis") == "1"

    def test_the_keyboard_alone_sets_a_point(self, tab, tmp_path):
        tab.sample()
        tab.page.locator(".pv-frame").focus()
        for _ in range(14):
            tab.page.keyboard.press("Shift+ArrowRight")
            tab.page.keyboard.press("Shift+ArrowDown")
        tab.after(lambda: tab.page.keyboard.press("Enter"))
        prompts = PromptSet.load(tab.download("prompts", tmp_path))
        assert tubes().data[tuple(round(value) for value in prompts[0].at)] == 100


class TestPage:
    @pytest.mark.parametrize("size", SIZES)
    def test_every_control_is_in_the_window(self, tab, size):
        tab.page.set_viewport_size({"width": size[0], "height": size[1]})
        tab.sample()
        for name in CONTROLS:
            area = tab.page.locator(f"#ps-{name}").bounding_box()
            assert area is not None, name
            assert area["x"] >= 0, name
            assert area["y"] >= 0, name
            assert area["x"] + area["width"] <= size[0], name
            assert area["y"] + area["height"] <= size[1], name
        stage = tab.page.locator(".pv-stage").bounding_box()
        assert stage["height"] > 0.6 * size[1]

    def test_nothing_is_asked_of_another_machine(self, tab):
        tab.sample()
        outside = [url for url in tab.asked if url.startswith("http") and "127.0.0.1" not in url]
        assert outside == []

    def test_chinese_and_back(self, tab):
        tab.page.locator("#ps-language input[value=zh]").check(force=True)
        tab.page.wait_for_function(
            "() => document.querySelector('#ps-propagate').innerText.includes('三维传播')"
        )
        tab.page.locator("#ps-language input[value=en]").check(force=True)
        tab.page.wait_for_function(
            "() => document.querySelector('#ps-propagate').innerText.includes('Propagate')"
        )

    def test_surface_and_python(self, tab):
        tab.sample()
        tab.click((14, 16))
        tab.press("propagate")
        tab.page.get_by_role("tab", name="As Python").click()
        tab.page.wait_for_function(
            "() => document.querySelector('#ps-code').innerText.includes('ps.Point')"
        )
        tab.page.get_by_role("tab", name="3D surface").click()
        tab.page.wait_for_selector("#ps-surface canvas")


@pytest.fixture
def losing(browser, tmp_path, monkeypatch):
    """A tab on a server that can end visits and start again."""
    monkeypatch.setattr("promptseg.demo.showing.PULSE_MS", 300)
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ.get("GRADIO_TEMP_DIR", ""))
    servers = Restarting(tmp_path)
    context = browser.new_context(viewport={"width": 1366, "height": 768})
    yield Tab(context.new_page(), servers.address), servers
    context.close()
    servers.stop()


class Restarting:
    """A server that keeps its port and its works when it is started again."""

    def __init__(self, folder):
        self.folder, self.starts, self.port = folder, 0, 0
        self.start()

    def start(self):
        self.starts += 1
        keeper = Keeper(self.folder / "works")
        self.server = bright_server(self.folder / f"files{self.starts}", keeper=keeper)
        self.blocks, self.address = serve(self.server, port=self.port, block=False)
        self.port = int(self.address.rstrip("/").rsplit(":", 1)[1])

    def stop(self):
        self.blocks.close()
        self.server.close()


def masked(tab):
    tab.sample()
    tab.click((14, 16))
    tab.press("propagate")
    return tab.page.inner_text("#ps-targets")


class TestLosses:
    def test_tab_through_everything_and_presets_leave_the_mask(self, tab):
        before = masked(tab)
        tab.page.locator("#ps-theme").focus()
        passed = set()
        for _ in range(40):
            tab.page.keyboard.press("Tab")
            passed.add(tab.page.evaluate("(document.activeElement.closest('[id^=ps-]') || {}).id"))
        assert {"ps-model", "ps-adapter", "ps-preset", "ps-model_window", "ps-undo"} <= passed
        tab.after(lambda: tab.page.select_option("#ps-preset select", "lung"))
        # On a busy machine a clock runs over the list until the picture is there.
        tab.page.wait_for_function(
            "text => document.querySelector('#ps-targets').innerText === text", arg=before
        )
        assert "3D mask in" in tab.status()

    def test_clear_and_open_are_undone(self, tab):
        before = masked(tab)
        for name in ("clear", "sample"):
            tab.press(name)
            assert "ml" not in tab.page.inner_text("#ps-targets")
            assert "Undo brings" in tab.status()
            tab.press("undo")
            assert tab.page.inner_text("#ps-targets") == before

    def test_the_model_s_window_is_undone_and_shown_so(self, tab):
        before = masked(tab)
        tab.after(lambda: tab.page.select_option("#ps-model_window select", "percentile"))
        assert "Propagate makes the 3D mask anew" in tab.status()
        tab.press("undo")
        assert tab.page.inner_text("#ps-targets") == before
        assert tab.page.input_value("#ps-model_window select") == "auto"

    def test_a_name_stays_with_its_target(self, tab):
        masked(tab)
        tab.page.fill("#ps-target-name", "spleen")
        tab.page.wait_for_selector("#ps-targets b:text-is('spleen')")
        tab.page.click("#ps-add_target")
        tab.page.wait_for_selector("#ps-targets [data-target='2'][aria-pressed=true]")
        assert tab.page.input_value("#ps-target-name") == "target 2"
        tab.page.locator("#ps-target-name").focus()
        tab.page.locator("#ps-words textarea, #ps-words input").first.focus()
        assert tab.page.locator("#ps-targets b").all_inner_texts() == ["spleen", "target 2"]

    def test_the_colour_is_painted(self, tab):
        masked(tab)
        tab.page.fill("#ps-colour", "#ff0000")
        tab.page.wait_for_selector("#ps-targets i[style*='#ff0000']")
        area = tab.page.locator("#ps-colour").bounding_box()
        assert area["width"] >= 30

    def test_leaving_with_unsaved_work_asks_and_a_reload_brings_it_back(self, losing, tmp_path):
        tab, _ = losing
        asked = []
        tab.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
        tab.sample()
        tab.page.reload()
        tab.page.wait_for_selector("#ps-targets button")
        assert asked == []
        before = masked(tab)
        tab.page.reload()
        assert asked == ["beforeunload"]
        tab.page.wait_for_selector("#ps-offer")
        assert "1 prompt(s), with masks" in tab.page.inner_text("#ps-offer")
        tab.page.click("#ps-bring_back")
        tab.page.wait_for_selector(".pv-stage[data-index]:not([hidden])")
        assert tab.page.inner_text("#ps-targets") == before
        tab.download("mask", tmp_path)
        tab.page.wait_for_function(
            "() => document.querySelector('#ps-status').innerText.includes('ready')"
        )
        tab.page.reload()
        assert asked == ["beforeunload"]

    def test_an_ended_visit_says_so_and_offers_what_was_kept(self, losing):
        tab, servers = losing
        before = masked(tab)
        servers.server.visits.idle_seconds = -1.0
        servers.server.visits.sweep()
        servers.server.visits.idle_seconds = 1800.0
        tab.page.wait_for_selector("#ps-gone[data-why=gone]")
        assert "This visit has ended" in tab.page.inner_text("#ps-gone")
        assert tab.page.evaluate("document.querySelector('#ps-body').inert")
        tab.page.click("#ps-gone button")
        tab.page.wait_for_selector("#ps-offer")
        tab.page.click("#ps-bring_back")
        tab.page.wait_for_selector(".pv-stage[data-index]:not([hidden])")
        assert tab.page.inner_text("#ps-targets") == before

    def test_a_server_that_starts_again_says_so_and_brings_back(self, losing):
        tab, servers = losing
        before = masked(tab)
        servers.stop()
        tab.page.wait_for_selector("#ps-gone[data-why=lost]")
        servers.start()
        tab.page.wait_for_selector("#ps-gone[data-why=gone]")
        tab.page.click("#ps-gone button")
        tab.page.wait_for_selector("#ps-offer")
        tab.page.click("#ps-bring_back")
        tab.page.wait_for_selector(".pv-stage[data-index]:not([hidden])")
        assert tab.page.inner_text("#ps-targets") == before


class TestDicom:
    def test_a_zipped_study_asks_for_a_series(self, tab, tmp_path):
        path = tmp_path / "study.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**series(tubes(), "one"), **series(tubes(), "two")}.items():
                archive.writestr(name, content)
        tab.page.set_input_files(".ps-group-image input[type=file]", str(path))
        tab.page.wait_for_selector("#ps-series-bar select")
        assert len(tab.page.locator("#ps-series option").all()) == 3
        tab.page.select_option("#ps-series select", "2")
        tab.page.wait_for_selector(".pv-stage[data-index]:not([hidden])")
        assert "study.zip (2)" in tab.page.inner_text("#ps-info")
        assert not tab.page.is_visible("#ps-series-bar")


class TestBadUploads:
    def test_a_message_on_the_page_and_the_server_goes_on(self, tab, tmp_path):
        program, evil = tmp_path / "scan.nii.gz", tmp_path / "evil.zip"
        program.write_bytes(b"\x7fELF" + os.urandom(500))
        with zipfile.ZipFile(evil, "w") as archive:
            archive.writestr("../evil.nii", b"x")
        for path, words in ((program, "not gzip data"), (evil, "leads outside")):
            tab.page.set_input_files(".ps-group-image input[type=file]", str(path))
            tab.page.wait_for_function(
                "words => document.querySelector('#ps-status').innerText.includes(words)", arg=words
            )
        tab.sample()
