"""Segmenting a time series phase by phase: the last phase's mask prompts the next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from promptseg.errors import PromptError
from promptseg.prompts.types import Prompt, PromptSet, Scribble
from promptseg.session.segmenter import Segmenter
from promptseg.session.timeseries.reading import Phase
from promptseg.volume import Segmentation
from promptseg.volume.slicing import in_plane

CORE = 0.8
"""Share of the largest distance to the outline from which pixels count as surely inside: a
ventricle keeps its middle when it contracts. On end-systolic left ventricles of ACDC patients 72,
73 and 78, from the expert's mask at end-diastole, the middle alone gives a mean Dice of 0.86; with
a box around the last mask 0.84. On 72 and 78 the box alone gives 0.04, a mask handed along time
0.70, the last mask as it was 0.58."""


def segment_phases(
    segmenter: Segmenter,
    phases: Sequence[Phase],
    prompts: Iterable[Prompt],
    at: int = 0,
    **options: Any,
) -> list[Segmentation]:
    """Segment every phase.

    The prompted phase is answered as `Segmenter.segment` does. From there the others follow, one
    after the other towards both ends: on every slice of the last mask a box around it and its
    middle are the prompts. A target that is nowhere in a phase is looked for where it was last.

    Args:
        segmenter: What segments.
        phases: Of `read_phases`.
        prompts: On the phase `at`.
        at: The prompted phase, from 0.
        options: As in `Segmenter.segment`: `axis`, `window`, `propagate`, `progress` and so on.

    Returns:
        Labels for each phase, in order.

    Raises:
        PromptError: There is no such phase, or a prompt cannot be used on it.
    """
    if not 0 <= at < len(phases):
        raise PromptError(f"phase {at}: there are 0 to {len(phases) - 1}")
    first = segmenter.segment(phases[at].volume, prompts, **options)
    later = {key: value for key, value in options.items() if key in ("window", "progress")}
    found: dict[int, Segmentation] = {at: first}
    for way in (range(at + 1, len(phases)), range(at - 1, -1, -1)):
        known = {target: first.mask(target) for target in first.targets}
        for index in way:
            found[index] = result = _following(segmenter, phases[index], known, first, later)
            seen = {target: result.mask(target) for target in result.targets}
            known |= {target: mask for target, mask in seen.items() if mask.any()}
    return [found[index] for index in range(len(phases))]


def _following(
    segmenter: Segmenter,
    phase: Phase,
    known: dict[int, np.ndarray],
    first: Segmentation,
    options: dict[str, Any],
) -> Segmentation:
    axis = int(first.report["axis"])
    given = [p for target, mask in known.items() for p in prompts_of(mask, target, axis)]
    if not given:
        return Segmentation.from_volume(
            phase.volume, np.zeros_like(first.data), score=dict.fromkeys(first.targets, 0.0),
            report=first.report, labels=first.labels,
        )  # fmt: skip
    result = segmenter.segment(
        phase.volume, PromptSet(given), axis=axis, propagate=False, **options
    )
    scores = {target: result.score.get(target, 0.0) for target in first.targets}
    return Segmentation.from_volume(
        phase.volume,
        without_guesses(result.data, given),
        score=scores,
        report=result.report,
        labels=first.labels,
    )


def without_guesses(labels: np.ndarray, strokes: Iterable[Scribble]) -> np.ndarray:
    """Labels without the targets of which nothing came out but the strokes themselves.

    A user's stroke is obeyed; one that the last phase suggested is a guess, and where the network
    found nothing around it the target is gone.
    """
    guessed = np.zeros_like(labels)
    for stroke in strokes:
        guessed[tuple(stroke.voxels.astype(int).T)] = stroke.target
    targets = set(np.unique(guessed[guessed > 0]).tolist())
    gone = [t for t in targets if not ((labels == t) & (guessed != t)).any()]
    return np.where(np.isin(labels, gone), 0, labels).astype(labels.dtype)


def prompts_of(mask: np.ndarray, target: int, axis: int) -> list[Scribble]:
    """A stroke on the middle of every slice of a mask.

    Args:
        mask: (I, J, K) bool.
        target: Whose.
        axis: Of the slices.
    """
    rows, cols = in_plane(axis)
    made: list[Scribble] = []
    for index in np.flatnonzero(mask.any((rows, cols))):
        plane = np.moveaxis(mask, axis, 0)[index]
        depth = ndimage.distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1]
        core = np.argwhere(depth >= CORE * depth.max())
        stroke = np.empty((len(core), 3))
        stroke[:, axis], stroke[:, rows], stroke[:, cols] = index, core[:, 0], core[:, 1]
        made.append(Scribble(stroke, True, target))
    return made
