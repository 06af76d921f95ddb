"""What a visitor can do; the page and the API call these and nothing else.

Each function changes one visit, or raises PromptsegError and leaves it as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import numpy as np

from promptseg.demo.models import Models
from promptseg.demo.preview import corrected_plane, slice_index
from promptseg.demo.visit import COLOURS, CancelledError, Target, View, Visit
from promptseg.demo.visits import Visits
from promptseg.embeddings import Progress
from promptseg.errors import PromptError, PromptsegError
from promptseg.intensity import choose_window
from promptseg.prompts import Box, Mask, Point, Prompt, PromptSet, Scribble, Text
from promptseg.session import RefineMode, Session
from promptseg.slicing import choose_axis, resolve_axis
from promptseg.volume import Segmentation, Volume

AXES = ("axial", "coronal", "sagittal")
MOST_TARGETS = 24


def open_volume(visit: Visit, volume: Volume, name: str, visits: Visits) -> None:
    """Start afresh on an image; the view is the middle slice of the axis that `auto` takes."""
    needed = Visit("", volume=volume).nbytes
    visits.make_room(visit, needed)
    window = choose_window(volume)
    axis = choose_axis(volume, PromptSet())
    middles = [side // 2 for side in volume.shape]
    visit.view = View(axis, middles, "auto", window.low, window.high, visit.view.opacity)
    visit.volume, visit.name, visit.session, visit.segmenter = volume, name, None, None
    visit.targets = {1: Target(visit.say("target", number=1), COLOURS[0])}
    visit.active = 1
    visit.undone.clear()
    visit.forget_answer()
    visit.tell("opened", name=name)


def choose_model(visit: Visit, models: Models, model: str, adapter: str | None) -> None:
    """Use another network or adapter; prompts stay, masks are made anew."""
    if adapter is not None and adapter not in models.adapters(model):
        adapter = None
    segmenter = models.segmenter(model, adapter)
    visit.model, visit.adapter, visit.segmenter = model, adapter, segmenter
    _rebuild(visit)
    visit.tell("chosen", model=model if adapter is None else f"{model} + {adapter}")


def choose_preset(visit: Visit, preset: str) -> None:
    """Show the image in a window, and let the model see it so."""
    window = choose_window(visit.opened(), preset)
    visit.view.preset, visit.view.low, visit.view.high = preset, window.low, window.high
    _rebuild(visit)


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


def rename_target(visit: Visit, name: str, colour: str) -> None:
    """Call and paint the active target otherwise; an unusable colour is left out."""
    target = visit.targets[visit.active]
    target.name = name.strip()[:60] or target.name
    target.colour = hex_colour(colour) or target.colour


def hex_colour(text: str) -> str | None:
    """`#rrggbb` of what a colour picker sends, also `rgba(...)`; None if it is no colour."""
    numbers = re.findall(r"[\d.]+", text) if text.startswith("rgb") else []
    if len(numbers) >= 3:
        return "#" + "".join(f"{min(255, round(float(value))):02x}" for value in numbers[:3])
    return text.lower() if re.fullmatch(r"#[0-9a-fA-F]{6}", text) else None


def give(visit: Visit, models: Models, *prompts: Prompt) -> None:
    """Add prompts and answer at once on their slices.

    Raises:
        PromptError: They cannot be used; they are not kept.
    """
    began = perf_counter()
    resolved = PromptSet(prompts).to_voxel(visit.opened())
    session = _session(visit, models, list(resolved))
    _check_axis(visit, resolved)
    _take_over_unprompted(visit, session)
    session.add(*prompts)
    try:
        _answer_slices(visit, session)
    except PromptsegError:
        session.undo()
        raise
    visit.undone.clear()
    _name_targets(visit, PromptSet(prompts).targets)
    _say_answered(visit, perf_counter() - began)


def give_words(visit: Visit, models: Models, words: Text, progress: Progress | None = None) -> None:
    """Name a target, and look for it in the whole volume.

    Raises:
        PromptError: Nothing here knows the words; they are not kept.
    """
    began = perf_counter()
    words.resolve(visit.opened())
    session = _session(visit, models, [words])
    _take_over_unprompted(visit, session)
    session.add(words)
    try:
        result = session.answer(True, progress=_stoppable(visit, progress))
    except PromptsegError:
        session.undo()
        raise
    visit.undone.clear()
    _keep(visit, result, propagated=True)
    if visit.targets[words.target].name == visit.say("target", number=words.target):
        visit.targets[words.target].name = words.words
    visit.tell("propagated", seconds=perf_counter() - began)


def point(visit: Visit, shares: Sequence[float], index: int, positive: bool) -> Point:
    """The point under a click at shares of the picture's width and height."""
    voxel = np.round(_voxels(visit, [shares], index)[0], 1)
    return Point(tuple(voxel.tolist()), positive, visit.active)


def box(visit: Visit, first: Sequence[float], second: Sequence[float], index: int) -> Box:
    """The 2D box between two corners."""
    corners = np.floor(_voxels(visit, [first, second], index) + 0.5).astype(int)
    lo, hi = corners.min(0).tolist(), (corners.max(0) + 1).tolist()
    return Box(tuple(lo), tuple(hi), visit.active)


def stroke(visit: Visit, path: Sequence[Sequence[float]], index: int, positive: bool) -> Scribble:
    """The scribble along a path drawn on the picture."""
    return Scribble.polyline(_voxels(visit, path, index), positive, visit.active)


def propagate(visit: Visit, models: Models, progress: Progress | None = None) -> None:
    """Carry the masks through the volume; without a prompt the adapter looks for its organs."""
    began = perf_counter()
    visit.opened()
    if not len(visit.prompts) and visit.adapter is None:
        raise PromptError(visit.say("prompt_first"))
    session = _session(visit, models)
    result = session.answer(True, progress=_stoppable(visit, progress))
    _keep(visit, result, propagated=True)
    visit.tell("propagated", seconds=perf_counter() - began)


def refine(visit: Visit, mode: RefineMode = "graph_cut", progress: Progress | None = None) -> None:
    """Take up the corrections since the last 3D mask."""
    began = perf_counter()
    if visit.session is None or not visit.propagated:
        raise PromptError(visit.say("no_mask"))
    result = visit.session.refine(mode, progress=_stoppable(visit, progress))
    _keep(visit, result, propagated=True)
    visit.tell("refined", seconds=perf_counter() - began)


def take_up(visit: Visit, progress: Progress | None = None) -> None:
    """Take up what waits: corrective clicks by refinement, other prompts by the network."""
    began = perf_counter()
    session = _begun(visit)
    fresh = visit.prompts[visit.answered :]
    if any(isinstance(prompt, Point) and prompt.role is not None for prompt in fresh):
        refine(visit, progress=progress)
        return
    result = session.answer(True, progress=_stoppable(visit, progress))
    _keep(visit, result, propagated=True)
    visit.tell("refined", seconds=perf_counter() - began)


def suggest(visit: Visit) -> None:
    """Go to the slice most worth checking next."""
    session = _begun(visit)
    if visit.labels is None:
        raise PromptError(visit.say("no_mask"))
    found = session.suggest()
    if found is None:
        visit.tell("nothing_to_check")
        return
    visit.view.axis = found.axis
    show_slice(visit, found.index)
    if found.target in visit.targets:
        visit.active = found.target
    visit.tell("check_here", index=found.index + 1, why=found.reason)


def show_uncertainty(visit: Visit, wanted: bool, progress: Progress | None = None) -> None:
    """Show how doubtful the masks are; it is computed when it is first wanted."""
    if wanted and visit.uncertainty is None:
        began = perf_counter()
        session = _begun(visit)
        if visit.labels is None:
            raise PromptError(visit.say("no_mask"))
        visit.uncertainty = session.uncertainty(progress=_stoppable(visit, progress))
        visit.tell("doubted", seconds=perf_counter() - began)
    visit.view.doubt = wanted


def undo(visit: Visit, progress: Progress | None = None) -> None:
    """Take back the latest prompt, and what it did to the masks."""
    session = _begun(visit)
    session.undo()
    answered = len(session.prompts) < visit.answered
    visit.undone.append(answered)
    _settle(visit, session, answered, progress)
    visit.tell("undone")


def redo(visit: Visit, progress: Progress | None = None) -> None:
    """Give again what was taken back last."""
    session = _begun(visit)
    session.redo()
    _settle(visit, session, visit.undone.pop() if visit.undone else False, progress)
    visit.tell("redone")


def clear(visit: Visit) -> None:
    """Forget all prompts and masks; the image stays."""
    visit.opened()
    visit.session, visit.session_axis = None, "auto"
    visit.undone.clear()
    visit.forget_answer()
    visit.tell("cleared")


def _begun(visit: Visit) -> Session:
    visit.opened()
    if visit.session is None:
        raise PromptError(visit.say("prompt_first"))
    return visit.session


def _session(visit: Visit, models: Models, prompts: Sequence[Prompt] = ()) -> Session:
    """The session; before the first prompt a new one along that prompt's slices."""
    if visit.segmenter is None:
        visit.segmenter = models.segmenter(visit.model, visit.adapter)
    begun = len(visit.prompts) or visit.undone or visit.labels is not None
    if visit.session is None or not begun:
        placed = [prompt for prompt in prompts if not isinstance(prompt, Text)]
        visit.session_axis = _first_axis(visit, placed) if placed else "auto"
        visit.session = _new_session(visit)
    return visit.session


def _first_axis(visit: Visit, prompts: Sequence[Prompt]) -> int:
    """The axis shown, unless the first flat prompt lies on slices along another."""
    for prompt in prompts:
        flat = _flat_axes(prompt)
        if flat:
            return visit.view.axis if visit.view.axis in flat else flat[0]
    return visit.view.axis


def _flat_axes(prompt: Prompt) -> list[int]:
    if not isinstance(prompt, (Box, Scribble)):
        return []
    return [axis for axis in range(3) if slice_index(prompt, axis) is not None]


def _new_session(visit: Visit) -> Session:
    if visit.segmenter is None:
        raise PromptsegError(visit.say("open_first"))
    return visit.segmenter.session(visit.opened(), visit.session_axis, visit.view.preset)


def _rebuild(visit: Visit) -> None:
    """The same prompts in a session with what was chosen since."""
    given = visit.prompts
    visit.session = None
    visit.undone.clear()
    visit.forget_answer()
    if visit.volume is None or visit.segmenter is None or not len(given):
        return
    session = _new_session(visit)
    for prompt in given:
        session.add(prompt)
    visit.session = session
    _answer_slices(visit, session)


def _check_axis(visit: Visit, prompts: PromptSet) -> None:
    """Refuse a flat box or stroke across the slices of the session."""
    volume, axis = visit.opened(), slice_axis(visit)
    for flat in (_flat_axes(prompt) for prompt in prompts):
        if flat and axis not in flat and visit.session is not None:
            raise PromptError(visit.say("wrong_axis", axis=visit.say(axis_name(volume, axis))))


def axis_name(volume: Volume, axis: int) -> str:
    """`axial`, `coronal` or `sagittal`."""
    return next(name for name in AXES if resolve_axis(name, volume.affine) == axis)


def _take_over_unprompted(visit: Visit, session: Session) -> None:
    """Make masks that no prompt asked for prompts themselves, so that clicks correct them."""
    if len(session.prompts) or visit.labels is None or visit.undone:
        return
    masks = [Mask(visit.labels == label, int(label)) for label in np.unique(visit.labels) if label]
    if masks:
        session.add(*masks)
        _keep(visit, session.answer(True), propagated=True)


def slice_axis(visit: Visit) -> int:
    """Voxel axis of the slices that are segmented."""
    if visit.used_axis is not None:
        return visit.used_axis
    return visit.session_axis if isinstance(visit.session_axis, int) else visit.view.axis


def _voxels(visit: Visit, shares: Sequence[Sequence[float]], index: int) -> np.ndarray:
    from promptseg.demo.display import plane_of

    plane = plane_of(visit.opened(), visit.view.axis)
    return plane.voxels(np.array(shares, dtype=np.float64), index)


def _answer_slices(visit: Visit, session: Session) -> None:
    if visit.propagated:
        _preview_corrections(visit, session)
    else:
        _keep(visit, session.segment(), propagated=False)


def _preview_corrections(visit: Visit, session: Session) -> None:
    """Redraw the slices whose corrections are not those that were previewed."""
    volume, axis = visit.opened(), slice_axis(visit)
    fresh = session.prompts.to_voxel(volume)[visit.answered :]
    by_slice: dict[int, list[Prompt]] = {}
    for prompt in fresh:
        index = slice_index(prompt, axis)
        if index is not None:
            by_slice.setdefault(index, []).append(prompt)
    previews = {}
    for index, prompts in by_slice.items():
        known = visit.preview.get(index)
        if known is None or known[0] != len(prompts):
            known = len(prompts), _corrected(visit, session, PromptSet(prompts), axis, index)
        previews[index] = known
    visit.preview = previews


def _corrected(
    visit: Visit, session: Session, prompts: PromptSet, axis: int, index: int
) -> np.ndarray:
    if visit.segmenter is None or visit.labels is None:
        raise PromptsegError(visit.say("no_mask"))
    volume = visit.opened()
    return corrected_plane(
        visit.segmenter, volume, session.window, visit.labels, prompts, axis, index
    )


def _settle(visit: Visit, session: Session, answer: bool, progress: Progress | None = None) -> None:
    """Bring the masks to what the prompts say after one was taken back or given again."""
    if not len(session.prompts):
        visit.forget_answer()
    elif answer or not visit.propagated:
        carried = visit.propagated
        result = session.answer(carried, progress=_stoppable(visit, progress))
        _keep(visit, result, carried)
    else:
        _preview_corrections(visit, session)


def _keep(visit: Visit, result: Segmentation, propagated: bool) -> None:
    visit.labels, visit.uncertainty = result.data, result.uncertainty
    visit.used_axis = result.report.get("axis")
    visit.scores = {int(t): float(s) for t, s in result.score.items()}
    visit.answered, visit.propagated = len(visit.prompts), propagated
    visit.preview = {}
    _name_targets(visit, result.targets, result.labels)


def _name_targets(
    visit: Visit, labels: Sequence[int], names: Mapping[int, str] | None = None
) -> None:
    """Give those that have none a name and a colour."""
    for label in labels:
        if label not in visit.targets:
            name = (names or {}).get(label) or visit.say("target", number=label)
            visit.targets[label] = Target(name, COLOURS[(label - 1) % len(COLOURS)])


def _say_answered(visit: Visit, seconds: float) -> None:
    if visit.propagated:
        visit.tell("pending", count=visit.pending)
    else:
        visit.tell("answered", seconds=seconds)


def _stoppable(visit: Visit, progress: Progress | None) -> Callable[[str, int, int], None]:
    """`progress` that ends the computation once the visitor cancels or leaves."""

    def report(stage: str, done: int, total: int) -> None:
        if visit.cancel.is_set():
            raise CancelledError(visit.say("cancelled"))
        if progress is not None:
            progress(stage, done, total)

    return report
