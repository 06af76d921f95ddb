"""The page: its components, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from promptseg.demo.texts import LANGUAGES, Language, say
from promptseg.intensity import WINDOWS

HERE = Path(__file__).parent
TOOLS = ("plus", "minus", "box", "brush", "eraser")
AXES = ("axial", "coronal", "sagittal")
PRESETS = ("auto", "percentile", *WINDOWS)
DOWNLOADS = ("mask", "prompts", "report")
THEME_SWITCH = "() => { document.body.classList.toggle('dark'); }"


@dataclass
class Page:
    """Components by name, and the texts that change with the language.

    Args:
        parts: Component by name.
        texts: For each component, which property shows which text.
        choices: For each component with choices, its values; their labels are texts.
    """

    parts: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.parts[name]

    def add(self, name: str, part: Any, **texts: str) -> Any:
        """Keep a component; `texts` names the text of each of its properties."""
        self.parts[name], self.texts[name] = part, texts
        return part

    def translated(self, language: Language) -> dict[Any, Any]:
        """Updates that put every component into a language."""
        updates = {}
        for name, texts in self.texts.items():
            properties: dict[str, Any] = {p: say(language, key) for p, key in texts.items()}
            if name in self.choices:
                properties["choices"] = [(say(language, v), v) for v in self.choices[name]]
            if properties:
                updates[self.parts[name]] = gr.update(**properties)
        return updates


def build_page(models: list[str], adapters: list[str], model: str, adapter: str | None) -> Page:
    """Lay out the page inside the current `gr.Blocks`."""
    page = Page()
    _header(page)
    with gr.Row(elem_id="ps-body", equal_height=False):
        with gr.Column(elem_id="ps-left", scale=0, min_width=250):
            _image_panel(page)
            _model_panel(page, models, adapters, model, adapter)
            _view_panel(page)
        with gr.Column(elem_id="ps-centre", scale=1, min_width=320):
            _centre(page)
        with gr.Column(elem_id="ps-right", scale=0, min_width=290):
            _target_panel(page)
            _tool_panel(page)
            _action_panel(page)
    return page


def _text(key: str) -> str:
    return say("en", key)


@contextmanager
def _group(name: str) -> Iterator[None]:
    with gr.Column(elem_classes=["ps-group", f"ps-group-{name}"]):
        yield


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
        theme = gr.Button(_text("theme"), size="sm", elem_id="ps-theme", scale=0)
        page.add("theme", theme, value="theme")
        theme.click(None, js=THEME_SWITCH, api_visibility="private")


def brand(language: Language) -> str:
    """Name and notice."""
    return (
        f"<h1>{say(language, 'title')}</h1><span>{say(language, 'subtitle')}</span>"
        f"<small>{say(language, 'notice')}</small>"
    )


def _image_panel(page: Page) -> None:
    with _group("image"):
        with gr.Row(elem_classes="ps-pair"):
            page.add(
                "open",
                gr.UploadButton(
                    _text("open"),
                    size="sm",
                    variant="primary",
                    file_count="multiple",
                    elem_id="ps-open",
                    min_width=80,
                ),
                label="open",
            )
            page.add("sample", _button("sample"), value="sample")
        page.add("info", gr.HTML(_text("no_image"), elem_id="ps-info"))


def _model_panel(
    page: Page, models: list[str], adapters: list[str], model: str, adapter: str | None
) -> None:
    with _group("model"), gr.Row(elem_classes="ps-pair"):
        page.add(
            "model",
            gr.Dropdown(
                models,
                value=model,
                label=_text("model"),
                min_width=80,
                interactive=True,
                elem_id="ps-model",
            ),
            label="model",
        )
        choices = [(_text("none"), ""), *((name, name) for name in adapters)]
        page.add(
            "adapter",
            gr.Dropdown(
                choices,
                value=adapter or "",
                label=_text("adapter"),
                min_width=80,
                interactive=True,
                elem_id="ps-adapter",
            ),
            label="adapter",
        )


def _segments(page: Page, name: str, choices: tuple[str, ...], value: str) -> None:
    """A row of buttons of which one is pressed."""
    page.choices[name] = choices
    page.add(
        name,
        gr.Radio(
            [(_text(choice), choice) for choice in choices],
            value=value,
            label=_text(name),
            interactive=True,
            elem_id=f"ps-{name}",
            elem_classes="ps-segments",
        ),
        label=name,
    )


def _view_panel(page: Page) -> None:
    with _group("view"):
        _segments(page, "axis", AXES, "axial")
        page.add(
            "preset",
            gr.Dropdown(
                list(PRESETS),
                value="auto",
                label=_text("preset"),
                interactive=True,
                elem_id="ps-preset",
            ),
            label="preset",
        )
        for name in ("low", "high"):
            slider = gr.Slider(
                0,
                1,
                value=float(name == "high"),
                step=0.01,
                label=_text(name),
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
                label=_text("opacity"),
                interactive=True,
                elem_id="ps-opacity",
                buttons=[],
            ),
            label="opacity",
        )
        page.add(
            "doubt",
            gr.Checkbox(False, label=_text("doubt"), interactive=True, elem_id="ps-doubt"),
            label="doubt",
        )


def _centre(page: Page) -> None:
    with gr.Tabs(elem_id="ps-tabs") as tabs:
        page.add("tabs", tabs)
        with gr.Tab(_text("slices_tab"), id="slices") as tab:
            page.add("slices_tab", tab, label="slices_tab")
            viewer = gr.HTML(
                "",
                html_template=(HERE / "viewer.html").read_text(encoding="utf-8"),
                js_on_load=(HERE / "viewer.js").read_text(encoding="utf-8"),
                elem_id="ps-viewer",
                apply_default_css=False,
            )
            page.add("viewer", viewer)
        with gr.Tab(_text("surface_tab"), id="surface") as tab:
            page.add("surface_tab", tab, label="surface_tab")
            page.add(
                "surface",
                gr.Model3D(
                    label=_text("surface"),
                    show_label=False,
                    interactive=False,
                    elem_id="ps-surface",
                    clear_color=(0.0, 0.0, 0.0, 0.0),
                    height="100%",
                ),
                label="surface",
            )
        with gr.Tab(_text("code_tab"), id="code") as tab:
            page.add("code_tab", tab, label="code_tab")
            page.add(
                "code",
                gr.Code(
                    "",
                    language="python",
                    label=_text("code"),
                    interactive=False,
                    elem_id="ps-code",
                    show_line_numbers=False,
                    buttons=["copy"],
                ),
                label="code",
            )
    page.add("status", gr.HTML(status("info", _text("welcome")), elem_id="ps-status"))


def status(kind: str, text: str) -> str:
    """The status line; read aloud when it changes."""
    from html import escape

    return f'<div class="ps-{kind}" role="status" aria-live="polite">{escape(text)}</div>'


def _target_panel(page: Page) -> None:
    with _group("targets"):
        page.add("targets_label", gr.HTML(_text("targets"), elem_classes="ps-label"))
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
            page.add(
                "target_name",
                gr.Textbox(
                    say("en", "target", number=1),
                    show_label=False,
                    container=False,
                    label=_text("target_name"),
                    max_lines=1,
                    min_width=90,
                    interactive=True,
                    elem_id="ps-target-name",
                ),
                label="target_name",
            )
            page.add(
                "colour",
                gr.ColorPicker(
                    "#26c6da",
                    show_label=False,
                    container=False,
                    label=_text("colour"),
                    min_width=36,
                    scale=0,
                    interactive=True,
                    elem_id="ps-colour",
                ),
                label="colour",
            )
            page.add("add_target", _button("add_target"), value="add_target")
        page.add("named", gr.Number(1, visible=False))


def _tool_panel(page: Page) -> None:
    with _group("tools"):
        _segments(page, "tool", TOOLS, "plus")
        with gr.Row(elem_classes="ps-pair"):
            page.add(
                "words",
                gr.Textbox(
                    show_label=False,
                    container=False,
                    label=_text("words"),
                    max_lines=1,
                    placeholder=_text("words_hint"),
                    min_width=120,
                    interactive=True,
                    elem_id="ps-words",
                ),
                label="words",
                placeholder="words_hint",
            )
            page.add("add_words", _button("add_words", scale=0), value="add_words")


def _action_panel(page: Page) -> None:
    with _group("actions"):
        with gr.Row(elem_classes="ps-pair"):
            for name in ("undo", "redo", "clear"):
                page.add(name, _button(name), value=name)
        with gr.Row(elem_classes="ps-pair"):
            page.add(
                "propagate", _button("propagate", variant="primary", scale=2), value="propagate"
            )
            page.add("cancel", _button("cancel", variant="stop"), value="cancel")
        with gr.Row(elem_classes="ps-pair"):
            page.add("refine", _button("refine"), value="refine")
            page.add("suggest", _button("suggest"), value="suggest")
    with _group("downloads"):
        page.add("downloads_label", gr.HTML(_text("downloads"), elem_classes="ps-label"))
        page.texts["downloads_label"] = {"value": "downloads"}
        with gr.Row(elem_classes="ps-pair"):
            for name in DOWNLOADS:
                page.add(name, _button(name), value=name)
        for name in DOWNLOADS:
            hidden = gr.DownloadButton(visible="hidden", elem_id=f"ps-file-{name}")
            page.add(f"file_{name}", hidden)


def _button(name: str, variant: Any = "secondary", scale: int | None = 1) -> gr.Button:
    return gr.Button(
        _text(name), size="sm", variant=variant, scale=scale, min_width=60, elem_id=f"ps-{name}"
    )
