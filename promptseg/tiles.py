"""One slice as a picture: grey image, mask contours, prompts, turned as radiologists look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from promptseg.prompts import Box, Point, Prompt, PromptSet, Scribble
from promptseg.volume import Segmentation, Volume, anatomical_axes

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


@dataclass(frozen=True)
class View:
    """How one slice is laid out: anterior or superior up, the patient's right on the left.

    Args:
        axis: Voxel axis of the slices.
        across: Voxel axis shown from left to right.
        down: Voxel axis shown from top to bottom.
        flips: True where `across` and `down` run against the voxel index.
        low: First voxel shown along `across` and `down`.
        high: One past the last.
        size: Width and height of a tile in pixels, in the proportions of the body.
    """

    axis: int
    across: int
    down: int
    flips: tuple[bool, bool]
    low: tuple[int, int]
    high: tuple[int, int]
    size: tuple[int, int]

    def plane(self, data: np.ndarray, index: int) -> np.ndarray:
        """(down, across) part of one slice, turned for display."""
        ranges = [slice(None)] * 3
        ranges[self.across] = slice(self.low[0], self.high[0])
        ranges[self.down] = slice(self.low[1], self.high[1])
        plane = np.moveaxis(data[tuple(ranges)], (self.axis, self.down, self.across), (0, 1, 2))
        return plane[index, :: -1 if self.flips[1] else 1, :: -1 if self.flips[0] else 1]

    def pixel(self, voxel: Sequence[float], scale: int) -> tuple[float, float]:
        """x, y of a voxel position on a tile enlarged by `scale`."""
        found = []
        for place, axis in enumerate((self.across, self.down)):
            extent = self.high[place] - self.low[place]
            share = (voxel[axis] + 0.5 - self.low[place]) / extent
            share = 1 - share if self.flips[place] else share
            found.append(share * self.size[place] * scale)
        return found[0], found[1]


def view_of(volume: Volume, marked: np.ndarray | None, axis: int, tile: int) -> View:
    """Lay out the slices along one axis.

    Args:
        volume: Image.
        marked: (I, J, K) bool to crop around; None shows whole slices.
        axis: Voxel axis of the slices.
        tile: Longer side of a tile in pixels.
    """
    right, anterior, superior = anatomical_axes(volume.affine)
    across = anterior if axis == right else right
    down = anterior if axis == superior else superior
    low, high = zip(*(_extent(volume, marked, other) for other in (across, down)), strict=True)
    millimetres = (np.array(high) - low) * volume.spacing[[across, down]]
    width, height = np.maximum(1, np.rint(millimetres * tile / millimetres.max())).astype(int)
    world = {right: 0, anterior: 1, superior: 2}
    flips = [bool(volume.affine[world[other], other] > 0) for other in (across, down)]
    return View(axis, across, down, (flips[0], flips[1]), low, high, (int(width), int(height)))


def marked_slices(marked: np.ndarray, axis: int) -> np.ndarray:
    """Indices along `axis` of the slices that hold a marked voxel."""
    others = tuple(other for other in range(3) if other != axis)
    return np.flatnonzero(marked.any(axis=others))


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
    view: View,
    index: int,
    shown: np.ndarray,
    segmentation: Segmentation | None = None,
    reference: np.ndarray | None = None,
    prompts: Sequence[Prompt] | PromptSet = (),
) -> Image.Image:
    """Draw one slice.

    Args:
        view: Layout.
        index: Slice along the view's axis.
        shown: (I, J, K) grey values in [0, 1].
        segmentation: Filled contours in the colours of its targets.
        reference: (I, J, K) known mask, a bare outline.
        prompts: In voxels; those that lie on this slice are drawn.
    """
    size = (view.size[0] * _SUPERSAMPLED, view.size[1] * _SUPERSAMPLED)
    grey = Image.fromarray((255 * view.plane(shown, index)).astype(np.uint8))
    canvas = grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")
    if reference is not None:
        _outline(canvas, _mask(view.plane(reference, index) != 0, size), KNOWN, 0)
    if segmentation is not None:
        labels = view.plane(segmentation.data, index)
        for order, target in enumerate(segmentation.targets):
            _outline(canvas, _mask(labels == target, size), PALETTE[order % len(PALETTE)], _FILL)
    for prompt in prompts:
        if slice_of(prompt, view.axis) == index:
            _draw_prompt(canvas, view, prompt)
    return canvas.resize(view.size, Image.Resampling.BOX)


def _extent(volume: Volume, marked: np.ndarray | None, axis: int) -> tuple[int, int]:
    """Range to show along one axis: the marked voxels and as much again around them."""
    found = np.array([]) if marked is None else marked_slices(marked, axis)
    if not len(found):
        return 0, volume.shape[axis]
    margin = max(0.6 * np.ptp(found), 30.0 / volume.spacing[axis])
    low, high = int(found[0] - margin), int(found[-1] + 1 + margin)
    return max(0, low), min(volume.shape[axis], high)


def _mask(plane: np.ndarray, size: tuple[int, int]) -> Image.Image:
    small = Image.fromarray(np.where(plane, 255, 0).astype(np.uint8))
    smooth = small.resize(size, Image.Resampling.BILINEAR)
    return smooth.point([255 if value > 127 else 0 for value in range(256)])


def _outline(canvas: Image.Image, mask: Image.Image, colour: Colour, fill: float) -> None:
    blurred = mask.filter(ImageFilter.BoxBlur(1.3 * _SUPERSAMPLED))
    inner = blurred.point([255 if value == 255 else 0 for value in range(256)])
    edge = ImageChops.subtract(mask, inner)
    weight = mask.point([round(value * fill) for value in range(256)])
    canvas.paste(colour, (0, 0), ImageChops.lighter(weight, edge))


def _draw_prompt(canvas: Image.Image, view: View, prompt: Prompt) -> None:
    draw = ImageDraw.Draw(canvas)
    if isinstance(prompt, Box):
        first = view.pixel([value - 0.5 for value in prompt.lo], _SUPERSAMPLED)
        last = view.pixel([value - 0.5 for value in prompt.hi], _SUPERSAMPLED)
        xs, ys = sorted((first[0], last[0])), sorted((first[1], last[1]))
        draw.rectangle((xs[0], ys[0], xs[1], ys[1]), outline=PROMPT, width=_SUPERSAMPLED)
    elif isinstance(prompt, Point):
        _dot(draw, view.pixel(prompt.at, _SUPERSAMPLED), 4 * _SUPERSAMPLED, prompt.positive, PROMPT)
    elif isinstance(prompt, Scribble):
        for voxel in prompt.voxels:
            place = view.pixel(voxel, _SUPERSAMPLED)
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
