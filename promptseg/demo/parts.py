"""Components by name, and what the panels are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any

import gradio as gr

from promptseg.demo.texts import Language, say


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


def text(key: str) -> str:
    return say("en", key)


@contextmanager
def group(name: str) -> Iterator[None]:
    with gr.Column(elem_classes=["ps-group", f"ps-group-{name}"]):
        yield


def segments(page: Page, name: str, choices: tuple[str, ...], value: str) -> None:
    """A row of buttons of which one is pressed."""
    page.choices[name] = choices
    page.add(
        name,
        gr.Radio(
            [(text(choice), choice) for choice in choices],
            value=value,
            label=text(name),
            interactive=True,
            elem_id=f"ps-{name}",
            elem_classes="ps-segments",
        ),
        label=name,
    )


def button(name: str, variant: Any = "secondary", scale: int | None = 1) -> gr.Button:
    return gr.Button(
        text(name), size="sm", variant=variant, scale=scale, min_width=60, elem_id=f"ps-{name}"
    )


def status(kind: str, text: str) -> str:
    """The status line; read aloud when it changes. What does not fit is its tooltip."""
    said = escape(text)
    return f'<div class="ps-{kind}" role="status" aria-live="polite" title="{said}">{said}</div>'
