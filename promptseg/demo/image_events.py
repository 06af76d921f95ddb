"""Opening images, choosing networks and the language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from promptseg.demo import looking
from promptseg.demo.loop import working
from promptseg.demo.opening import drop_waiting, open_series, open_upload
from promptseg.demo.page import HERE, brand
from promptseg.demo.parts import status
from promptseg.demo.resuming import forget_offer
from promptseg.demo.screen import LONG, LOOK, QUICK, Screen, Updates, listen, reporting
from promptseg.demo.server import SAMPLE
from promptseg.demo.visit import Visit

BEGIN = (HERE / "begin.js").read_text(encoding="utf-8")


def connect_image(screen: Screen, blocks: gr.Blocks) -> None:
    """Listen to what opens an image or chooses a network."""
    everything = [*screen.shown, *screen.settings]

    def leave(request: gr.Request) -> None:
        screen.server.visits.leave(request.session_hash)

    connect_opening(screen, everything)
    connect_models(screen, everything)
    blocks.unload(leave)
    connect_language(screen, blocks, everything)
    connect_offer(screen, everything)


def connect_opening(screen: Screen, everything: list[Any]) -> None:
    """Listen to uploads, the sample, and which series of an upload is meant."""
    page, server = screen.page, screen.server

    def open_files(files: list[str] | None, request: gr.Request) -> Updates:
        visit, paths = screen.visit(request), [Path(file) for file in files or []]
        name = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
        server.attempt(visit, lambda: open_upload(visit, server, paths, name))
        return screen.opened_now(visit)

    def choose_series(request: gr.Request, event: gr.EventData) -> Updates:
        visit, series = screen.visit(request), str(event._data["value"])
        if series:
            server.attempt(visit, lambda: open_series(visit, server, series))
        return screen.opened_now(visit)

    def no_series(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.attempt(visit, lambda: drop_waiting(visit))
        return screen.opened_now(visit)

    def open_sample(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.attempt(
            visit,
            lambda: looking.open_volume(visit, server.sample(), SAMPLE, server.visits),
        )
        return screen.opened_now(visit)

    opening = [*everything, *screen.offered, page["series_bar"], page["series"]]
    on_status: dict[str, Any] = {**QUICK, "show_progress_on": page["status"]}
    listen(page["open"].upload, open_files, [page["open"]], opening, **on_status)
    listen(page["sample"].click, open_sample, None, opening, **on_status)
    listen(page["series"].choose, choose_series, None, opening, **on_status)
    listen(page["no_series"].click, no_series, None, opening, **on_status)


def connect_models(screen: Screen, everything: list[Any]) -> None:
    """Listen to the choice of a network and of an adapter."""
    page, server = screen.page, screen.server

    def choose_model(request: gr.Request, event: gr.EventData) -> Updates:
        return chosen(request, str(event._data["value"]), None)

    def choose_adapter(request: gr.Request, event: gr.EventData) -> Updates:
        return chosen(request, None, str(event._data["value"]))

    def chosen(request: gr.Request, model: str | None, adapter: str | None) -> Updates:
        visit = screen.visit(request)
        wanted = model or visit.model, (visit.adapter if adapter is None else adapter) or None
        server.attempt(visit, lambda: looking.choose_model(visit, server.models, *wanted))
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    on_status: dict[str, Any] = {**QUICK, "show_progress_on": page["status"]}
    for name, choose in (("model", choose_model), ("adapter", choose_adapter)):
        listen(page[name].choose, choose, None, everything, **on_status)


def connect_offer(screen: Screen, everything: list[Any]) -> None:
    """Listen to what becomes of kept work."""
    page, server = screen.page, screen.server
    outputs = [*everything, *screen.offered, page["tabs"]]

    def bring_back(request: gr.Request, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        visit = screen.visit(request)
        report = reporting(visit, progress)
        server.attempt(visit, lambda: working.bring_back(visit, server, report), True)
        going = server.visits.of(request.session_hash)
        seen = gr.update() if going.volume is None else gr.update(selected="slices")
        return {
            **screen.shown_now(going),
            **screen.settings_now(going),
            **screen.offer_now(going),
            page["tabs"]: seen,
        }

    def forget(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: forget_offer(visit, server))
        return {page["status"]: status(*visit.message), **screen.offer_now(visit)}

    long: dict[str, Any] = {**LONG, "show_progress_on": page["status"]}
    listen(page["bring_back"].click, bring_back, None, outputs, **long)
    listen(page["forget"].click, forget, None, [page["status"], *screen.offered], **QUICK)


def connect_language(screen: Screen, blocks: gr.Blocks, everything: list[Any]) -> None:
    """Listen to the switch of languages, and begin with the browser's."""
    page, visits = screen.page, screen.server.visits
    texts = list(page.translated("en"))
    shown = [*everything, *texts, page["brand"], page["language"], *screen.offered, *screen.cases]
    outputs = list(dict.fromkeys(shown))

    def begin(language: str, secrets: str, request: gr.Request) -> Updates:
        visit = visits.begin(request.session_hash, (secrets or "").split())
        return spoken(visit, language)

    def speak(language: str, request: gr.Request) -> Updates:
        return spoken(screen.visit(request), language)

    def spoken(visit: Visit, language: str) -> Updates:
        visit.speak("zh" if language == "zh" else "en")
        values = {
            **screen.shown_now(visit), **screen.settings_now(visit), **screen.offer_now(visit),
            **screen.cases_now(visit),
        }  # fmt: skip
        said = page.translated(visit.language)
        both = {part: with_text(said.get(part), value) for part, value in values.items()}
        return {
            **said,
            **both,
            page["brand"]: brand(visit.language),
            page["language"]: visit.language,
        }

    listen(page["language"].input, speak, [page["language"]], outputs, **LOOK)
    listen(
        blocks.load,
        begin,
        [page["language"], page["secrets"]],
        outputs,
        queue=False,
        show_progress="hidden",
        js=BEGIN,
    )


def with_text(text: Any, value: Any) -> Any:
    """One update that sets both a text and a value."""
    if text is None:
        return value
    return {**text, **(value if isinstance(value, dict) else {"value": value})}
