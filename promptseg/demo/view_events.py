"""Slices, windows and targets."""

from __future__ import annotations

import gradio as gr

from promptseg.demo import looking
from promptseg.demo.page import status
from promptseg.demo.screen import LOOK, QUICK, Screen, Updates, listen
from promptseg.demo.showing import info_html, picture_json
from promptseg.demo.visit import Visit

WITH_TARGET = (
    "(name, colour) => [name, colour, "
    "Number(document.querySelector('#ps-targets [aria-pressed=true]').dataset.target)]"
)


def connect_view(screen: Screen) -> None:
    """Listen to what changes how the image is seen."""
    page, server = screen.page, screen.server
    viewer, state = page["viewer"], [page["viewer"], page["status"]]

    def look(request: gr.Request, event: gr.EventData) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.show_slice(visit, int(event._data["index"])))
        return {viewer: picture_json(visit)}

    def turn(axis: str, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.show_axis(visit, axis))
        return {**screen.shown_now(visit), page["info"]: info_html(visit)}

    def choose_preset(preset: str, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.attempt(visit, lambda: looking.choose_preset(visit, preset))
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    def adjust(low: float, high: float, opacity: float, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        view = visit.view
        view.low, view.high = float(low), max(float(high), float(low) + 1e-6)
        view.opacity = float(opacity)
        return {viewer: picture_json(visit), page["status"]: status(*visit.message)}

    listen(viewer.look, look, None, [viewer], **{**LOOK, "trigger_mode": "multiple"})
    listen(page["axis"].input, turn, [page["axis"]], [*screen.shown, page["info"]], **LOOK)
    listen(
        page["preset"].input,
        choose_preset,
        [page["preset"]],
        [*screen.shown, *screen.settings],
        **QUICK,
    )
    controls = [page[name] for name in ("low", "high", "opacity")]
    for control in controls:
        listen(control.input, adjust, controls, state, **LOOK)


def connect_targets(screen: Screen) -> None:
    """Listen to the list of targets."""
    page, server = screen.page, screen.server
    outputs = [*screen.shown, page["target_name"], page["colour"]]

    def after(visit: Visit) -> Updates:
        target = visit.targets[visit.active]
        named = {page["target_name"]: target.name, page["colour"]: target.colour}
        return {**screen.shown_now(visit), **named}

    def choose(request: gr.Request, event: gr.EventData) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.choose_target(visit, int(event._data["target"])))
        return after(visit)

    def add(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.add_target(visit))
        return after(visit)

    def rename(name: str, colour: str, label: float, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.rename_target(visit, int(label), name, colour))
        return screen.shown_now(visit)

    listen(page["targets"].choose, choose, None, outputs, **LOOK)
    listen(page["add_target"].click, add, None, outputs, **LOOK)
    named = [page["target_name"], page["colour"], page["named"]]
    changes = (page["target_name"].input, page["target_name"].blur, page["colour"].input)
    for change in changes:
        listen(change, rename, named, screen.shown, **LOOK, js=WITH_TARGET)
