"""Slices, windows and targets."""

from __future__ import annotations

from typing import Any

import gradio as gr

from promptseg.demo import looking
from promptseg.demo.parts import status
from promptseg.demo.screen import LOOK, QUICK, Screen, Updates, listen
from promptseg.demo.showing import info_html, picture_json


def connect_view(screen: Screen) -> None:
    """Listen to what changes how the image is seen."""
    page, server = screen.page, screen.server
    viewer, state = page["viewer"], [page["viewer"], page["status"], page["preset"]]

    def look(request: gr.Request, event: gr.EventData) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.show_slice(visit, int(event._data["index"])))
        return {viewer: picture_json(visit)}

    def turn(axis: str, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.show_axis(visit, axis))
        return {**screen.shown_now(visit), page["info"]: info_html(visit)}

    def choose_preset(request: gr.Request, event: gr.EventData) -> Updates:
        visit, preset = screen.visit(request), str(event._data["value"])
        server.look(visit, lambda: looking.choose_preset(visit, preset))
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    def choose_model_window(request: gr.Request, event: gr.EventData) -> Updates:
        visit, window = screen.visit(request), str(event._data["value"])
        server.attempt(visit, lambda: looking.choose_model_window(visit, window))
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    def adjust(low: float, high: float, opacity: float, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.choose_limits(visit, float(low), float(high)))
        visit.view.opacity = float(opacity)
        return {
            viewer: picture_json(visit),
            page["status"]: status(*visit.message),
            page["preset"]: screen.preset_now(visit),
        }

    listen(viewer.look, look, None, [viewer], **{**LOOK, "trigger_mode": "multiple"})
    listen(page["axis"].input, turn, [page["axis"]], [*screen.shown, page["info"]], **LOOK)
    everything = [*screen.shown, *screen.settings]
    listen(page["preset"].choose, choose_preset, None, everything, **LOOK)
    listen(page["model_window"].choose, choose_model_window, None, everything, **QUICK)
    controls = [page[name] for name in ("low", "high", "opacity")]
    for control in controls:
        listen(control.input, adjust, controls, state, **LOOK)


def connect_targets(screen: Screen) -> None:
    """Listen to the list of targets."""
    page, server = screen.page, screen.server

    def choose(request: gr.Request, event: gr.EventData) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.choose_target(visit, int(event._data["target"])))
        return screen.shown_now(visit)

    def add(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.look(visit, lambda: looking.add_target(visit))
        return screen.shown_now(visit)

    def rename(request: gr.Request, event: gr.EventData) -> Updates:
        visit, asked = screen.visit(request), event._data
        named = int(asked["target"]), str(asked["name"]), str(asked["colour"]), float(asked["at"])
        server.look(visit, lambda: looking.rename_target(visit, *named))
        shown = screen.shown_now(visit)
        return {part: value for part, value in shown.items() if part is not page["naming"]}

    listen(page["targets"].choose, choose, None, screen.shown, **LOOK)
    listen(page["add_target"].click, add, None, screen.shown, **LOOK)
    every: dict[str, Any] = {**LOOK, "trigger_mode": "multiple"}
    listen(page["naming"].rename, rename, None, screen.shown, **every)
