"""What the page shows after an event, and how events are run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from promptseg.demo.page import DOWNLOADS, Page, status
from promptseg.demo.server import Server
from promptseg.demo.showing import axis_name, info_html, picture_json, targets_html
from promptseg.demo.visit import Visit

Updates = dict[Any, Any]
QUICK = {"concurrency_id": "quick", "concurrency_limit": 2, "show_progress": "minimal"}
LONG = {"concurrency_id": "long", "concurrency_limit": 1, "show_progress": "full"}
LOOK = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last"}
STAGES = ("encode", "propagate", "segment")


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
                "undo",
                "redo",
                "clear",
                "propagate",
                "refine",
                "suggest",
                "doubt",
                *DOWNLOADS,
            )
        ]
        self.settings = [
            page[name]
            for name in (
                "info",
                "axis",
                "preset",
                "low",
                "high",
                "model",
                "adapter",
                "target_name",
                "colour",
            )
        ]

    def shown_now(self, visit: Visit) -> Updates:
        """Picture, message, targets, and which buttons can be pressed."""
        page, some = self.page, len(visit.prompts) > 0
        able = {
            "undo": some,
            "redo": bool(visit.undone),
            "clear": some or visit.labels is not None,
            "propagate": visit.volume is not None and (some or visit.adapter is not None),
            "refine": visit.propagated and visit.pending > 0,
            "suggest": visit.labels is not None,
            "doubt": visit.labels is not None,
            **dict.fromkeys(DOWNLOADS, visit.labels is not None),
        }
        updates = {page[name]: gr.update(interactive=on) for name, on in able.items()}
        return {
            **updates,
            page["viewer"]: picture_json(visit),
            page["status"]: status(*visit.message),
            page["targets"]: targets_html(visit),
        }

    def settings_now(self, visit: Visit) -> Updates:
        """What the controls must say after an image was opened or a target was chosen."""
        page, target = self.page, visit.targets[visit.active]
        updates: Updates = {
            page["info"]: info_html(visit),
            page["model"]: visit.model,
            page["adapter"]: gr.update(
                value=visit.adapter or "",
                choices=[(visit.say("none"), ""), *self.server.models.adapters(visit.model)],
            ),
            page["target_name"]: target.name,
            page["colour"]: target.colour,
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
            page["preset"]: view.preset,
            page["low"]: gr.update(minimum=least, maximum=most, step=step, value=view.low),
            page["high"]: gr.update(minimum=least, maximum=most, step=step, value=view.high),
        }

    def visit(self, request: gr.Request) -> Visit:
        """Whose request it is."""
        return self.server.visits.of(request.session_hash)


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
