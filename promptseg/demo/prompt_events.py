"""Prompts, and the work that they ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from promptseg.demo import actions, pointing
from promptseg.demo.parts import status
from promptseg.demo.screen import LONG, QUICK, Screen, Updates, listen, reporting
from promptseg.demo.server import Server
from promptseg.demo.showing import picture_json
from promptseg.demo.sketching import sketch, sketchable
from promptseg.demo.visit import Visit
from promptseg.demo.words import give_words
from promptseg.prompts.types import Text


def connect_prompts(screen: Screen) -> None:
    """Listen to the viewer, the words, undo, redo and clear."""
    page, server = screen.page, screen.server
    quick: dict[str, Any] = {**QUICK, "show_progress_on": page["status"]}

    def prompt(request: gr.Request, event: gr.EventData) -> Updates:
        visit, asked = screen.visit(request), dict(event._data or {})
        server.attempt(visit, lambda: give_drawn(visit, server, asked))
        return screen.shown_now(visit)

    def words(
        text: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        visit = screen.visit(request)
        given, report = Text(text.strip(), visit.active), reporting(visit, progress)
        done = server.attempt(visit, lambda: give_words(visit, server.models, given, report), True)
        return {**screen.shown_now(visit), page["words"]: "" if done else text}

    def clear(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.attempt(visit, lambda: actions.clear(visit))
        return screen.shown_now(visit)

    def outline(request: gr.Request) -> Any:
        visit = screen.visit(request)
        if visit.long_running or not sketchable(visit):
            return gr.skip()
        server.attempt(visit, lambda: sketch(visit))
        return {page["viewer"]: picture_json(visit), page["status"]: status(*visit.message)}

    drawn = listen(
        page["viewer"].prompt, prompt, None, screen.shown, **quick, trigger_mode="multiple"
    )
    seen = [page["viewer"], page["status"]]
    listen(drawn.then, outline, None, seen, **{**QUICK, "show_progress": "hidden"})
    outputs = [*screen.shown, page["words"]]
    long: dict[str, Any] = {**LONG, "show_progress_on": page["status"]}
    listen(page["words"].submit, words, [page["words"]], outputs, **long)
    listen(page["add_words"].click, words, [page["words"]], outputs, **long)
    listen(page["clear"].click, clear, None, screen.shown, **quick)
    for name, action in (("undo", actions.undo), ("redo", actions.redo)):
        step = step_of(screen, action)
        everything = [*screen.shown, *screen.settings]
        listen(page[name].click, step, None, everything, **quick, trigger_mode="multiple")


def step_of(screen: Screen, action: Callable[..., None]) -> Callable[..., Updates]:
    """Undo or redo as what a button does."""

    def step(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        screen.server.attempt(visit, lambda: action(visit))
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    return step


def connect_work(screen: Screen) -> None:
    """Listen to what takes long, and to its end."""
    page, server = screen.page, screen.server
    long: dict[str, Any] = {**LONG, "show_progress_on": page["status"]}

    def propagate(request: gr.Request, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        visit = screen.visit(request)
        report = reporting(visit, progress)
        server.attempt(visit, lambda: actions.propagate(visit, server.models, report), True)
        return screen.shown_now(visit)

    def refine(request: gr.Request, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        visit = screen.visit(request)
        report = reporting(visit, progress)
        server.attempt(visit, lambda: actions.take_up(visit, report), True)
        return screen.shown_now(visit)

    def cancel(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        visit.cancel.set()
        if visit.long_running:
            visit.tell("cancelling")
        return {page["status"]: status(*visit.message)}

    listen(page["propagate"].click, propagate, None, screen.shown, **long)
    listen(page["refine"].click, refine, None, screen.shown, **long)
    listen(
        page["cancel"].click, cancel, None, [page["status"]], queue=False, show_progress="hidden"
    )


def give_drawn(visit: Visit, server: Server, asked: dict[str, Any]) -> None:
    """Give the prompt that `viewer.js` describes, on the slice that was seen."""
    index, kind = int(asked["index"]), asked.get("kind")
    positive = bool(asked.get("positive", True))
    prompt: Any
    if kind == "point":
        prompt = pointing.point(visit, asked["at"], index, positive)
    elif kind == "box":
        prompt = pointing.box(visit, asked["first"], asked["last"], index)
    else:
        prompt = pointing.stroke(visit, asked["path"], index, positive)
    actions.give(visit, server.models, prompt)
