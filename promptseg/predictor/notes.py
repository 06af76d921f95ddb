"""What a user should hear about an answer that is no error: empty, doubtful or ambiguous."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from promptseg.io.image import label_values
from promptseg.predictor.rings import notes_on_rings
from promptseg.prompts.types import Box, PromptSet
from promptseg.volume import Segmentation, Volume
from promptseg.volume.intensity import Window

_FORMS_APART_MM = 1.0


def notes_on(
    volume: Volume,
    given: PromptSet,
    result: Segmentation,
    adapter: str | None = None,
    window: Window | None = None,
    trained_on: str | None = None,
    other_view: str | None = None,
) -> list[str]:
    """Sentences for the report and for stderr, one each.

    Args:
        volume: As the file stores it.
        given: Prompts as the user gave them.
        result: The answer, with its report.
        adapter: Name of an adapter that does not say which orientation it was trained in.
        window: Grey values that were shown.
        trained_on: Modality of the adapter in use.
        other_view: Name of an adapter that has taught another coarse 3D view than is in use.
    """
    resolved = given.to_voxel(volume)
    return [
        *_on_image(volume),
        *_on_grey_levels(volume, window, trained_on),
        *_on_frames(volume, given),
        *_on_boxes(resolved),
        *notes_on_rings(resolved, result),
        *_on_targets(result, result.report.get("text", ())),
        *_on_size(result.report.get("larger_than_trained", {})),
        *_on_adapter(adapter),
        *_on_view(other_view),
    ]


def _on_view(adapter: str | None) -> Iterator[str]:
    if adapter is not None:
        yield (
            f"adapter {adapter} has taught an earlier coarse 3D view: today's is used as it ships; "
            "train the adapter again with --three-d"
        )


def _on_image(volume: Volume) -> Iterator[str]:
    lowest = volume.data.min()
    if lowest == volume.data.max():
        yield f"every voxel of the image is {lowest:g}: there is nothing to be seen in it"


def _on_grey_levels(volume: Volume, window: Window | None, trained_on: str | None) -> Iterator[str]:
    """What was left out of the image, and a modality that the adapter does not know."""
    levels = volume.levels
    yield from levels.notes
    if window is not None and window.note:
        yield window.note
    if trained_on is not None and levels.belief != "unsure" and trained_on != levels.modality:
        yield f"the adapter was trained on {trained_on}, this image was taken for {levels.modality}"


def _on_frames(volume: Volume, given: PromptSet) -> Iterator[str]:
    """A file that says in two ways where it lies, while prompts say where in the world."""
    if all(getattr(prompt, "frame", "voxel") == "voxel" for prompt in given):
        return
    from promptseg.io.nifti import forms_apart

    apart = forms_apart(volume.header, volume.shape, volume.affine)
    if apart > _FORMS_APART_MM:
        yield (
            f"the file's qform and sform lie {apart:.1f} mm apart: millimetres are taken by the "
            "sform; check that the target is where it should be"
        )


def _on_boxes(resolved: PromptSet) -> Iterator[str]:
    boxes: dict[tuple[Any, ...], list[int]] = {}
    for box in resolved:
        if not isinstance(box, Box):
            continue
        targets = boxes.setdefault((box.lo, box.hi), [])
        if box.target not in targets:
            targets.append(box.target)
    for (lo, hi), targets in boxes.items():
        named = " and ".join(str(target) for target in targets)
        if np.prod(np.subtract(hi, lo)) == 1:
            yield f"the box of target {named} is the single voxel {tuple(map(int, lo))}"
        if len(targets) > 1:
            yield (
                f"targets {named} have the same box: each voxel goes to the one the network is "
                "surer of"
            )


def _on_targets(result: Segmentation, told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    reasons = {one["target"]: one["reason"] for one in told if one.get("reason")}
    filled = set(label_values(result.data))
    for target in result.targets:
        if target not in filled:
            why = reasons.get(target, "nothing was found where its prompts point; give a box "
                              "around it, a click inside it or another window")  # fmt: skip
            yield f"target {target} came out empty: {why}"


def _on_size(larger: Mapping[int, tuple[float, float]]) -> Iterator[str]:
    for target, (area, known) in sorted(larger.items()):
        yield (
            f"target {target} has a cross-section of {area:g} cm², the largest in training was "
            f"{known:g}: check that it is not something else"
        )


def _on_adapter(adapter: str | None) -> Iterator[str]:
    if adapter is not None:
        yield (
            f"the adapter {adapter} does not say which orientation it was trained in, RAS is "
            'assumed: if its training files were stored otherwise, add "orientation": "LPS", or '
            "as they were, to its promptseg.json"
        )
