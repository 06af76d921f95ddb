"""One slice as a picture: grey image, mask contours, prompts, turned as radiologists look at it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from promptseg.prompts.types import Box, Point, Prompt, PromptSet, Scribble
from promptseg.report.visualization.planes import Plane
from promptseg.volume import Segmentation
from promptseg.volume.slicing import take_slice

Colour = tuple[int, int, int]
PALETTE: tuple[Colour, ...] = (
    (38, 198, 218),
    (255, 112, 67),
    (156, 204, 101),
    (171, 130, 255),
    (255, 202, 40),
    (236, 100, 160),
)
"""Colours of targets, in order; they start again after the last."""

KNOWN: Colour = (255, 214, 90)
PROMPT: Colour = (255, 255, 255)
INSIDE: Colour = (90, 220, 110)
OUTSIDE: Colour = (240, 80, 80)
_SUPERSAMPLED = 3
_FILL = 0.25


def slice_of(prompt: Prompt, axis: int) -> int | None:
    """The slice that a prompt lies on; None if it lies on several or says no place."""
    if isinstance(prompt, Point):
        return round(prompt.at[axis])
    if isinstance(prompt, Box) and prompt.hi[axis] - prompt.lo[axis] == 1:
        return int(prompt.lo[axis])
    if isinstance(prompt, Scribble):
        found = np.unique(np.rint(prompt.voxels[:, axis]))
        return int(found[0]) if len(found) == 1 else None
    return None


def draw_tile(
    plane: Plane,
    index: int,
    shown: np.ndarray,
    segmentation: Segmentation | None = None,
    reference: np.ndarray | None = None,
    prompts: Sequence[Prompt] | PromptSet = (),
) -> Image.Image:
    """Draw one slice.

    Args:
        plane: Layout.
        index: Slice along its axis.
        shown: (I, J, K) grey values in [0, 1].
        segmentation: Filled contours in the colours of its targets; bare ones of those that share
            voxels.
        reference: (I, J, K) known mask, a bare outline.
        prompts: In voxels; those that lie on this slice are drawn.
    """
    size = (plane.size[0] * _SUPERSAMPLED, plane.size[1] * _SUPERSAMPLED)
    turned = partial(_turned, plane, index)
    grey = Image.fromarray((255 * turned(shown)).astype(np.uint8))
    canvas = grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")
    if reference is not None:
        _outline(canvas, _mask(turned(reference) != 0, size), KNOWN, 0)
    if segmentation is not None:
        labels = turned(segmentation.data)
        for order, target in enumerate(segmentation.targets):
            layer = segmentation.layers.get(target)
            mask = labels == target if layer is None else turned(layer)
            fill = _FILL if layer is None else 0.0
            _outline(canvas, _mask(mask, size), PALETTE[order % len(PALETTE)], fill)
    for prompt in prompts:
        if slice_of(prompt, plane.axis) == index:
            _draw_prompt(canvas, plane, prompt)
    return canvas.resize(plane.size, Image.Resampling.BOX)


def _turned(plane: Plane, index: int, data: np.ndarray) -> np.ndarray:
    return plane.turned(take_slice(data, plane.axis, index))


def _mask(flat: np.ndarray, size: tuple[int, int]) -> Image.Image:
    small = Image.fromarray(np.where(flat, 255, 0).astype(np.uint8))
    smooth = small.resize(size, Image.Resampling.BILINEAR)
    return smooth.point([255 if value > 127 else 0 for value in range(256)])


def _outline(canvas: Image.Image, mask: Image.Image, colour: Colour, fill: float) -> None:
    blurred = mask.filter(ImageFilter.BoxBlur(1.3 * _SUPERSAMPLED))
    inner = blurred.point([255 if value == 255 else 0 for value in range(256)])
    edge = ImageChops.subtract(mask, inner)
    weight = mask.point([round(value * fill) for value in range(256)])
    canvas.paste(colour, (0, 0), ImageChops.lighter(weight, edge))


def _draw_prompt(canvas: Image.Image, plane: Plane, prompt: Prompt) -> None:
    draw = ImageDraw.Draw(canvas)
    if isinstance(prompt, Box):
        first = plane.place([value - 0.5 for value in prompt.lo], _SUPERSAMPLED)
        last = plane.place([value - 0.5 for value in prompt.hi], _SUPERSAMPLED)
        xs, ys = sorted((first[0], last[0])), sorted((first[1], last[1]))
        draw.rectangle((xs[0], ys[0], xs[1], ys[1]), outline=PROMPT, width=_SUPERSAMPLED)
    elif isinstance(prompt, Point):
        _dot(
            draw, plane.place(prompt.at, _SUPERSAMPLED), 4 * _SUPERSAMPLED, prompt.positive, PROMPT
        )
    elif isinstance(prompt, Scribble):
        for voxel in prompt.voxels:
            place = plane.place(voxel, _SUPERSAMPLED)
            _dot(draw, place, 1.5 * _SUPERSAMPLED, prompt.positive, None)


def _dot(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    radius: float,
    positive: bool,
    rim: Colour | None,
) -> None:
    x, y = centre
    around = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(around, INSIDE if positive else OUTSIDE, rim, _SUPERSAMPLED if rim else 0)
