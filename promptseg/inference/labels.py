"""Answers on slices -> labels and probabilities on the grid of the volume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from promptseg.inference.decoder import SliceMask
from promptseg.volume.slicing import Frame, take_slice

CERTAIN_LOGIT = 60.0
AT_ONCE = 16
Answers = dict[int, dict[int, SliceMask]]
Placed = tuple[int, tuple[slice, slice], np.ndarray]


@dataclass
class FrameMasks:
    """Answers of some targets seen through one frame.

    Args:
        frame: The view of the volume.
        answers: Masks by target and slice.
        keys: By target, the number of its part whose answers these are, where it has several.
        cut: Targets that reach an edge of the frame where the image goes on.
    """

    frame: Frame
    answers: Answers
    keys: dict[int, int] = field(default_factory=dict)
    cut: tuple[int, ...] = ()


@dataclass
class FusedLabels:
    """Answers on the volume's grid.

    Args:
        labels: (I, J, K) uint8 or uint16.
        uncertainty: (I, J, K) float32 in [0, 1] or None.
        scores: Mean predicted quality by target.
    """

    labels: np.ndarray
    uncertainty: np.ndarray | None
    scores: dict[int, float]


def fuse_labels(
    answered: list[FrameMasks], shape: tuple[int, int, int], uncertainty: bool = False
) -> FusedLabels:
    """Labels of the greatest logit above 0, never two targets on one voxel.

    Args:
        answered: What `Engine.run` gave.
        shape: (I, J, K) of the volume.
        uncertainty: True to give 1 - |2p - 1| of the strongest target too.
    """
    targets = sorted({t for group in answered for t in group.answers})
    labels = np.zeros(shape, np.uint8 if max(targets) < 256 else np.uint16)
    doubt = np.zeros(shape, np.float32) if uncertainty else None
    axis = answered[0].frame.axis
    indices = {i for g in answered for s in g.answers.values() for i in s}
    for index, placed in placed_logits(answered, indices):
        plane = take_slice(labels, axis, index)
        strongest = np.zeros(plane.shape, np.float32)
        for target, rows, logits in placed:
            wins = logits > strongest[rows]
            plane[rows][wins] = target
            np.maximum(strongest[rows], logits, out=strongest[rows])
            if doubt is not None:
                here = take_slice(doubt, axis, index)[rows]
                np.maximum(here, 1 - np.abs(np.tanh(logits / 2)), out=here)
    return FusedLabels(labels, doubt, {target: score_of(answered, target) for target in targets})


def score_of(answered: list[FrameMasks], target: int) -> float:
    """Mean predicted quality of a target over the slices of all its parts, 0 without any."""
    masks = [m for group in answered for m in group.answers.get(target, {}).values()]
    return float(np.mean([mask.quality for mask in masks])) if masks else 0.0


def probabilities(
    answered: list[FrameMasks], shape: tuple[int, int, int], target: int
) -> np.ndarray:
    """(I, J, K) float32 foreground probability of one target, 0 where it was not looked for."""
    volume = np.zeros(shape, np.float32)
    axis = answered[0].frame.axis
    own = [replace(g, answers={target: g.answers[target]}) for g in answered if target in g.answers]
    for index, placed in placed_logits(own, {i for g in own for i in g.answers[target]}):
        for _, rows, logits in placed:
            place = take_slice(volume, axis, index)[rows]
            np.maximum(place, 1 / (1 + np.exp(-logits)), out=place)
    return volume


def slice_logits(answered: list[FrameMasks], index: int) -> list[Placed]:
    """(target, place in the slice, logits there) of every target that has an answer.

    A mask that the user gave is certain on the whole slice, so that no other target takes it.
    """
    return next(placed_logits(answered, [index]))[1]


def placed_logits(
    answered: list[FrameMasks], indices: Iterable[int]
) -> Iterator[tuple[int, list[Placed]]]:
    """Slices in ascending order, each with what `slice_logits` gives.

    Masks are brought to the grid `AT_ONCE`: one by one they take half as long again.
    """
    ordered = sorted(indices)
    # A hundred organs of sixteen slices at once would take gigabytes.
    step = max(1, AT_ONCE // max(1, sum(len(group.answers) for group in answered)))
    for start in range(0, len(ordered), step):
        some = ordered[start : start + step]
        placed: dict[int, list[Placed]] = {index: [] for index in some}
        for group in answered:
            _place(group, placed)
        yield from placed.items()


def _place(group: FrameMasks, placed: dict[int, list[Placed]]) -> None:
    """Add the masks of a view to the slices that have one."""
    image, region = group.frame.paste_slices()
    everywhere = slice(None), slice(None)
    held = [(i, t, s[i]) for i in placed for t, s in group.answers.items() if i in s]
    for index, target, mask in held:
        if mask.given is not None:
            sure = np.where(mask.given, CERTAIN_LOGIT, -CERTAIN_LOGIT).astype(np.float32)
            placed[index].append((target, everywhere, sure))
    asked = [(i, t, mask.logits) for i, t, mask in held if mask.given is None]
    if asked:
        restored = group.frame.restore(torch.stack([logits for _, _, logits in asked])).numpy()
        for (index, target, _), plane in zip(asked, restored, strict=True):
            placed[index].append((target, image, plane[region]))
