"""What is looked up in an answer, and taken home."""

from __future__ import annotations

import gradio as gr

from promptseg.demo import actions
from promptseg.demo.downloads import mask_formats, segmentation, write_download
from promptseg.demo.finishing import CHOICES, choose_steps
from promptseg.demo.panels import DOWNLOADS
from promptseg.demo.parts import status
from promptseg.demo.python_code import python_code
from promptseg.demo.screen import LONG, LOOK, QUICK, Screen, Updates, listen, reporting
from promptseg.demo.showing import picture_json
from promptseg.demo.surface import write_surfaces

CLICK_FILE = "() => { setTimeout(() => { const part = document.querySelector('#ps-file-%s'); (part.querySelector('a, button') || part).click(); }, 150); }"  # noqa: E501


def connect_results(screen: Screen) -> None:
    """Listen to what is looked up in an answer."""
    connect_doubt(screen)
    connect_suggestion(screen)
    connect_surface(screen)
    connect_choices(screen)
    for kind in DOWNLOADS:
        connect_download(screen, kind)


def connect_doubt(screen: Screen) -> None:
    """Listen to the switch of the uncertainty map."""
    page, server = screen.page, screen.server

    def show_doubt(
        wanted: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        visit = screen.visit(request)
        report = reporting(visit, progress)
        server.attempt(visit, lambda: actions.show_uncertainty(visit, wanted, report), True)
        return {**screen.shown_now(visit), page["doubt"]: visit.view.doubt}

    listen(
        page["doubt"].input,
        show_doubt,
        [page["doubt"]],
        [*screen.shown, page["doubt"]],
        **LONG,
        show_progress_on=page["status"],
    )


def connect_suggestion(screen: Screen) -> None:
    """Listen to the wish for the next slice to look at."""
    page, server = screen.page, screen.server

    def suggest(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        server.attempt(visit, lambda: actions.suggest(visit))
        return {**screen.shown_now(visit), **screen.settings_now(visit)}

    listen(
        page["suggest"].click,
        suggest,
        None,
        [*screen.shown, *screen.settings],
        **QUICK,
        show_progress_on=page["status"],
    )


def connect_surface(screen: Screen) -> None:
    """Listen to the tab with the surface."""
    page, server = screen.page, screen.server

    def surface(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        made: list[str] = []

        def work() -> None:
            colours = {label: target.colour for label, target in visit.targets.items()}
            path = server.new_folder(visit) / "surface.glb"
            if write_surfaces(segmentation(visit), colours, path):
                made.append(str(path))

        server.attempt(visit, work)
        found = made[0] if made else None
        return {page["surface"]: found, page["status"]: status(*visit.message)}

    listen(
        page["surface_tab"].select,
        surface,
        None,
        [page["surface"], page["status"]],
        **QUICK,
        show_progress_on=page["status"],
    )


def connect_choices(screen: Screen) -> None:
    """Listen to the tab with the code, the format of masks and the steps after an answer."""
    page, server = screen.page, screen.server

    def code(request: gr.Request) -> str:
        return python_code(screen.visit(request))

    def choose_format(request: gr.Request, event: gr.EventData) -> None:
        screen.visit(request).mask_format = str(event._data["value"])

    def choose_post(request: gr.Request, event: gr.EventData) -> Updates:
        visit, name = screen.visit(request), str(event._data["value"])
        server.attempt(visit, lambda: choose_steps(visit, CHOICES.get(name, ())))
        return screen.shown_now(visit)

    listen(page["code_tab"].select, code, None, [page["code"]], **LOOK)
    listen(page["format"].choose, choose_format, None, None, **LOOK)
    listen(page["post"].choose, choose_post, None, screen.shown, **QUICK)


def connect_download(screen: Screen, kind: str) -> None:
    """Listen to one button for a file."""
    page, server = screen.page, screen.server
    hidden = page[f"file_{kind}"]

    def make(request: gr.Request) -> Updates:
        visit = screen.visit(request)
        made: list[str] = []
        folder = server.new_folder(visit)
        able = mask_formats(visit) if kind == "mask" else {}
        format = visit.mask_format if visit.mask_format in able else ""
        server.attempt(visit, lambda: made.append(str(write_download(visit, kind, folder, format))))
        if not made:
            raise gr.Error(visit.message[1], print_exception=False)
        return {
            hidden: made[0],
            page["status"]: status(*visit.message),
            page["viewer"]: picture_json(visit),
        }

    event = listen(
        page[kind].click,
        make,
        None,
        [hidden, page["status"], page["viewer"]],
        **QUICK,
        show_progress_on=page["status"],
    )
    event.success(None, js=CLICK_FILE % kind, api_visibility="private")
