"""What is open, how it is looked at, and which targets there are."""

from __future__ import annotations

import re

from promptseg.demo.answers import rebuild
from promptseg.demo.heap import give_back_memory
from promptseg.demo.models import Models
from promptseg.demo.visit import COLOURS, Target, View, Visit
from promptseg.demo.visits import Visits
from promptseg.errors import PromptError
from promptseg.intensity import choose_window
from promptseg.prompts.slice_axis import choose_axis
from promptseg.prompts.types import PromptSet
from promptseg.slicing import resolve_axis
from promptseg.volume import Volume

MOST_TARGETS = 24


def open_volume(visit: Visit, volume: Volume, name: str, visits: Visits) -> None:
    """Start afresh on an image; the view is the middle slice of the axis that `auto` takes."""
    needed = Visit("", volume=volume).nbytes
    visits.make_room(visit, needed)
    before = visit.volume is not None
    window = choose_window(volume)
    axis = choose_axis(volume, PromptSet())
    middles = [side // 2 for side in volume.shape]
    visit.view = View(axis, middles, "auto", window.low, window.high, visit.view.opacity)
    visit.volume, visit.name, visit.session, visit.segmenter = volume, name, None, None
    visit.own_network = False
    visit.targets = {1: Target(visit.say("target", number=1), COLOURS[0])}
    visit.active = 1
    visit.undone.clear()
    visit.forget_answer()
    if before:
        give_back_memory()
    visit.tell("opened", name=name)


def choose_model(visit: Visit, models: Models, model: str, adapter: str | None) -> None:
    """Use another network or adapter; prompts stay, masks are made anew."""
    if adapter is not None and adapter not in models.adapters(model):
        adapter = None
    segmenter = models.segmenter(model, adapter)
    visit.model, visit.adapter, visit.segmenter = model, adapter, segmenter
    visit.own_network = False
    rebuild(visit)
    visit.tell("chosen", model=model if adapter is None else f"{model} + {adapter}")


def choose_preset(visit: Visit, preset: str) -> None:
    """Show the image in a window, and let the model see it so."""
    window = choose_window(visit.opened(), preset)
    visit.view.preset, visit.view.low, visit.view.high = preset, window.low, window.high
    rebuild(visit)


def show_axis(visit: Visit, axis: str | int) -> None:
    """Look along another axis, at the slice that was shown there last."""
    visit.view.axis = resolve_axis(axis, visit.opened().affine)


def show_slice(visit: Visit, index: int) -> None:
    """Go to a slice, or to the nearest there is."""
    volume = visit.opened()
    last = volume.shape[visit.view.axis] - 1
    visit.view.indices[visit.view.axis] = min(max(int(index), 0), last)


def add_target(visit: Visit, name: str = "", colour: str | None = None) -> int:
    """Make a new target the one that prompts are for; gives its label."""
    if len(visit.targets) >= MOST_TARGETS:
        raise PromptError(f"there are {len(visit.targets)} targets already: that is the limit")
    label = max(visit.targets) + 1
    shown = colour or COLOURS[(label - 1) % len(COLOURS)]
    visit.targets[label] = Target(name.strip() or visit.say("target", number=label), shown)
    visit.active = label
    return label


def choose_target(visit: Visit, label: int) -> None:
    """Make a target the one that prompts are for."""
    if label not in visit.targets:
        known = ", ".join(map(str, visit.targets))
        raise PromptError(f"there is no target {label}: use one of {known}")
    visit.active = label


def rename_target(visit: Visit, label: int, name: str, colour: str) -> None:
    """Call and paint a target otherwise; an unusable colour is left out."""
    if label not in visit.targets:
        return
    target = visit.targets[label]
    target.name = name.strip()[:60] or target.name
    target.colour = hex_colour(colour) or target.colour


def hex_colour(text: str) -> str | None:
    """`#rrggbb` of what a colour picker sends, also `rgba(...)`; None if it is no colour."""
    numbers = re.findall(r"[\d.]+", text) if text.startswith("rgb") else []
    if len(numbers) >= 3:
        return "#" + "".join(f"{min(255, round(float(value))):02x}" for value in numbers[:3])
    return text.lower() if re.fullmatch(r"#[0-9a-fA-F]{6}", text) else None
