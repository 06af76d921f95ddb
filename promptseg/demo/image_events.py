"""Opening images, choosing networks and the language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from promptseg.demo import looking
from promptseg.demo.page import brand
from promptseg.demo.screen import LOOK, QUICK, Screen, Updates, listen
from promptseg.demo.server import SAMPLE

BROWSER_LANGUAGE = "() => [/^zh/i.test(navigator.language) ? 'zh' : 'en']"


def connect_image(screen: Screen, blocks: gr.Blocks) -> None:
    """Listen to what opens an image or chooses a network."""
    page, server = screen.page, screen.server
    everything = [*screen.shown, *screen.settings]

    def open_files(files: list[str] | None, request: gr.Request) -> Updates:
        visit, paths = screen.visit(request), [Path(file) for file in files or []]
        name = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
        server.attempt(
            visit,
            lambda: looking.open_volume(visit, server.read(paths), name, server.visits),
        )
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    def open_sample(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.attempt(
            visit,
            lambda: looking.open_volume(visit, server.sample(), SAMPLE, server.visits),
        )
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    def choose_model(model: str, adapter: str, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.attempt(
            visit,
            lambda: looking.choose_model(visit, server.models, model, adapter or None),
        )
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    def leave(request: gr.Request) -> None:
        server.visits.drop(request.session_hash)

    listen(
        page["open"].upload,
        open_files,
        [page["open"]],
        everything,
        **QUICK,
        show_progress_on=page["status"],
    )
    listen(
        page["sample"].click,
        open_sample,
        None,
        everything,
        **QUICK,
        show_progress_on=page["status"],
    )
    for name in ("model", "adapter"):
        listen(
            page[name].input,
            choose_model,
            [page["model"], page["adapter"]],
            everything,
            **QUICK,
            show_progress_on=page["status"],
        )
    blocks.unload(leave)
    connect_language(screen, blocks, everything)


def connect_language(screen: Screen, blocks: gr.Blocks, everything: list[Any]) -> None:
    """Listen to the switch of languages, and begin with the browser's."""
    page = screen.page
    texts = list(page.translated("en"))
    outputs = list(dict.fromkeys([*everything, *texts, page["brand"], page["language"]]))

    def speak(language: str, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        visit.speak("zh" if language == "zh" else "en")
        values = {**screen.shown_now(visit), **screen.settings_now(visit)}
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
        speak,
        [page["language"]],
        outputs,
        queue=False,
        show_progress="hidden",
        js=BROWSER_LANGUAGE,
    )


def with_text(text: Any, value: Any) -> Any:
    """One update that sets both a text and a value."""
    if text is None:
        return value
    return {**text, **(value if isinstance(value, dict) else {"value": value})}
