"""Post-processing of labels by name, off unless asked for: components, holes, margins, algebra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from promptseg.errors import PromptError
from promptseg.refine.postprocessing.body import crop_to_body
from promptseg.refine.postprocessing.boolean import intersect, subtract, union, xor
from promptseg.refine.postprocessing.components import keep, largest
from promptseg.refine.postprocessing.interpolation import interpolate
from promptseg.refine.postprocessing.margins import DIRECTIONS, margin
from promptseg.refine.postprocessing.shape import fill_holes, smooth
from promptseg.refine.postprocessing.steps import (
    Grid,
    Operation,
    Step,
    count,
    not_negative,
    number,
    one_of,
    positive,
    targets,
    unknown,
)
from promptseg.volume import Segmentation, Volume

__all__ = ["OPERATIONS", "Operation", "Step", "check_steps", "postprocess", "will_overlap"]

_CONNECTIVITY = one_of("6", "18", "26")
OPERATIONS: dict[str, Operation] = {
    "largest": Operation(
        largest, "the largest connected component", {"connectivity": _CONNECTIVITY}
    ),
    "keep": Operation(
        keep,
        "the n largest components (n=2), or those of at least min_ml",
        {"n": count, "min_ml": not_negative, "connectivity": _CONNECTIVITY},
    ),
    "fill_holes": Operation(
        fill_holes,
        "cavities become part of the target; axis=axial fills the holes of each slice",
        {"axis": str, "max_ml": not_negative},
    ),
    "smooth": Operation(smooth, "a smoother surface (mm=1), same volume", {"mm": positive}),
    "margin": Operation(
        margin,
        "grow by mm=5 or shrink by mm=-2, or left=, right=, anterior=, posterior=, superior=, "
        "inferior=; barriers not_into=TARGETS, not_above=HU, not_below=HU",
        {
            "mm": number,
            "not_into": targets,
            "not_above": number,
            "not_below": number,
            **dict.fromkeys(DIRECTIONS, number),
        },
        overlaps=True,
    ),
    "crop_to_body": Operation(
        crop_to_body,
        "drop what is outside the body, or nearer to the skin than mm",
        {"mm": not_negative, "threshold": number},
    ),
    "interpolate": Operation(interpolate, "fill the slices between drawn ones", {"axis": str}),
    "union": Operation(union, "1+2+...: in any of them", joins=True, overlaps=True),
    "intersect": Operation(intersect, "1+2+...: in all of them", joins=True, overlaps=True),
    "subtract": Operation(subtract, "1+2+...: in 1 but in no other", joins=True, overlaps=True),
    "xor": Operation(xor, "1+2+...: in an odd number of them", joins=True, overlaps=True),
}
"""Every operation by name; a new one is a function and a line here."""

Masks = dict[int, np.ndarray]


def postprocess(
    result: Segmentation, steps: Iterable[Step | str], volume: Volume | None = None
) -> Segmentation:
    """Change labels in a given order.

    Args:
        result: What to change; it stays as it is.
        steps: Such as `largest`, `keep:2,n=3`, `margin:1,mm=5,to=2,name=CTV,not_above=250` or
            `subtract:1+3`, see `OPERATIONS`. With `to=N` the result becomes target N and may
            share voxels with what it was made from; without, it replaces the (first) target.
            Only margins and Boolean operations enter other targets.
        volume: The image, for steps that look at grey values.

    Returns:
        A new segmentation; `report["postprocessing"]` holds a line for every step.

    Raises:
        PromptError: A step, an option or a target is unknown; nothing was changed.

    Example:
        >>> import numpy as np, promptseg as ps
        >>> data = np.zeros((9, 9, 9), np.uint8); data[4, 4, 4] = 1
        >>> mask = ps.Segmentation(data, np.diag([1, 1, 2, 1]))
        >>> ps.postprocess(mask, ["margin,mm=2"]).mask(1).sum()
        np.int64(15)
    """
    wanted = check_steps(steps)
    if not wanted:
        return result
    masks: Masks = {target: result.mask(target) for target in result.targets}
    names, told = dict(result.labels), []
    for step in wanted:
        grid = Grid(result.affine, dict(masks), volume, result.report.get("axis"))
        told.append(_apply(step, masks, grid))
        if "to" in step.options and step.options.get("name"):
            names[count(step.options["to"])] = str(step.options["name"])
    data, layers = _flattened(masks, result.data)
    report = {**result.report}
    report["postprocessing"] = [*report.get("postprocessing", []), *told]
    score = {**{t: s for t, s in result.score.items() if t in masks}}
    return replace(result, data=data, layers=layers, labels=names, report=report, score=score)


def check_steps(steps: Iterable[Step | str]) -> list[Step]:
    """The steps as objects, with everything checked that needs no mask.

    Raises:
        PromptError: An operation, an option or a value is unknown.
    """
    wanted = [step if isinstance(step, Step) else Step.parse(step) for step in steps]
    for step in wanted:
        if step.name not in OPERATIONS:
            raise PromptError(f"step {step}: {unknown('operation', step.name, OPERATIONS)}")
        operation = OPERATIONS[step.name]
        operation.values(step)
        if operation.joins and len(step.targets) < 2:
            raise PromptError(f"step {step}: name two targets or more, as {step.name}:1+2")
        if "to" in step.options:
            _check_to(step, operation)
        elif "name" in step.options:
            raise PromptError(f"step {step}: name= goes with to=N")
    return wanted


def will_overlap(steps: Sequence[Step]) -> bool:
    """True if a target is made out of another and no later step changes either."""
    for place, step in enumerate(steps):
        made = count(step.options["to"]) if "to" in step.options else None
        if made is None or made in step.targets:
            continue
        later = [one for one in steps[place + 1 :] if _changes(one) & {made, *step.targets}]
        if not later and not any(not one.targets for one in steps[place + 1 :]):
            return True
    return False


def _changes(step: Step) -> set[int]:
    """Targets that a step writes to, of those that it names."""
    if "to" in step.options:
        return {count(step.options["to"])}
    return set(step.targets[:1] if OPERATIONS[step.name].joins else step.targets)


def _check_to(step: Step, operation: Operation) -> None:
    try:
        count(step.options["to"])
    except (TypeError, ValueError) as error:
        raise PromptError(f"step {step}: to is {step.options['to']!r}: {error}") from error
    if not operation.joins and len(step.targets) != 1:
        raise PromptError(f"step {step}: to= takes one target, as {step.name}:1")


def _apply(step: Step, masks: Masks, grid: Grid) -> dict[str, Any]:
    """Run one step on `masks` and say what it did."""
    operation = OPERATIONS[step.name]
    absent = [target for target in step.targets if target not in masks]
    if absent:
        known = ", ".join(map(str, masks)) or "none"
        raise PromptError(f"step {step}: there is no target {absent[0]}; there are: {known}")
    options = operation.values(step)
    groups = [step.targets] if operation.joins else [(t,) for t in step.targets or tuple(masks)]
    changed, remarks = {}, []
    for group in groups:
        made, said = operation.run([grid.masks[t] for t in group], grid, **options)
        place = count(step.options.get("to", group[0]))
        before = grid.masks.get(place)
        if not operation.overlaps and "to" not in step.options:
            made = _yielding(made, grid.masks, place)
        masks[place] = made
        changed[str(place)] = {
            "ml_before": 0.0 if before is None else float(before.sum() * grid.voxel_ml),
            "ml": float(made.sum() * grid.voxel_ml),
        }
        remarks += [f"target {place}: {remark}" for remark in said]
    return {"step": str(step), "targets": changed, "remarks": remarks}


def _yielding(made: np.ndarray, masks: Mapping[int, np.ndarray], target: int) -> np.ndarray:
    """Without voxels that were another target's and not this one's."""
    others = [mask for other, mask in masks.items() if other != target]
    return made & (masks[target] | ~np.logical_or.reduce(others)) if others else made


def _flattened(masks: Masks, before: np.ndarray) -> tuple[np.ndarray, Masks]:
    """One label a voxel, the smaller target on top, and the masks that this does not show."""
    kind = before.dtype if before.dtype.kind == "u" else np.uint16
    data = np.zeros(before.shape, np.promote_types(kind, np.min_scalar_type(max(masks, default=1))))
    for target in sorted(masks, key=lambda t: (-int(masks[t].sum()), t)):
        data[masks[target]] = target
    layers = {t: mask for t, mask in masks.items() if not np.array_equal(data == t, mask)}
    return data, layers
