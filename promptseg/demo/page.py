"""The page: what stands where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from promptseg.demo.loop.panel import case_bar, cases_panel
from promptseg.demo.panels import (
    action_panel,
    chooser,
    image_panel,
    model_panel,
    target_panel,
    tool_panel,
    view_panel,
)
from promptseg.demo.parts import Page, button, status, text
from promptseg.demo.texts import LANGUAGES, Language, say

HERE = Path(__file__).parent
THEME_SWITCH = "() => { document.body.classList.toggle('dark'); }"


def build_page(
    models: list[str],
    adapters: list[str],
    model: str,
    adapter: str | None,
    projects: Sequence[str] = (),
) -> Page:
    """Lay out the page inside the current `gr.Blocks`."""
    page = Page()
    page.add("secrets", gr.Textbox(visible=False))
    _header(page)
    with gr.Row(elem_id="ps-body", equal_height=False):
        with gr.Column(elem_id="ps-left", scale=0, min_width=250):
            image_panel(page)
            model_panel(page, models, adapters, model, adapter)
            view_panel(page)
        with gr.Column(elem_id="ps-centre", scale=1, min_width=320):
            _centre(page, projects)
            _offer(page)
            _series(page)
        with gr.Column(elem_id="ps-right", scale=0, min_width=290):
            target_panel(page)
            tool_panel(page)
            action_panel(page)
    return page


def _header(page: Page) -> None:
    with gr.Row(elem_id="ps-header"):
        page.add("brand", gr.HTML(brand("en"), elem_id="ps-brand"))
        page.add(
            "language",
            gr.Radio(
                list(LANGUAGES.items()),
                value="en",
                show_label=False,
                label="Language",
                container=False,
                interactive=True,
                elem_id="ps-language",
            ),
            label="language",
        )
        theme = gr.Button(text("theme"), size="sm", elem_id="ps-theme", scale=0)
        page.add("theme", theme, value="theme")
        theme.click(None, js=THEME_SWITCH, api_visibility="private")


def brand(language: Language) -> str:
    """Name and notice."""
    return (
        f"<h1>{say(language, 'title')}</h1><span>{say(language, 'subtitle')}</span>"
        f"<small>{say(language, 'notice')}</small>"
    )


def _offer(page: Page) -> None:
    """LRUCache work, to be taken up again; over the picture, only while there is some."""
    with gr.Row(visible=False, elem_id="ps-offer", elem_classes="ps-over") as row:
        page.add("offer", row)
        page.add("offer_text", gr.HTML("", elem_id="ps-offer-text"))
        page.add("bring_back", button("bring_back", "primary", 0), value="bring_back")
        page.add("forget", button("forget", scale=0), value="forget")


def _series(page: Page) -> None:
    """The series of an upload to choose from; over the picture, only while there are several."""
    with gr.Row(visible=False, elem_id="ps-series-bar", elem_classes="ps-over") as row:
        page.add("series_bar", row)
        chooser(page, "series", "", [])
        page.add("no_series", button("no_series", scale=0), value="no_series")


def _centre(page: Page, projects: Sequence[str]) -> None:
    with gr.Tabs(elem_id="ps-tabs") as tabs:
        page.add("tabs", tabs)
        with gr.Tab(text("slices_tab"), id="slices") as tab:
            page.add("slices_tab", tab, label="slices_tab")
            viewer = gr.HTML(
                "",
                html_template=(HERE / "viewer.html").read_text(encoding="utf-8"),
                js_on_load=(HERE / "viewer.js").read_text(encoding="utf-8"),
                elem_id="ps-viewer",
                apply_default_css=False,
            )
            page.add("viewer", viewer)
        with gr.Tab(text("surface_tab"), id="surface") as tab:
            page.add("surface_tab", tab, label="surface_tab")
            page.add(
                "surface",
                gr.Model3D(
                    label=text("surface"),
                    show_label=False,
                    interactive=False,
                    elem_id="ps-surface",
                    clear_color=(0.0, 0.0, 0.0, 0.0),
                    height="100%",
                ),
                label="surface",
            )
        with gr.Tab(text("code_tab"), id="code") as tab:
            page.add("code_tab", tab, label="code_tab")
            page.add(
                "code",
                gr.Code(
                    "",
                    language="python",
                    label=text("code"),
                    interactive=False,
                    elem_id="ps-code",
                    show_line_numbers=False,
                    buttons=["copy"],
                ),
                label="code",
            )
        with gr.Tab(text("cases_tab"), id="cases") as tab:
            page.add("cases_tab", tab, label="cases_tab")
            cases_panel(page, projects)
    case_bar(page)
    page.add("status", gr.HTML(status("info", text("welcome")), elem_id="ps-status"))
