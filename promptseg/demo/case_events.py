"""What listens on the tab of cases and on the bar of the open one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from promptseg.demo.cases.projects import who_of
from promptseg.demo.loop import working
from promptseg.demo.loop.finishing import give_back_case, reject_case
from promptseg.demo.loop.learning import learn_from_visit
from promptseg.demo.loop.opening import open_case, take_up_other
from promptseg.demo.parts import status
from promptseg.demo.screen import LONG, LOOK, QUICK, Screen, Updates, listen, reporting
from promptseg.demo.visit import Visit
from promptseg.inference.encoder import Progress

KEEP_NAME = (
    "(name) => { try { localStorage.setItem('promptseg-who', name || ''); } catch (error) {} "
    "return [name]; }"
)
KNOWN_NAME = (
    "() => { try { return [localStorage.getItem('promptseg-who') || '']; } "
    "catch (error) { return ['']; } }"
)
Work = Callable[[Visit, Progress], object]


def connect_cases(screen: Screen, blocks: gr.Blocks) -> None:
    """Listen to the worklist, the open case and what is learned."""
    _connect_opening(screen)
    _connect_deciding(screen)
    _connect_learning(screen)
    _connect_name(screen, blocks)


def _everything(screen: Screen) -> list[Any]:
    page = screen.page
    parts = [*screen.shown, *screen.settings, *screen.offered, *screen.cases,
             page["series_bar"], page["series"], page["tabs"]]  # fmt: skip
    return list(dict.fromkeys(parts))


def _doing(screen: Screen, work: Work, tab: str | None = None) -> Callable[..., Updates]:
    """A listener that does some work and shows what came of it, on a tab if it was done."""

    def do(request: gr.Request, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        visit = screen.visit(request)
        report = reporting(visit, progress)
        done = screen.server.attempt(visit, lambda: work(visit, report), True)
        return _shown(screen, visit, tab if done else None)

    return do


def _shown(screen: Screen, visit: Visit, tab: str | None = None) -> Updates:
    shown = "cases" if tab == "slices" and visit.case is None else tab
    return {
        **screen.opened_now(visit),
        **screen.cases_now(visit),
        screen.page["tabs"]: gr.update() if shown is None else gr.update(selected=shown),
    }


def _connect_opening(screen: Screen) -> None:
    page, server = screen.page, screen.server
    long: dict[str, Any] = {**LONG, "show_progress_on": page["status"]}
    outputs = _everything(screen)

    def open_named(
        who: str,
        request: gr.Request,
        event: gr.EventData,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        visit, name = screen.visit(request), str(event._data["case"])
        report = reporting(visit, progress)
        working.call(visit, who)
        done = server.attempt(visit, lambda: open_case(visit, server, name, report), True)
        return _shown(screen, visit, "slices" if done else None)

    def open_next(
        who: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        visit = screen.visit(request)
        report = reporting(visit, progress)
        working.call(visit, who)
        done = server.attempt(visit, lambda: open_case(visit, server, None, report), True)
        return _shown(screen, visit, "slices" if done else None)

    # The name goes along: what was just typed may not have been told yet.
    listen(page["worklist"].open, open_named, [page["who"]], outputs, **long)
    listen(page["next_case"].click, open_next, [page["who"]], outputs, **long)

    def look(request: gr.Request) -> Updates:
        return screen.cases_now(screen.visit(request))

    def choose_project(request: gr.Request, event: gr.EventData) -> Updates:
        visit, name = screen.visit(request), str(event._data["value"])
        server.look(visit, lambda: working.choose_project(visit, server, name))
        return {**screen.cases_now(visit), page["status"]: status(*visit.message)}

    listen(page["cases_tab"].select, look, None, screen.cases, **LOOK)
    listen(page["project"].choose, choose_project, None, [*screen.cases, page["status"]], **LOOK)


def _connect_deciding(screen: Screen) -> None:
    page, server = screen.page, screen.server
    long: dict[str, Any] = {**LONG, "show_progress_on": page["status"]}
    outputs = _everything(screen)
    works: dict[str, tuple[Work, str]] = {
        "case_accept": (lambda visit, report: working.accept(visit, server, report), "cases"),
        "case_accept_next": (
            lambda visit, report: working.accept_and_next(visit, server, report), "slices"
        ),
        "case_release": (lambda visit, report: give_back_case(visit, server), "cases"),
        "case_afresh": (lambda visit, report: working.start_over(visit, server, report), "slices"),
        "case_other": (lambda visit, report: take_up_other(visit, server, report), "slices"),
    }  # fmt: skip
    for name, (work, tab) in works.items():
        listen(page[name].click, _doing(screen, work, tab), None, outputs, **long)

    def reject(reason: str, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        done = server.attempt(visit, lambda: reject_case(visit, server, reason or ""))
        shown = _shown(screen, visit, "cases" if done else None)
        return {**shown, page["case_reason"]: "" if done else reason}

    listen(page["case_reject"].click, reject, [page["case_reason"]],
           [*outputs, page["case_reason"]], **QUICK)  # fmt: skip


def _connect_learning(screen: Screen) -> None:
    page, server = screen.page, screen.server
    outputs = _everything(screen)
    long: dict[str, Any] = {**LONG, "show_progress_on": page["status"]}
    learn = _doing(screen, lambda visit, report: learn_from_visit(visit, server, report))
    listen(page["learn"].click, learn, None, outputs, **long)
    shown = [*screen.cases, page["status"]]

    def quickly(work: Callable[[Visit], object]) -> Callable[..., Updates]:
        def do(request: gr.Request) -> Updates:
            visit = screen.visit(request)
            server.look(visit, lambda: work(visit))
            return {**screen.cases_now(visit), page["status"]: status(*visit.message)}

        return do

    works: dict[str, Callable[[Visit], object]] = {
        "estimate": lambda visit: working.estimate(visit, server),
        "train": lambda visit: working.train(visit, server),
        "train_stop": lambda visit: working.stop_training(visit, server),
    }
    for name, work in works.items():
        listen(page[name].click, quickly(work), None, shown, **QUICK)

    def revert(request: gr.Request, event: gr.EventData) -> Updates:
        number = int(event._data["version"])
        return quickly(lambda visit: working.revert(visit, server, number))(request)

    def choose_length(request: gr.Request, event: gr.EventData) -> None:
        working.choose_length(screen.visit(request), str(event._data["value"]))

    listen(page["versions"].revert, revert, None, shown, **QUICK)
    listen(page["train_length"].choose, choose_length, None, None, **LOOK)


def _connect_name(screen: Screen, blocks: gr.Blocks) -> None:
    """The name that changes are recorded for; the browser remembers it, a login says it."""
    page, visits = screen.page, screen.server.visits

    def name(given: str, request: gr.Request) -> Updates:
        visit = screen.visit(request)
        working.call(visit, given)
        return screen.cases_now(visit)

    def begin_name(given: str, request: gr.Request) -> Updates:
        visit = visits.of(request.session_hash)
        visit.loop.login = str(request.username or "")
        working.call(visit, visit.loop.who or given)
        field = gr.update(value=who_of(visit), interactive=not visit.loop.login)
        return {**screen.cases_now(visit), page["who"]: field}

    outputs = screen.cases
    for event in (page["who"].blur, page["who"].submit):
        listen(event, name, [page["who"]], outputs, **LOOK, js=KEEP_NAME)
    listen(blocks.load, begin_name, [page["who"]], [*outputs, page["who"]], **LOOK, js=KNOWN_NAME)
