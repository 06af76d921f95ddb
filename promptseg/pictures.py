"""Contact sheets: mask contours over slices, as one PNG."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from promptseg.errors import FormatError, VolumeError
from promptseg.intensity import choose_window, normalise
from promptseg.io.atomic import atomic_path
from promptseg.prompts import Box, Point, Prompt, PromptSet
from promptseg.volume import Segmentation, Volume, anatomical_axes, spacing_of

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
_PAPER, _INK, _FAINT = (20, 21, 24), (232, 233, 236), (150, 153, 160)
_SUPERSAMPLED, _GAP, _CAPTION, _LINE = 3, 8, 22, 24
_FILL = 0.25
_AXIS_LETTERS = "ijk"


@dataclass(frozen=True)
class _View:
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


def overlay_figure(
    volume: Volume,
    segmentation: Segmentation,
    path: str | os.PathLike[str],
    *,
    axis: int | None = None,
    window: str = "auto",
    reference: np.ndarray | None = None,
    prompts: Iterable[Prompt] = (),
    title: str = "",
    count: int = 12,
    columns: int = 4,
    tile: int = 250,
) -> None:
    """Draw mask contours over evenly spaced slices, cropped around the targets.

    Args:
        volume: Image.
        segmentation: Labels on its grid.
        path: PNG to write.
        axis: Voxel axis of the slices; None takes the one in the segmentation's report, else
            the one with the largest spacing.
        window: As in `choose_window`.
        reference: (I, J, K) known mask, drawn as a second outline.
        prompts: Boxes and points, drawn on their slices.
        title: Text above the slices.
        count: Slices at most.
        columns: Tiles in a row.
        tile: Longer side of a tile in pixels.

    Raises:
        VolumeError: The grids differ.
        FormatError: The file cannot be written.
    """
    if segmentation.data.shape != volume.shape:
        raise VolumeError(f"labels have shape {segmentation.data.shape}, image {volume.shape}")
    if reference is not None and reference.shape != volume.shape:
        raise VolumeError(f"known mask has shape {reference.shape}, image {volume.shape}")
    axis = _default_axis(segmentation) if axis is None else axis
    marked = segmentation.data != 0 if reference is None else (segmentation.data + reference) != 0
    given = PromptSet(prompts).to_voxel(volume)
    view = _view(volume, marked, axis, tile)
    shown = normalise(volume.data, choose_window(volume, window))
    tiles = [
        _captioned(_tile(view, index, shown, segmentation, reference, given), view, index)
        for index in _indices(marked, given, axis, count)
    ]
    legend = _legend(segmentation, reference is not None, bool(given))
    _save(_sheet(tiles, columns, title, legend), Path(path))


def _default_axis(segmentation: Segmentation) -> int:
    recorded = segmentation.report.get("axis")
    return int(np.argmax(spacing_of(segmentation.affine))) if recorded is None else int(recorded)


def _view(volume: Volume, marked: np.ndarray, axis: int, tile: int) -> _View:
    right, anterior, superior = anatomical_axes(volume.affine)
    across = anterior if axis == right else right
    down = anterior if axis == superior else superior
    low, high = zip(*(_extent(volume, marked, other) for other in (across, down)), strict=True)
    millimetres = (np.array(high) - low) * volume.spacing[[across, down]]
    width, height = np.maximum(1, np.rint(millimetres * tile / millimetres.max())).astype(int)
    world = {right: 0, anterior: 1, superior: 2}
    flips = [bool(volume.affine[world[other], other] > 0) for other in (across, down)]
    return _View(axis, across, down, (flips[0], flips[1]), low, high, (int(width), int(height)))


def _extent(volume: Volume, marked: np.ndarray, axis: int) -> tuple[int, int]:
    """Range to show along one axis: the marked voxels and as much again around them."""
    others = tuple(other for other in range(3) if other != axis)
    found = np.flatnonzero(marked.any(axis=others))
    if not len(found):
        return 0, volume.shape[axis]
    margin = max(0.6 * np.ptp(found), 30.0 / volume.spacing[axis])
    low, high = int(found[0] - margin), int(found[-1] + 1 + margin)
    return max(0, low), min(volume.shape[axis], high)


def _indices(marked: np.ndarray, prompts: PromptSet, axis: int, count: int) -> list[int]:
    """Slices to show: evenly over the marked ones, the prompted ones among them."""
    others = tuple(other for other in range(3) if other != axis)
    found = np.flatnonzero(marked.any(axis=others))
    if not len(found):
        found = np.arange(marked.shape[axis])
    count = min(count, len(found))
    shares = (np.arange(count) + 0.5) / count
    even = np.unique(np.floor(found[0] + shares * (np.ptp(found) + 1)).astype(int))
    for prompt in prompts:
        index = _slice_of(prompt, axis)
        if index is not None:
            even[np.abs(even - index).argmin()] = index
    return sorted({int(index) for index in even})


def _slice_of(prompt: Prompt, axis: int) -> int | None:
    if isinstance(prompt, Point):
        return round(prompt.at[axis])
    if isinstance(prompt, Box) and prompt.hi[axis] - prompt.lo[axis] == 1:
        return int(prompt.lo[axis])
    return None


def _tile(
    view: _View,
    index: int,
    shown: np.ndarray,
    segmentation: Segmentation,
    reference: np.ndarray | None,
    prompts: PromptSet,
) -> Image.Image:
    size = (view.size[0] * _SUPERSAMPLED, view.size[1] * _SUPERSAMPLED)
    grey = Image.fromarray(np.uint8(255 * view.plane(shown, index)))
    canvas = grey.resize(size, Image.Resampling.BICUBIC).convert("RGB")
    if reference is not None:
        _outline(canvas, _mask(view.plane(reference, index) != 0, size), KNOWN, 0)
    for order, target in enumerate(segmentation.targets):
        mask = _mask(view.plane(segmentation.data, index) == target, size)
        _outline(canvas, mask, PALETTE[order % len(PALETTE)], _FILL)
    for prompt in prompts:
        if _slice_of(prompt, view.axis) == index:
            _draw_prompt(canvas, view, prompt)
    return canvas.resize(view.size, Image.Resampling.BOX)


def _mask(plane: np.ndarray, size: tuple[int, int]) -> Image.Image:
    small = Image.fromarray(np.uint8(plane) * 255)
    smooth = small.resize(size, Image.Resampling.BILINEAR)
    return smooth.point([255 if value > 127 else 0 for value in range(256)])


def _outline(canvas: Image.Image, mask: Image.Image, colour: Colour, fill: float) -> None:
    blurred = mask.filter(ImageFilter.BoxBlur(1.3 * _SUPERSAMPLED))
    inner = blurred.point([255 if value == 255 else 0 for value in range(256)])
    edge = ImageChops.subtract(mask, inner)
    weight = mask.point([round(value * fill) for value in range(256)])
    canvas.paste(colour, (0, 0), ImageChops.lighter(weight, edge))


def _draw_prompt(canvas: Image.Image, view: _View, prompt: Prompt) -> None:
    draw = ImageDraw.Draw(canvas)
    if isinstance(prompt, Box):
        first = view.pixel([value - 0.5 for value in prompt.lo], _SUPERSAMPLED)
        last = view.pixel([value - 0.5 for value in prompt.hi], _SUPERSAMPLED)
        xs, ys = sorted((first[0], last[0])), sorted((first[1], last[1]))
        draw.rectangle((xs[0], ys[0], xs[1], ys[1]), outline=PROMPT, width=_SUPERSAMPLED)
    elif isinstance(prompt, Point):
        x, y = view.pixel(prompt.at, _SUPERSAMPLED)
        r = 4 * _SUPERSAMPLED
        colour = (90, 220, 110) if prompt.positive else (240, 80, 80)
        draw.ellipse((x - r, y - r, x + r, y + r), colour, PROMPT, _SUPERSAMPLED)


def _captioned(image: Image.Image, view: _View, index: int) -> Image.Image:
    tile = Image.new("RGB", (image.width, image.height + _CAPTION), _PAPER)
    tile.paste(image, (0, 0))
    text = f"{_AXIS_LETTERS[view.axis]} = {index}"
    ImageDraw.Draw(tile).text((2, image.height + 3), text, _FAINT, _font(13))
    return tile


def _legend(segmentation: Segmentation, known: bool, prompted: bool) -> list[tuple[Colour, str]]:
    entries = [
        (
            PALETTE[order % len(PALETTE)],
            f"{segmentation.labels.get(target, f'target {target}')}, "
            f"{segmentation.volume_ml(target):.0f} ml",
        )
        for order, target in enumerate(segmentation.targets)
    ]
    entries += [(KNOWN, "known mask")] if known else []
    return entries + ([(PROMPT, "prompt")] if prompted else [])


def _sheet(
    tiles: list[Image.Image], columns: int, title: str, legend: list[tuple[Colour, str]]
) -> Image.Image:
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    across, down = tiles[0].width + _GAP, tiles[0].height + _GAP
    width = columns * across + _GAP
    header = _header(width, title, legend)
    sheet = Image.new("RGB", (width, rows * down + header.height), _PAPER)
    sheet.paste(header, (0, 0))
    for order, tile in enumerate(tiles):
        place = (_GAP + order % columns * across, header.height + order // columns * down)
        sheet.paste(tile, place)
    return sheet


def _header(width: int, title: str, legend: list[tuple[Colour, str]]) -> Image.Image:
    """Title and legend, in as many lines as they need."""
    font = _font(15)
    x, y = _GAP + 2 + (int(font.getlength(title)) + 36 if title else 0), 11
    places = []
    for _, text in legend:
        needed = int(font.getlength(text)) + 44
        if x + needed > width and x > _GAP + 2:
            x, y = _GAP + 2, y + _LINE
        places.append((x, y))
        x += needed
    image = Image.new("RGB", (width, y + _LINE + 7), _PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((_GAP + 2, 11), title, _INK, font)
    for (x, y), (colour, text) in zip(places, legend, strict=True):
        draw.rounded_rectangle((x, y + 2, x + 14, y + 16), 3, colour)
        draw.text((x + 21, y), text, _INK, font)
    return image


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _save(sheet: Image.Image, path: Path) -> None:
    try:
        with atomic_path(path) as temporary:
            sheet.save(temporary, format="PNG")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error
