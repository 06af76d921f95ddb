"""The prompts a simulated user gives in training: boxes, clicks, strokes and masks of a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptseg.backbones.base import PixelPrompts
from promptseg.datasets.simulation import users
from promptseg.datasets.simulation.clicks import largest_component

Mask2D = NDArray[np.bool_]
# Of the strokes on a slender target, how many follow it.
TRACED = 0.7
Prompter = Callable[[Mask2D, np.random.Generator], PixelPrompts]


def mask_logits(mask: Mask2D, rng: np.random.Generator) -> Tensor:
    """(S/2, S/2) logits as a network would have given for this mask."""
    soft = cv2.resize(
        mask.astype(np.float32), (mask.shape[1] // 2,) * 2, interpolation=cv2.INTER_AREA
    )
    if rng.random() < 0.5:
        soft = cv2.GaussianBlur(soft, (0, 0), rng.uniform(0.5, 2.5))
    return torch.from_numpy((soft * 2 - 1) * np.float32(rng.uniform(2, 12)))


def box_prompt(target: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """Tight or loose box, now and then with a click."""
    loose = rng.uniform(0, 0.2) if rng.random() < 0.3 else 0.0
    box = users.jittered_box(target, rng, float(rng.uniform(0, 0.1)), loose)
    if rng.random() < 0.12:
        point = torch.from_numpy(users.inner_click(target, rng))
        return PixelPrompts(point, torch.ones(1, dtype=torch.long), torch.from_numpy(box))
    return PixelPrompts(box=torch.from_numpy(box))


def click_prompt(target: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """One click, central or anywhere inside."""
    centred = rng.random() < 0.4
    point = users.centre_click(target) if centred else users.inner_click(target, rng)
    return PixelPrompts(torch.from_numpy(point), torch.ones(1, dtype=torch.long))


def clicks_prompt(target: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """Two to six foreground clicks and up to three in the background."""
    inside = [users.inner_click(target, rng) for _ in range(int(rng.integers(2, 7)))]
    near = background_near(target)
    outside = [users.inner_click(near, rng) for _ in range(int(rng.integers(0, 4)) * near.any())]
    labels = torch.tensor([1] * len(inside) + [0] * len(outside))
    return PixelPrompts(torch.from_numpy(np.concatenate(inside + outside)), labels)


def background_near(target: Mask2D) -> Mask2D:
    """Background within about a tenth of the crop of the target."""
    reach = max(3, target.shape[0] // 10) | 1
    return (cv2.dilate(target.astype(np.uint8), np.ones((reach, reach))) > 0) & ~target


def margin_prompt(target: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """Interior margin points, half of the time with the box around them."""
    inset = rng.uniform(1, 4) * max(1.0, target.shape[0] / 128)
    points = torch.from_numpy(users.margin_points(target, rng, inset))
    box = torch.cat([points.min(0).values, points.max(0).values]) if rng.random() < 0.5 else None
    return PixelPrompts(points, torch.ones(len(points), dtype=torch.long), box)


def scribble_prompt(target: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """One or two strokes inside, often one outside; what is slender is mostly traced."""
    if users.is_slender(target) and rng.random() < TRACED:
        return traced_prompt(target, rng)
    inside = users.scribble(target, rng)
    if rng.random() < 0.4:
        inside |= users.scribble(target, rng)
    near = background_near(target) if rng.random() < 0.5 else ~target
    drawn = rng.random() < 0.7 and near.any()
    outside = users.scribble(near, rng) if drawn else np.zeros_like(target)
    return PixelPrompts(scribbles=torch.from_numpy(np.stack([inside, outside])).float())


def traced_prompt(target: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """Strokes along a slender target, up to four strokes outside."""
    inside = users.traced(target, rng)
    outside = np.zeros_like(target)
    far = ~(target | inside)
    for _ in range(int(rng.integers(0, 5)) * far.any()):
        outside |= users.line_scribble(far, rng, int(rng.integers(1, 4)))
    return PixelPrompts(scribbles=torch.from_numpy(np.stack([inside, outside])).float())


def rough_prompt(target: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """A rough mask, sometimes already corrected by a click on its largest error."""
    rough = users.rough_mask(target, rng)
    error = largest_component(rough != target) if rng.random() < 0.5 else np.zeros_like(target)
    if not error.any():
        return PixelPrompts(mask=mask_logits(rough, rng))
    point = users.inner_click(error, rng)
    missed = int(target[int(point[0, 1]), int(point[0, 0])])
    return PixelPrompts(torch.from_numpy(point), torch.tensor([missed]),
                        mask=mask_logits(rough, rng))  # fmt: skip


def neighbour_prompt(neighbour: Mask2D, rng: np.random.Generator) -> PixelPrompts:
    """The mask of a neighbouring slice, exact or as a network would have drawn it."""
    mask = users.rough_mask(neighbour, rng) if rng.random() < 0.4 else neighbour
    return PixelPrompts(mask=mask_logits(mask, rng))


KINDS: tuple[tuple[float, Prompter], ...] = (
    (0.37, box_prompt),
    (0.22, click_prompt),
    (0.08, clicks_prompt),
    (0.08, margin_prompt),
    (0.12, scribble_prompt),
    (0.13, rough_prompt),
)


# Of vessels: nobody draws the margin of a tree, most trace it.
TRACING: tuple[tuple[float, Prompter], ...] = (
    (0.25, box_prompt),
    (0.1, click_prompt),
    (0.15, clicks_prompt),
    (0.35, scribble_prompt),
    (0.15, rough_prompt),
)


OUTLINING: tuple[tuple[float, Prompter], ...] = (
    (0.6, box_prompt),
    (0.15, margin_prompt),
    (0.25, rough_prompt),
)


def sample_prompts(
    target: Mask2D,
    neighbour: Mask2D | None,
    count: int,
    rng: np.random.Generator,
    kinds: Sequence[tuple[float, Prompter]] = KINDS,
) -> tuple[list[PixelPrompts], list[bool]]:
    """`count` independent interactions; an absent target can only come from a neighbour.

    Args:
        target: (S, S) bool.
        neighbour: (S, S) bool, the target on a slice beside, None in a 2D image.
        count: Number of interactions.
        rng: Draws them.
        kinds: Chances, which sum to 1, and builders; `OUTLINING` are those that show the outline.
    """
    prompts, ambiguous = [], []
    for _ in range(count):
        carried = neighbour is not None and neighbour.any()
        if carried and (not target.any() or rng.random() < 0.25):
            prompts.append(neighbour_prompt(neighbour, rng))  # type: ignore[arg-type]
            ambiguous.append(False)
            continue
        build = kinds[rng.choice(len(kinds), p=[weight for weight, _ in kinds])][1]
        prompts.append(build(target, rng))
        ambiguous.append(build is click_prompt)
    return prompts, ambiguous
