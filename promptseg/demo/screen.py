"""What the page shows after an event, and how events are run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gradio as gr

from promptseg.demo.answers import offered_adapters
from promptseg.demo.downloads import mask_formats
from promptseg.demo.finishing import CHOICES, chosen_name
from promptseg.demo.looking import CUSTOM
from promptseg.demo.loop.listing import PARTS, case_html, lessons_html, listed
from promptseg.demo.loop.panel import LENGTHS
from promptseg.demo.panels import DOWNLOADS, PRESETS, chooser_json
from promptseg.demo.parts import Page, status
from promptseg.demo.resuming import offer_to
from promptseg.demo.server import Server
from promptseg.demo.showing import (
    axis_name,
    info_html,
    naming_json,
    offer_html,
    picture_json,
    targets_html,
)
from promptseg.demo.visit import Visit

Updates = dict[Any, Any]
QUICK = {"concurrency_id": "quick", "concurrency_limit": 2, "show_progress": "minimal"}
LONG = {"concurrency_id": "long", "concurrency_limit": 1, "show_progress": "full"}
LOOK = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last"}
NAMED = {"rtstruct": "RTSTRUCT", "seg": "DICOM-SEG"}
STAGES = ("encode", "propagate", "segment", "learning")


class Screen:
    """A page and the server behind it: what to show after each event.

    Args:
        page: Its components.
        server: Networks and visits.
    """

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.shown = [
            page[name]
            for name in (
                "viewer",
                "status",
                "targets",
                "naming",
                "undo",
                "redo",
                "clear",
                "propagate",
                "refine",
                "suggest",
                "doubt",
                "format",
                "post",
                "casebar",
                "case_text",
                "case_other",
                *DOWNLOADS,
            )
        ]
        self.settings = [
            page[name]
            for name in (
                "info",
                "axis",
                "preset",
                "model_window",
                "low",
                "high",
                "model",
                "adapter",
            )
        ]
        self.cases = [
            page[name] for name in ("worklist", "versions", "lessons", "project", "train_length")
        ]
        self.offered = [page[name] for name in ("offer", "offer_text", "bring_back")]

    def shown_now(self, visit: Visit) -> Updates:
        """Picture, message, targets, and which buttons can be pressed."""
        page, some = self.page, len(visit.prompts) > 0
        able = {
            "undo": some or bool(visit.before),
            "redo": bool(visit.undone) or bool(visit.after),
            "clear": some or visit.labels is not None,
            "propagate": visit.volume is not None and (some or visit.adapter is not None),
            "refine": visit.propagated and visit.pending > 0,
            "suggest": visit.labels is not None,
            "doubt": visit.labels is not None,
            **dict.fromkeys(DOWNLOADS, visit.labels is not None),
            "session": visit.worked,
        }
        updates = {page[name]: gr.update(interactive=on) for name, on in able.items()}
        return {
            **updates,
            page["viewer"]: picture_json(visit),
            page["status"]: status(*visit.message),
            page["targets"]: targets_html(visit),
            page["naming"]: naming_json(visit),
            page["format"]: self._formats(visit),
            page["post"]: self._posts(visit),
            page["casebar"]: gr.update(visible=visit.case is not None),
            page["case_text"]: case_html(visit),
            page["case_other"]: gr.update(
                visible=visit.case is not None and visit.case.other is not None
            ),
        }

    def cases_now(self, visit: Visit) -> Updates:
        """The worklist, the versions, and what this visit learned from."""
        page, server, loop = self.page, self.server, visit.loop
        parts = {name: listed(visit, server, name) for name in PARTS}
        names = server.projects.names
        lengths = [(visit.say(name), name) for name in LENGTHS]
        return {
            **{page[name]: json.dumps({"visit": visit.ident, "html": html})
               for name, html in parts.items()},
            page["lessons"]: lessons_html(visit),
            page["project"]: self._chooser(
                visit, "project", loop.project or (names[0] if names else ""), plain(names)
            ),
            page["train_length"]: self._chooser(visit, "train_length", loop.length, lengths),
        }  # fmt: skip

    def _formats(self, visit: Visit) -> str:
        able = [(NAMED.get(name, name), name) for name in mask_formats(visit)]
        chosen = visit.mask_format if visit.mask_format in dict(able).values() else able[0][1]
        return self._chooser(visit, "format", chosen, able)

    def _posts(self, visit: Visit) -> str:
        chosen = chosen_name(visit)
        named = [(visit.say("none"), name) if name == "none" else (name, name) for name in CHOICES]
        # What a program gave is no choice of the list but is shown.
        own = [] if chosen in CHOICES else [(chosen, chosen)]
        return self._chooser(visit, "post", chosen, [*own, *named])

    def settings_now(self, visit: Visit) -> Updates:
        """What the controls must say after an image was opened or a target was chosen."""
        page, names = self.page, self.server.models.names()
        adapters = [
            (visit.say("none"), ""),
            *plain(offered_adapters(visit, self.server.models, visit.model)),
        ]
        updates: Updates = {
            page["info"]: info_html(visit),
            page["model"]: self._chooser(visit, "model", visit.model, plain(names)),
            page["adapter"]: self._chooser(visit, "adapter", visit.adapter or "", adapters),
        }
        return updates if visit.volume is None else {**updates, **self._view_now(visit)}

    def _view_now(self, visit: Visit) -> Updates:
        page, view, volume = self.page, visit.view, visit.opened()
        least, most = float(volume.data.min()), float(volume.data.max())
        least, most = min(least, view.low), max(most, view.high)
        step = max((most - least) / 1000, 1e-6)
        step = max(1.0, round(step)) if most - least > 50 else step
        return {
            page["axis"]: axis_name(volume, view.axis),
            page["preset"]: self.preset_now(visit),
            page["model_window"]: self._chooser(
                visit, "model_window", visit.model_window, plain(PRESETS)
            ),
            page["low"]: gr.update(minimum=least, maximum=most, step=step, value=view.low),
            page["high"]: gr.update(minimum=least, maximum=most, step=step, value=view.high),
        }

    def preset_now(self, visit: Visit) -> str:
        """Windows to choose from; what the limits were moved to is no choice but is named."""
        moved = [(visit.say("custom"), CUSTOM)] if visit.view.preset == CUSTOM else []
        return self._chooser(visit, "preset", visit.view.preset, [*moved, *plain(PRESETS)])

    def _chooser(
        self, visit: Visit, name: str, value: str, choices: Sequence[tuple[str, str]]
    ) -> str:
        return chooser_json(visit.say(name), value, choices)

    def offer_now(self, visit: Visit) -> Updates:
        """Work that was kept and may be taken up again."""
        page, offer = self.page, None if visit.ended else offer_to(visit, self.server)
        if offer is None:
            return {page["offer"]: gr.update(visible=False)}
        return {
            page["offer"]: gr.update(visible=True),
            page["offer_text"]: offer_html(visit, offer),
            page["bring_back"]: gr.update(interactive=offer.ready),
        }

    def opened_now(self, visit: Visit) -> Updates:
        """Everything that another image changes, and the series to choose from."""
        page, waiting = self.page, visit.waiting
        first = [(visit.say("choose_series"), "")]
        choices = [] if waiting is None else [*first, *waiting.choices]
        return {
            **self.shown_now(visit),
            **self.settings_now(visit),
            **self.offer_now(visit),
            page["series_bar"]: gr.update(visible=waiting is not None),
            page["series"]: self._chooser(visit, "series", "", choices),
        }

    def visit(self, request: gr.Request) -> Visit:
        """Whose request it is; a new visit that says so where that has ended."""
        return self.server.visits.known(request.session_hash)


def plain(names: Iterable[str]) -> list[tuple[str, str]]:
    """Choices that are shown as they are called."""
    return [(name, name) for name in names]


def reporting(visit: Visit, progress: gr.Progress) -> Callable[[str, int, int], None]:
    """What a computation calls with stage, done and total."""

    def report(stage: str, done: int, total: int) -> None:
        name = visit.say(stage if stage in STAGES else "working")
        progress((done, total), desc=name, unit="")

    return report


def listen(listener: Any, work: Any, inputs: Any, outputs: Any, **options: Any) -> Any:
    """Listen without an entry in the API, which `promptseg.demo.api` gives."""
    name = f"page_{work.__name__}"
    return listener(work, inputs, outputs, api_name=name, api_visibility="private", **options)
