"""The tab of cases, and the bar over the picture while one is open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from promptseg.demo.panels import chooser
from promptseg.demo.parts import Page, button, group, text

HERE = Path(__file__).parent
LENGTHS: dict[str, dict[str, float]] = {
    "minutes_5": {"minutes": 5},
    "minutes_20": {"minutes": 20},
    "minutes_60": {"minutes": 60},
    "steps_300": {"steps": 300},
}
"""Trainings to choose from; programs may give any."""


def case_bar(page: Page) -> None:
    """What becomes of the open case; there only while one is."""
    with gr.Row(visible=False, elem_id="ps-casebar") as row:
        page.add("casebar", row)
        page.add("case_text", gr.HTML("", elem_id="ps-case-text"))
        for name in ("case_other", "case_afresh"):
            page.add(name, button(name, scale=0), value=name)
        page.add("case_release", button("case_release", scale=0), value="case_release")
        page.add(
            "case_reason",
            gr.Textbox(
                show_label=False,
                container=False,
                label=text("case_reason"),
                placeholder=text("case_reason"),
                max_lines=1,
                scale=0,
                min_width=90,
                elem_id="ps-case_reason",
            ),
            label="case_reason",
            placeholder="case_reason",
        )
        page.add("case_reject", button("case_reject", scale=0), value="case_reject")
        page.add("case_accept", button("case_accept", scale=0), value="case_accept")
        primary = button("case_accept_next", "primary", 0)
        page.add("case_accept_next", primary, value="case_accept_next")


def cases_panel(page: Page, projects: Sequence[str]) -> None:
    """Worklist on the left, what is learned from it on the right."""
    with gr.Row(elem_id="ps-cases", equal_height=False):
        with gr.Column(elem_id="ps-cases-list", scale=1, min_width=300):
            with gr.Row(elem_classes="ps-pair ps-group", visible=bool(projects)):
                first = projects[0] if projects else ""
                chooser(page, "project", first, [(name, name) for name in projects])
                page.add("who", _name_field(), label="who")
                page.add("estimate", button("estimate", scale=0), value="estimate")
                page.add("next_case", button("next_case", "primary", 0), value="next_case")
            listing(page, "worklist")
        with gr.Column(elem_id="ps-cases-side", scale=0, min_width=290):
            with group("train"):
                with gr.Row(elem_classes="ps-pair", visible=bool(projects)):
                    lengths = [(text(name), name) for name in LENGTHS]
                    chooser(page, "train_length", "minutes_20", lengths)
                    page.add("train", button("train", "primary", 0), value="train")
                    page.add("train_stop", button("train_stop", "stop", 0), value="train_stop")
                listing(page, "versions")
            with group("learn"):
                page.add("learn", button("learn"), value="learn")
                page.add("lessons", gr.HTML("", elem_id="ps-lessons"))


def listing(page: Page, name: str) -> None:
    """HTML that is looked up again now and then while it is seen."""
    page.add(
        name,
        gr.HTML(
            "",
            html_template="<div class='pk-root'></div>",
            js_on_load=(HERE / "listing.js").read_text(encoding="utf-8"),
            elem_id=f"ps-{name}",
            apply_default_css=False,
        ),
    )


def _name_field() -> gr.Textbox:
    return gr.Textbox(
        label=text("who"), max_lines=1, max_length=60, min_width=90, interactive=True,
        elem_id="ps-who",
    )  # fmt: skip
