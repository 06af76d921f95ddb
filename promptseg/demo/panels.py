"""The panels on both sides of the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from promptseg.demo.finishing import CHOICES
from promptseg.demo.parts import Page, button, group, segments, text
from promptseg.volume.intensity import WINDOWS

HERE = Path(__file__).parent
TOOLS = ("plus", "minus", "box", "brush", "eraser")
AXES = ("axial", "coronal", "sagittal")
PRESETS = ("auto", "percentile", *WINDOWS)
DOWNLOADS = ("mask", "prompts", "report", "review", "session")


def image_panel(page: Page) -> None:
    with group("image"):
        with gr.Row(elem_classes="ps-pair"):
            page.add(
                "open",
                gr.UploadButton(
                    text("open"),
                    size="sm",
                    variant="primary",
                    file_count="multiple",
                    elem_id="ps-open",
                    min_width=80,
                ),
                label="open",
            )
            page.add("sample", button("sample"), value="sample")
        page.add("info", gr.HTML(text("no_image"), elem_id="ps-info"))


def model_panel(
    page: Page, models: list[str], adapters: list[str], model: str, adapter: str | None
) -> None:
    with group("model"), gr.Row(elem_classes="ps-pair"):
        chooser(page, "model", model, [(name, name) for name in models])
        given = [(text("none"), ""), *((name, name) for name in adapters)]
        chooser(page, "adapter", adapter or "", given)


def chooser(page: Page, name: str, value: str, choices: list[tuple[str, str]]) -> None:
    """A list of which one is chosen."""
    page.add(
        name,
        gr.HTML(
            chooser_json(text(name), value, choices),
            html_template=(HERE / "chooser.html").read_text(encoding="utf-8"),
            js_on_load=(HERE / "chooser.js").read_text(encoding="utf-8"),
            elem_id=f"ps-{name}",
            apply_default_css=False,
            min_width=80,
        ),
    )


def chooser_json(label: str, value: str, choices: Sequence[tuple[str, str]]) -> str:
    """A list as `chooser.js` reads it."""
    return json.dumps({"label": label, "value": value, "choices": list(choices)})


def view_panel(page: Page) -> None:
    with group("view"):
        segments(page, "axis", AXES, "axial")
        with gr.Row(elem_classes="ps-pair"):
            for name in ("preset", "model_window"):
                chooser(page, name, "auto", [(window, window) for window in PRESETS])
        for name in ("low", "high"):
            slider = gr.Slider(
                0,
                1,
                value=float(name == "high"),
                step=0.01,
                label=text(name),
                interactive=True,
                elem_id=f"ps-{name}",
                buttons=[],
            )
            page.add(name, slider, label=name)
        page.add(
            "opacity",
            gr.Slider(
                0,
                1,
                value=0.35,
                step=0.05,
                label=text("opacity"),
                interactive=True,
                elem_id="ps-opacity",
                buttons=[],
            ),
            label="opacity",
        )
        page.add(
            "doubt",
            gr.Checkbox(False, label=text("doubt"), interactive=True, elem_id="ps-doubt"),
            label="doubt",
        )


def target_panel(page: Page) -> None:
    with group("targets"):
        page.add("targets_label", gr.HTML(text("targets"), elem_classes="ps-label"))
        page.texts["targets_label"] = {"value": "targets"}
        page.add(
            "targets",
            gr.HTML(
                "",
                js_on_load=(HERE / "targets.js").read_text(encoding="utf-8"),
                elem_id="ps-targets",
            ),
        )
        with gr.Row(elem_classes="ps-pair ps-naming"):
            naming = gr.HTML(
                "",
                html_template=(HERE / "naming.html").read_text(encoding="utf-8"),
                js_on_load=(HERE / "naming.js").read_text(encoding="utf-8"),
                elem_id="ps-naming",
                apply_default_css=False,
                min_width=90,
            )
            page.add("naming", naming)
            page.add("add_target", button("add_target"), value="add_target")


def tool_panel(page: Page) -> None:
    with group("tools"):
        segments(page, "tool", TOOLS, "plus")
        with gr.Row(elem_classes="ps-pair"):
            page.add(
                "words",
                gr.Textbox(
                    show_label=False,
                    container=False,
                    label=text("words"),
                    max_lines=1,
                    placeholder=text("words_hint"),
                    min_width=120,
                    interactive=True,
                    elem_id="ps-words",
                ),
                label="words",
                placeholder="words_hint",
            )
            page.add("add_words", button("add_words", scale=0), value="add_words")


def action_panel(page: Page) -> None:
    with group("actions"):
        with gr.Row(elem_classes="ps-pair"):
            for name in ("undo", "redo", "clear"):
                page.add(name, button(name), value=name)
        with gr.Row(elem_classes="ps-pair"):
            page.add(
                "propagate", button("propagate", variant="primary", scale=2), value="propagate"
            )
            page.add("cancel", button("cancel", variant="stop"), value="cancel")
        with gr.Row(elem_classes="ps-pair"):
            page.add("refine", button("refine"), value="refine")
            page.add("suggest", button("suggest"), value="suggest")
        chooser(page, "post", "none", [(name, name) for name in CHOICES])
    with group("downloads"):
        page.add("downloads_label", gr.HTML(text("downloads"), elem_classes="ps-label"))
        page.texts["downloads_label"] = {"value": "downloads"}
        with gr.Row(elem_classes="ps-pair"):
            chooser(page, "format", ".nii.gz", [(".nii.gz", ".nii.gz")])
            page.add("mask", button("mask", scale=0), value="mask")
        with gr.Row(elem_classes="ps-pair"):
            for name in DOWNLOADS[1:]:
                page.add(name, button(name), value=name)
        for name in DOWNLOADS:
            hidden = gr.DownloadButton(visible="hidden", elem_id=f"ps-file-{name}")
            page.add(f"file_{name}", hidden)
