"""Which slices are segmented, and previews of corrections on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.demo.preview import corrected_plane, slice_index
from promptseg.demo.visit import Visit
from promptseg.errors import PromptError, PromptsegError
from promptseg.prompts.types import Box, Prompt, PromptSet, Scribble
from promptseg.session import Session
from promptseg.slicing import resolve_axis
from promptseg.volume import Volume

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


def preview_corrections(visit: Visit, session: Session) -> None:
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
            known = len(prompts), corrected(visit, session, PromptSet(prompts), axis, index)
        previews[index] = known
    visit.preview = previews


def corrected(
    visit: Visit, session: Session, prompts: PromptSet, axis: int, index: int
) -> np.ndarray:
    if visit.segmenter is None or visit.labels is None:
        raise PromptsegError(visit.say("no_mask"))
    volume = visit.opened()
    return corrected_plane(
        visit.segmenter, volume, session.window, visit.labels, prompts, axis, index
    )
