"""Strokes as points, for networks that know points only."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from promptseg.backbones.base import PromptBatch

POINTS_PER_STROKE = 4


def scribble_points(scribble: Tensor, count: int = POINTS_PER_STROKE) -> tuple[Tensor, Tensor]:
    """Spread points over the positive and the negative stroke.

    Farthest-point sampling (Gonzalez, Theoretical Computer Science 1985) that begins at the
    pixel nearest the stroke's centre: the same stroke always gives the same points.

    Args:
        scribble: (2, S, S) positive and negative strokes in [0, 1]; a pixel belongs to a
            stroke from half the stroke's maximum on.
        count: Points at most for each of the two.

    Returns:
        (N, 2) x, y in pixels, centres at whole numbers plus one half; (N,) 1 or 0.
    """
    parts = [_spread(plane, count) for plane in scribble]
    labels = [torch.full((len(part),), sign) for part, sign in zip(parts, (1, 0), strict=True)]
    return torch.cat(parts), torch.cat(labels).to(scribble.device)


def _spread(plane: Tensor, count: int) -> Tensor:
    top = plane.max()
    if top <= 0:
        return torch.zeros(0, 2, device=plane.device)
    pixels = torch.nonzero(plane >= top / 2).flip(1).float() + 0.5
    chosen = [_distance(pixels, pixels.mean(dim=0)).argmin()]
    nearest = _distance(pixels, pixels[chosen[0]])
    while len(chosen) < min(count, len(pixels)):
        chosen.append(nearest.argmax())
        nearest = torch.minimum(nearest, _distance(pixels, pixels[chosen[-1]]))
    return pixels[torch.stack(chosen)]


def _distance(pixels: Tensor, point: Tensor) -> Tensor:
    return (pixels - point).square().sum(dim=1)


def with_scribble_points(prompts: PromptBatch, count: int = POINTS_PER_STROKE) -> PromptBatch:
    """The same prompts with every stroke replaced by points that follow the row's own."""
    if prompts.scribbles is None:
        return prompts
    drawn = [scribble_points(scribble, count) for scribble in prompts.scribbles]
    longest = max(len(points) for points, _ in drawn)
    points = prompts.points.new_zeros(len(prompts), longest, 2)
    labels = prompts.labels.new_full((len(prompts), longest), -1)
    for row, (added, signs) in enumerate(drawn):
        points[row, : len(added)], labels[row, : len(signs)] = added.to(points), signs.to(labels)
    return dataclasses.replace(
        prompts,
        points=torch.cat([prompts.points, points], dim=1),
        labels=torch.cat([prompts.labels, labels], dim=1),
        scribbles=None,
    )
