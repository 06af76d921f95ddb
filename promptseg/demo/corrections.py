"""Which slices are segmented, and previews of corrections on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.demo.preview import corrected_plane, slice_index
from promptseg.demo.visit import Visit
from promptseg.demo.visit_parts import Trial
from promptseg.errors import PromptError, PromptsegError
from promptseg.prompts.types import Box, Point, Prompt, PromptSet, Scribble
from promptseg.session import Session
from promptseg.volume import Volume
from promptseg.volume.slicing import resolve_axis

AXES = ("axial", "coronal", "sagittal")


def first_axis(visit: Visit, prompts: Sequence[Prompt]) -> int:
    """The axis shown, unless the first flat prompt lies on slices along another."""
    for prompt in prompts:
        flat = flat_axes(prompt)
        if flat:
            return visit.view.axis if visit.view.axis in flat else flat[0]
    return visit.view.axis


def flat_axes(prompt: Prompt) -> list[int]:
    if not isinstance(prompt, (Box, Scribble)):
        return []
    return [axis for axis in range(3) if slice_index(prompt, axis) is not None]


def check_axis(visit: Visit, prompts: PromptSet) -> None:
    """Refuse a flat box or stroke across the slices of the session."""
    volume, axis = visit.opened(), slice_axis(visit)
    for flat in (flat_axes(prompt) for prompt in prompts):
        if flat and axis not in flat and visit.session is not None:
            raise PromptError(visit.say("wrong_axis", axis=visit.say(axis_name(volume, axis))))


def axis_name(volume: Volume, axis: int) -> str:
    """`axial`, `coronal` or `sagittal`."""
    return next(name for name in AXES if resolve_axis(name, volume.affine) == axis)


def slice_axis(visit: Visit) -> int:
    """Voxel axis of the slices that are segmented."""
    if visit.used_axis is not None:
        return visit.used_axis
    return visit.session_axis if isinstance(visit.session_axis, int) else visit.view.axis


def trial_of(visit: Visit) -> Trial | None:
    """The trial that stands for all prompts of the visit, if there is one."""
    trial = visit.trial
    return trial if trial is not None and trial.prompts == len(visit.prompts) else None


def corrects(prompt: Prompt) -> bool:
    """True for a click or stroke on a mask that was there before."""
    return isinstance(prompt, (Point, Scribble)) and prompt.role is not None


def preview_corrections(visit: Visit, session: Session) -> None:
    """Show what waits: corrections as Refine will take them up, other prompts on their slice."""
    fresh = session.prompts.to_voxel(visit.opened())[visit.answered :]
    visit.trial, known = None, visit.preview
    visit.preview = {}
    if fresh and all(corrects(prompt) for prompt in fresh):
        trial = session.copy()
        result = trial.refine("graph_cut")
        visit.trial = Trial(len(session.prompts), trial, result)
    else:
        visit.preview = _slice_previews(visit, session, fresh, known)


def _slice_previews(
    visit: Visit, session: Session, fresh: PromptSet, known: dict[int, tuple[int, np.ndarray]]
) -> dict[int, tuple[int, np.ndarray]]:
    """What the network makes of each slice with prompts that wait."""
    axis = slice_axis(visit)
    by_slice: dict[int, list[Prompt]] = {}
    for prompt in fresh:
        index = slice_index(prompt, axis)
        if index is not None:
            by_slice.setdefault(index, []).append(prompt)
    previews = {}
    for index, prompts in by_slice.items():
        held = known.get(index)
        if held is None or held[0] != len(prompts):
            held = len(prompts), corrected(visit, session, PromptSet(prompts), axis, index)
        previews[index] = held
    return previews


def corrected(
    visit: Visit, session: Session, prompts: PromptSet, axis: int, index: int
) -> np.ndarray:
    if visit.segmenter is None or visit.labels is None:
        raise PromptsegError(visit.say("no_mask"))
    volume = visit.opened()
    return corrected_plane(
        visit.segmenter, volume, session.window, visit.labels, prompts, axis, index
    )
