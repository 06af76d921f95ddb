"""What is open, how it is looked at, and which targets there are."""

from __future__ import annotations

import re
from math import inf, isfinite
from secrets import token_hex

from promptseg.demo.answers import network_for, offered_adapters, rebuild
from promptseg.demo.heap import give_back_memory
from promptseg.demo.models import Models
from promptseg.demo.setting_aside import setting_aside
from promptseg.demo.visit import COLOURS, Target, View, Visit
from promptseg.demo.visits import Visits
from promptseg.errors import PromptError, VolumeError
from promptseg.predictor.lessons import LEARNED
from promptseg.prompts.slice_axis import choose_axis
from promptseg.prompts.types import PromptSet, Text
from promptseg.volume import Volume
from promptseg.volume.intensity import Window, choose_window
from promptseg.volume.slicing import resolve_axis

MOST_TARGETS = 24
CUSTOM = "custom"


def open_volume(visit: Visit, volume: Volume, name: str, visits: Visits) -> None:
    """Start afresh on an image; the view is the middle slice of the axis that `auto` takes.

    Undo brings back the image before, where the memory of the server has room for both.
    """
    needed = Visit("", volume=volume).nbytes
    before = visit.volume is not None
    window = choose_window(volume)
    make_room(visit, needed, visits)
    with setting_aside(visit):
        if visit.segmenter is not None and visit.segmenter.cache is not None:
            visit.segmenter.cache.clear()
        _start(visit, volume, name, window)
    if before and not visit.before:
        give_back_memory()
    visit.tell("opened_undo" if visit.before else "opened", name=name)


def make_room(visit: Visit, needed: int, visits: Visits) -> None:
    """Room for another image, if it must be without those that Undo could bring back."""
    present = visit.nbytes if visit.worked else 0
    try:
        visits.make_room(visit, needed + present)
    except VolumeError:
        visit.before.clear()
        visit.after.clear()
        visits.make_room(visit, needed)
        forget_work(visit)
    visit.reserved = needed


def forget_work(visit: Visit) -> None:
    """Prompts and masks go; what was kept on disk stays."""
    visit.session = None
    visit.forget_answer()


def _start(visit: Visit, volume: Volume, name: str, window: Window) -> None:
    middles = [side // 2 for side in volume.shape]
    axis = choose_axis(volume, PromptSet())
    visit.view = View(axis, middles, "auto", window.low, window.high, visit.view.opacity)
    visit.volume, visit.name, visit.session, visit.segmenter = volume, name, None, None
    visit.own_network, visit.model_window, visit.session_axis = False, "auto", "auto"
    if visit.loop.use and visit.loop.model == visit.model:
        visit.adapter = LEARNED
    visit.case = None
    visit.targets = {1: Target(visit.say("target", number=1), COLOURS[0])}
    visit.active, visit.undone, visit.unsaved, visit.work_id = 1, [], False, token_hex(8)
    visit.forget_answer()


def close_image(visit: Visit) -> None:
    """Have no image open; Undo still brings back one that was set aside before."""
    segmenter = visit.segmenter
    if segmenter is not None and segmenter.cache is not None:
        segmenter.cache.clear()
    visit.volume, visit.name, visit.session, visit.segmenter = None, "", None, None
    visit.own_network, visit.model_window, visit.session_axis = False, "auto", "auto"
    visit.targets = {1: Target(visit.say("target", number=1), COLOURS[0])}
    visit.case, visit.active, visit.reserved = None, 1, 0
    visit.undone, visit.unsaved, visit.work_id = [], False, token_hex(8)
    visit.forget_answer()


def choose_model(visit: Visit, models: Models, model: str, adapter: str | None) -> None:
    """Use another network or adapter; prompts stay, and Undo brings back the masks before."""
    if adapter is not None and adapter not in offered_adapters(visit, models, model):
        adapter = None
    if (model, adapter) == (visit.model, visit.adapter):
        return
    worded = any(isinstance(prompt, Text) for prompt in visit.prompts)
    segmenter = network_for(visit, models, model, adapter, own=worded)
    carried = visit.propagated
    with setting_aside(visit):
        visit.model, visit.adapter, visit.segmenter = model, adapter, segmenter
        visit.own_network = worded or adapter == LEARNED
        rebuild(visit)
    visit.loop.use = adapter == LEARNED
    named = model if adapter is None else f"{model} + {adapter}"
    visit.tell("chosen_again" if carried else "chosen", model=named)


def choose_model_window(visit: Visit, window: str) -> None:
    """Let the model see other grey values; Undo brings back the masks before.

    Raises:
        VolumeError: The window is unknown.
    """
    choose_window(visit.opened(), window)
    if window == visit.model_window:
        return
    carried = visit.propagated
    with setting_aside(visit):
        visit.model_window = window
        rebuild(visit)
    visit.tell("windowed_again" if carried else "windowed", window=window)


def choose_preset(visit: Visit, preset: str) -> None:
    """Show the image in a window; masks and what the model sees stay as they are.

    Raises:
        VolumeError: The window is unknown.
    """
    if preset in (visit.view.preset, CUSTOM):
        return
    window = choose_window(visit.opened(), preset)
    visit.view.preset, visit.view.low, visit.view.high = preset, window.low, window.high


def choose_limits(visit: Visit, low: float, high: float) -> None:
    """Show the image between two grey values."""
    view, limits = visit.view, (low, max(high, low + 1e-6))
    if limits != (view.low, view.high):
        view.preset, (view.low, view.high) = CUSTOM, limits


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
    if visit.case is not None:
        raise PromptError(visit.say("labels_given"))
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


def rename_target(visit: Visit, label: int, name: str, colour: str, at: float = inf) -> None:
    """Call and paint a target otherwise; an unusable colour is left out.

    Args:
        visit: Whose.
        label: Of the target.
        name: Empty for the one it has.
        colour: `#rrggbb` or `rgb(...)`.
        at: When it was typed; what was typed before the last that came is left out.
    """
    if label not in visit.targets or at < visit.targets[label].named_at:
        return
    target = visit.targets[label]
    target.named_at = at if isfinite(at) else target.named_at
    target.name = name.strip()[:60] or target.name
    target.colour = hex_colour(colour) or target.colour


def hex_colour(text: str) -> str | None:
    """`#rrggbb` of what a colour picker sends, also `rgba(...)`; None if it is no colour."""
    numbers = re.findall(r"[\d.]+", text) if text.startswith("rgb") else []
    if len(numbers) >= 3:
        return "#" + "".join(f"{min(255, round(float(value))):02x}" for value in numbers[:3])
    return text.lower() if re.fullmatch(r"#[0-9a-fA-F]{6}", text) else None
