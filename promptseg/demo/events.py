"""What happens on the page when something is clicked, chosen or typed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from promptseg.demo import actions
from promptseg.demo.downloads import NAMES, segmentation, write_download
from promptseg.demo.page import DOWNLOADS, Page, brand, status
from promptseg.demo.python_code import python_code
from promptseg.demo.server import SAMPLE, Server
from promptseg.demo.showing import axis_name, info_html, picture_json, targets_html
from promptseg.demo.surface import write_surfaces
from promptseg.demo.visit import Visit
from promptseg.prompts import Text

Updates = dict[Any, Any]
QUICK = {"concurrency_id": "quick", "concurrency_limit": 2, "show_progress": "minimal"}
LONG = {"concurrency_id": "long", "concurrency_limit": 1, "show_progress": "full"}
LOOK = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last"}
BROWSER_LANGUAGE = "() => [/^zh/i.test(navigator.language) ? 'zh' : 'en']"
STAGES = ("encode", "propagate", "segment")
CLICK_FILE = "() => { setTimeout(() => { const part = document.querySelector('#ps-file-%s'); (part.querySelector('a, button') || part).click(); }, 150); }"  # noqa: E501


class Events:
    """Connects a page with the actions on a server.

    Args:
        page: Its components.
        server: Networks and visits.
    """

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.shown = [page[name] for name in (
            "viewer", "status", "targets", "undo", "redo", "clear", "propagate", "refine",
            "suggest", "doubt", *DOWNLOADS)]  # fmt: skip
        self.settings = [page[name] for name in (
            "info", "axis", "preset", "low", "high", "model", "adapter", "target_name",
            "colour")]  # fmt: skip

    def connect(self, blocks: gr.Blocks) -> None:
        """Listen to every component."""
        self._connect_image(blocks)
        self._connect_view()
        self._connect_targets()
        self._connect_prompts()
        self._connect_work()
        self._connect_results()

    def shown_now(self, visit: Visit) -> Updates:
        """Picture, message, targets, and which buttons can be pressed."""
        page, some = self.page, len(visit.prompts) > 0
        able = {
            "undo": some,
            "redo": bool(visit.undone),
            "clear": some or visit.labels is not None,
            "propagate": visit.volume is not None and (some or visit.adapter is not None),
            "refine": visit.propagated and visit.pending > 0,
            "suggest": visit.labels is not None,
            "doubt": visit.labels is not None,
            **dict.fromkeys(DOWNLOADS, visit.labels is not None),
        }
        updates = {page[name]: gr.update(interactive=on) for name, on in able.items()}
        return {
            **updates,
            page["viewer"]: picture_json(visit),
            page["status"]: status(*visit.message),
            page["targets"]: targets_html(visit),
        }

    def settings_now(self, visit: Visit) -> Updates:
        """What the controls must say after an image was opened or a target was chosen."""
        page, target = self.page, visit.targets[visit.active]
        updates: Updates = {
            page["info"]: info_html(visit),
            page["model"]: visit.model,
            page["adapter"]: gr.update(
                value=visit.adapter or "",
                choices=[(visit.say("none"), ""), *self.server.models.adapters(visit.model)],
            ),
            page["target_name"]: target.name,
            page["colour"]: target.colour,
        }
        return updates if visit.volume is None else {**updates, **self._view_now(visit)}

    def _view_now(self, visit: Visit) -> Updates:
        page, view, volume = self.page, visit.view, visit.opened()
        least, most = float(volume.data.min()), float(volume.data.max())
        least, most = min(least, view.low), max(most, view.high)
        step = max((most - least) / 1000, 1e-6)
        step = max(1.0, round(step)) if most - least > 50 else step
        return {
            page["axis"]: axis_name(volume, view.axis),
            page["preset"]: view.preset,
            page["low"]: gr.update(minimum=least, maximum=most, step=step, value=view.low),
            page["high"]: gr.update(minimum=least, maximum=most, step=step, value=view.high),
        }

    def _visit(self, request: gr.Request) -> Visit:
        return self.server.visits.of(request.session_hash)

    def _connect_image(self, blocks: gr.Blocks) -> None:
        page, server = self.page, self.server
        everything = [*self.shown, *self.settings]

        def open_files(files: list[str] | None, request: gr.Request) -> Updates:
            visit, paths = self._visit(request), [Path(file) for file in files or []]
            name = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
            server.attempt(
                visit,
                lambda: actions.open_volume(visit, server.read(paths), name, server.visits),
            )
            return {**self.shown_now(visit), **self.settings_now(visit)}

        def open_sample(request: gr.Request) -> Updates:
            visit = self._visit(request)
            server.attempt(
                visit,
                lambda: actions.open_volume(visit, server.sample(), SAMPLE, server.visits),
            )
            return {**self.shown_now(visit), **self.settings_now(visit)}

        def choose_model(model: str, adapter: str, request: gr.Request) -> Updates:
            visit = self._visit(request)
            server.attempt(
                visit,
                lambda: actions.choose_model(visit, server.models, model, adapter or None),
            )
            return {**self.shown_now(visit), **self.settings_now(visit)}

        def leave(request: gr.Request) -> None:
            server.visits.drop(request.session_hash)

        _private(page["open"].upload, open_files, [page["open"]], everything, **QUICK,
                 show_progress_on=page["status"])  # fmt: skip
        _private(page["sample"].click, open_sample, None, everything, **QUICK,
                 show_progress_on=page["status"])  # fmt: skip
        for name in ("model", "adapter"):
            _private(page[name].input, choose_model, [page["model"], page["adapter"]], everything,
                     **QUICK, show_progress_on=page["status"])  # fmt: skip
        blocks.unload(leave)
        self._connect_language(blocks, everything)

    def _connect_language(self, blocks: gr.Blocks, everything: list[Any]) -> None:
        page = self.page
        texts = list(page.translated("en"))
        outputs = list(dict.fromkeys([*everything, *texts, page["brand"], page["language"]]))

        def speak(language: str, request: gr.Request) -> Updates:
            visit = self._visit(request)
            visit.language = "zh" if str(language).startswith("zh") else "en"
            if visit.volume is None:
                visit.tell("welcome")
            values = {**self.shown_now(visit), **self.settings_now(visit)}
            said = page.translated(visit.language)
            merged = {part: _merged(said.get(part), value) for part, value in values.items()}
            return {
                **said,
                **merged,
                page["brand"]: brand(visit.language),
                page["language"]: visit.language,
            }

        _private(page["language"].input, speak, [page["language"]], outputs, **LOOK)
        _private(blocks.load, speak, [page["language"]], outputs, queue=False,
                 show_progress="hidden", js=BROWSER_LANGUAGE)  # fmt: skip

    def _connect_view(self) -> None:
        page, server = self.page, self.server
        viewer, state = page["viewer"], [page["viewer"], page["status"]]

        def look(request: gr.Request, event: gr.EventData) -> Updates:
            visit = self._visit(request)
            server.look(visit, lambda: actions.show_slice(visit, int(event._data["index"])))
            return {viewer: picture_json(visit)}

        def turn(axis: str, request: gr.Request) -> Updates:
            visit = self._visit(request)
            server.look(visit, lambda: actions.show_axis(visit, axis))
            return {**self.shown_now(visit), page["info"]: info_html(visit)}

        def choose_preset(preset: str, request: gr.Request) -> Updates:
            visit = self._visit(request)
            server.attempt(visit, lambda: actions.choose_preset(visit, preset))
            return {**self.shown_now(visit), **self.settings_now(visit)}

        def adjust(low: float, high: float, opacity: float, request: gr.Request) -> Updates:
            visit = self._visit(request)
            view = visit.view
            view.low, view.high = float(low), max(float(high), float(low) + 1e-6)
            view.opacity = float(opacity)
            return {viewer: picture_json(visit), page["status"]: status(*visit.message)}

        _private(viewer.look, look, None, [viewer], **{**LOOK, "trigger_mode": "multiple"})
        _private(page["axis"].input, turn, [page["axis"]], [*self.shown, page["info"]], **LOOK)
        _private(page["preset"].input, choose_preset, [page["preset"]],
                 [*self.shown, *self.settings], **QUICK)  # fmt: skip
        controls = [page[name] for name in ("low", "high", "opacity")]
        for control in controls:
            _private(control.input, adjust, controls, state, **LOOK)

    def _connect_targets(self) -> None:
        page, server = self.page, self.server
        outputs = [*self.shown, page["target_name"], page["colour"]]

        def after(visit: Visit) -> Updates:
            target = visit.targets[visit.active]
            named = {page["target_name"]: target.name, page["colour"]: target.colour}
            return {**self.shown_now(visit), **named}

        def choose(request: gr.Request, event: gr.EventData) -> Updates:
            visit = self._visit(request)
            server.look(visit, lambda: actions.choose_target(visit, int(event._data["target"])))
            return after(visit)

        def add(request: gr.Request) -> Updates:
            visit = self._visit(request)
            server.look(visit, lambda: actions.add_target(visit))
            return after(visit)

        def rename(name: str, colour: str, request: gr.Request) -> Updates:
            visit = self._visit(request)
            server.look(visit, lambda: actions.rename_target(visit, name, colour))
            return self.shown_now(visit)

        _private(page["targets"].choose, choose, None, outputs, **LOOK)
        _private(page["add_target"].click, add, None, outputs, **LOOK)
        named = [page["target_name"], page["colour"]]
        for part in named:
            _private(part.input, rename, named, self.shown, **LOOK)

    def _connect_prompts(self) -> None:
        page, server = self.page, self.server
        quick: dict[str, Any] = {**QUICK, "show_progress_on": page["status"]}

        def prompt(request: gr.Request, event: gr.EventData) -> Updates:
            visit, asked = self._visit(request), dict(event._data or {})
            server.attempt(visit, lambda: _give(visit, server, asked))
            return self.shown_now(visit)

        def words(
            text: str,
            request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008
        ) -> Updates:
            visit = self._visit(request)
            given, report = Text(text.strip(), visit.active), _reporting(visit, progress)
            done = server.attempt(
                visit, lambda: actions.give_words(visit, server.models, given, report), True
            )
            return {**self.shown_now(visit), page["words"]: "" if done else text}

        def clear(request: gr.Request) -> Updates:
            visit = self._visit(request)
            server.attempt(visit, lambda: actions.clear(visit))
            return self.shown_now(visit)

        _private(page["viewer"].prompt, prompt, None, self.shown, **quick,
                 trigger_mode="multiple")  # fmt: skip
        outputs = [*self.shown, page["words"]]
        long: dict[str, Any] = {**LONG, "show_progress_on": page["status"]}
        _private(page["words"].submit, words, [page["words"]], outputs, **long)
        _private(page["add_words"].click, words, [page["words"]], outputs, **long)
        _private(page["clear"].click, clear, None, self.shown, **quick)
        for name, action in (("undo", actions.undo), ("redo", actions.redo)):
            step = self._step(action)
            _private(page[name].click, step, None, self.shown, **quick, trigger_mode="multiple")

    def _step(self, action: Callable[..., None]) -> Callable[..., Updates]:
        def step(request: gr.Request) -> Updates:
            visit = self._visit(request)
            self.server.attempt(visit, lambda: action(visit))
            return self.shown_now(visit)

        return step

    def _connect_work(self) -> None:
        page, server = self.page, self.server
        long: dict[str, Any] = {**LONG, "show_progress_on": page["status"]}

        def propagate(request: gr.Request, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
            visit = self._visit(request)
            report = _reporting(visit, progress)
            server.attempt(visit, lambda: actions.propagate(visit, server.models, report), True)
            return self.shown_now(visit)

        def refine(request: gr.Request, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
            visit = self._visit(request)
            report = _reporting(visit, progress)
            server.attempt(visit, lambda: actions.take_up(visit, report), True)
            return self.shown_now(visit)

        def cancel(request: gr.Request) -> Updates:
            visit = self._visit(request)
            visit.cancel.set()
            if visit.long_running:
                visit.tell("cancelling")
            return {page["status"]: status(*visit.message)}

        _private(page["propagate"].click, propagate, None, self.shown, **long)
        _private(page["refine"].click, refine, None, self.shown, **long)
        _private(page["cancel"].click, cancel, None, [page["status"]], queue=False,
                 show_progress="hidden")  # fmt: skip

    def _connect_results(self) -> None:
        page, server = self.page, self.server

        def show_doubt(
            wanted: bool,
            request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008
        ) -> Updates:
            visit = self._visit(request)
            report = _reporting(visit, progress)
            server.attempt(visit, lambda: actions.show_uncertainty(visit, wanted, report), True)
            return {**self.shown_now(visit), page["doubt"]: visit.view.doubt}

        _private(page["doubt"].input, show_doubt, [page["doubt"]], [*self.shown, page["doubt"]],
                 **LONG, show_progress_on=page["status"])  # fmt: skip

        def suggest(request: gr.Request) -> Updates:
            visit = self._visit(request)
            server.attempt(visit, lambda: actions.suggest(visit))
            return {**self.shown_now(visit), **self.settings_now(visit)}

        def surface(request: gr.Request) -> Updates:
            visit = self._visit(request)
            made: list[str] = []

            def work() -> None:
                colours = {label: target.colour for label, target in visit.targets.items()}
                path = self._new_folder() / "surface.glb"
                if write_surfaces(segmentation(visit), colours, path):
                    made.append(str(path))

            server.attempt(visit, work)
            found = made[0] if made else None
            return {page["surface"]: found, page["status"]: status(*visit.message)}

        def code(request: gr.Request) -> str:
            return python_code(self._visit(request))

        _private(page["suggest"].click, suggest, None, [*self.shown, *self.settings], **QUICK,
                 show_progress_on=page["status"])  # fmt: skip
        _private(page["surface_tab"].select, surface, None, [page["surface"], page["status"]],
                 **QUICK, show_progress_on=page["status"])  # fmt: skip
        _private(page["code_tab"].select, code, None, [page["code"]], **LOOK)
        for kind in DOWNLOADS:
            self._connect_download(kind)

    def _connect_download(self, kind: str) -> None:
        page, server = self.page, self.server
        hidden = page[f"file_{kind}"]

        def make(request: gr.Request) -> Updates:
            visit = self._visit(request)
            made: list[str] = []
            folder = self._new_folder()
            server.attempt(visit, lambda: made.append(str(write_download(visit, kind, folder))))
            if not made:
                raise gr.Error(visit.message[1], print_exception=False)
            return {hidden: made[0], page["status"]: status(*visit.message)}

        event = _private(page[kind].click, make, None, [hidden, page["status"]], **QUICK,
                         show_progress_on=page["status"])  # fmt: skip
        event.success(None, js=CLICK_FILE % kind, api_visibility="private")

    def _new_folder(self) -> Path:
        folder = self.server.folder / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder


def _give(visit: Visit, server: Server, asked: dict[str, Any]) -> None:
    """Give the prompt that `viewer.js` describes, on the slice that was seen."""
    index, kind = int(asked["index"]), asked.get("kind")
    positive = bool(asked.get("positive", True))
    prompt: Any
    if kind == "point":
        prompt = actions.point(visit, asked["at"], index, positive)
    elif kind == "box":
        prompt = actions.box(visit, asked["first"], asked["last"], index)
    else:
        prompt = actions.stroke(visit, asked["path"], index, positive)
    actions.give(visit, server.models, prompt)


def _reporting(visit: Visit, progress: gr.Progress) -> Callable[[str, int, int], None]:
    def report(stage: str, done: int, total: int) -> None:
        name = visit.say(stage if stage in STAGES else "working")
        progress((done, total), desc=name, unit="")

    return report


def _merged(text: Any, value: Any) -> Any:
    """One update that sets both a text and a value."""
    if text is None:
        return value
    return {**text, **(value if isinstance(value, dict) else {"value": value})}


def _private(listener: Any, work: Any, inputs: Any, outputs: Any, **options: Any) -> Any:
    """Listen without an entry in the API, which `promptseg.demo.api` gives."""
    return listener(work, inputs, outputs, api_visibility="private", **options)


__all__ = ["NAMES", "Events"]
