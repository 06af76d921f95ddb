"""Sheets of pictures: mask contours over slices, for files and for notebooks."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from promptseg.errors import FormatError, VolumeError
from promptseg.io.atomic import atomic_path
from promptseg.prompts.types import Prompt, PromptSet
from promptseg.report.visualization.planes import Plane, marked_slices, plane_of
from promptseg.report.visualization.tiles import (
    INSIDE,
    KNOWN,
    OUTSIDE,
    PALETTE,
    PROMPT,
    Colour,
    draw_tile,
    slice_of,
)
from promptseg.volume import Segmentation, Volume, anatomical_axes, spacing_of
from promptseg.volume.intensity import choose_window, normalise
from promptseg.volume.slicing import in_plane, resolve_axis

__all__ = [
    "INSIDE",
    "KNOWN",
    "OUTSIDE",
    "PALETTE",
    "PROMPT",
    "Sheet",
    "overlay",
    "overlay_figure",
    "side_by_side",
    "three_views",
]

_PAPER, _INK, _FAINT = (20, 21, 24), (232, 233, 236), (170, 173, 180)
_GAP, _CAPTION, _LINE = 8, 24, 24
_AXIS_LETTERS = "ijk"
_DIRECTIONS = ("sagittal", "coronal", "axial")

Entry = tuple[Colour, str]


@dataclass(frozen=True, eq=False)
class Sheet:
    """A picture that notebooks show and that can be saved.

    Args:
        image: As pillow holds it.
    """

    image: Image.Image

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG.

        Raises:
            FormatError: The file cannot be written.
        """
        try:
            with atomic_path(path) as temporary:
                self.image.save(temporary, format="PNG")
        except OSError as error:
            raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG", optimize=True)
        return buffer.getvalue()


def overlay_figure(
    volume: Volume, segmentation: Segmentation, path: str | os.PathLike[str], **options: Any
) -> None:
    """Write what `overlay` draws as a PNG.

    Args:
        volume: Image.
        segmentation: Labels on its grid.
        path: PNG to write.
        options: As in `overlay`.

    Raises:
        VolumeError: The grids differ.
        FormatError: The file cannot be written.
    """
    overlay(volume, segmentation, **options).save(path)


def overlay(
    volume: Volume,
    segmentation: Segmentation,
    *,
    axis: int | str | None = None,
    window: str = "auto",
    reference: np.ndarray | None = None,
    prompts: Iterable[Prompt] = (),
    title: str = "",
    count: int = 12,
    columns: int = 4,
    tile: int = 250,
) -> Sheet:
    """Draw mask contours over evenly spaced slices, cropped around the targets.

    Args:
        volume: Image.
        segmentation: Labels on its grid.
        axis: Axis of the slices; None takes the one in the segmentation's report, else the one
            with the largest spacing.
        window: As in `choose_window`.
        reference: (I, J, K) known mask, drawn as a second outline.
        prompts: Boxes, points and scribbles, drawn on their slices.
        title: Text above the slices.
        count: Slices at most.
        columns: Tiles in a row.
        tile: Longer side of a tile in pixels.

    Raises:
        VolumeError: The grids differ.
    """
    _check_grids(volume, [segmentation], reference)
    marked = _marked(segmentation, reference)
    axis = _axis(volume, axis, [segmentation])
    given = PromptSet(prompts).to_voxel(volume)
    plane = plane_of(volume, axis, tile, marked)
    shown = normalise(volume.data, choose_window(volume, window))
    tiles = [
        _captioned(
            draw_tile(plane, index, shown, segmentation, reference, given),
            f"{_AXIS_LETTERS[axis]} = {index}",
        )
        for index in _indices(marked, given, axis, count)
    ]
    legend = [
        (colour, f"{name}, {segmentation.volume_ml(target):.0f} ml")
        for colour, name, target in _targets(segmentation)
    ]
    return Sheet(_sheet(tiles, columns, title, legend + _others(reference, bool(given))))


def side_by_side(
    volume: Volume,
    answers: Mapping[str, Segmentation | None],
    *,
    prompts: Mapping[str, Iterable[Prompt]] | None = None,
    axis: int | str | None = None,
    index: int | None = None,
    window: str = "auto",
    reference: np.ndarray | None = None,
    around: np.ndarray | None = None,
    title: str = "",
    columns: int = 3,
    tile: int = 300,
) -> Sheet:
    """Draw several answers on the same slice, each with its prompts.

    Args:
        volume: Image.
        answers: Labels on its grid by caption; None shows the slice alone.
        prompts: Prompts to draw, by the same captions.
        axis: Axis of the slice; None takes the one in the first answer's report, else the one
            with the largest spacing.
        index: Which slice; None takes that of the first prompt that lies on one, else the one
            with most of the target.
        window: As in `choose_window`.
        reference: (I, J, K) known mask, drawn as a second outline.
        around: (I, J, K) mask to crop around; None shows the whole slice.
        title: Text above.
        columns: Pictures in a row.
        tile: Longer side of a picture in pixels.

    Raises:
        VolumeError: The grids differ, there is no such slice, or nothing to show.
    """
    if not answers:
        raise VolumeError("there is nothing to show: give at least one answer")
    masks = [answer for answer in answers.values() if answer is not None]
    _check_grids(volume, masks, reference)
    axis = _axis(volume, axis, masks)
    given = {key: PromptSet(some).to_voxel(volume) for key, some in (prompts or {}).items()}
    drawn = [prompt for some in given.values() for prompt in some]
    place = _index(volume, axis, index, drawn, masks, reference)
    marked = None if around is None else np.asarray(around) != 0
    plane = plane_of(volume, axis, tile, marked)
    shown = normalise(volume.data, choose_window(volume, window))
    tiles = [
        _captioned(draw_tile(plane, place, shown, answer, reference, given.get(key, ())), key, _INK)
        for key, answer in answers.items()
    ]
    named = [mask for mask in masks if len(mask.targets) > 1 or mask.labels][:1]
    legend = [(colour, name) for mask in named for colour, name, _ in _targets(mask)]
    return Sheet(_sheet(tiles, columns, title, legend + _others(reference, False)))


def three_views(
    volume: Volume,
    segmentation: Segmentation,
    *,
    at: Sequence[int] | None = None,
    window: str = "auto",
    reference: np.ndarray | None = None,
    title: str = "",
    tile: int = 300,
) -> Sheet:
    """Draw an axial, a coronal and a sagittal slice through one voxel, cropped alike.

    Args:
        volume: Image.
        segmentation: Labels on its grid.
        at: (i, j, k); None takes the middle of the mask.
        window: As in `choose_window`.
        reference: (I, J, K) known mask, drawn as a second outline.
        title: Text above.
        tile: Longer side of a picture in pixels.

    Raises:
        VolumeError: The grids differ or `at` lies outside.
    """
    _check_grids(volume, [segmentation], reference)
    marked = _marked(segmentation, reference)
    shown = normalise(volume.data, choose_window(volume, window))
    found = segmentation.data != 0
    order = [anatomical_axes(volume.affine)[world] for world in (2, 1, 0)]
    longest = max(_longest(plane_of(volume, axis, tile, marked), volume) for axis in order)
    tiles, captions = [], []
    for axis, name in zip(order, reversed(_DIRECTIONS), strict=True):
        wanted = _middle(found if found.any() else marked, axis) if at is None else at[axis]
        place = _index(volume, axis, wanted, [], [], None)
        share = _longest(plane_of(volume, axis, tile, marked), volume) / longest
        plane = plane_of(volume, axis, max(1, round(tile * share)), marked)
        tiles.append(draw_tile(plane, place, shown, segmentation, reference))
        captions.append(f"{name}, {_AXIS_LETTERS[axis]} = {place}")
    height = max(picture.height for picture in tiles)
    tiles = [
        _captioned(_centred(picture, height), text)
        for picture, text in zip(tiles, captions, strict=True)
    ]
    legend = [(colour, name) for colour, name, _ in _targets(segmentation)]
    return Sheet(_sheet(tiles, 3, title, legend + _others(reference, False)))


def _check_grids(
    volume: Volume, masks: Iterable[Segmentation], reference: np.ndarray | None
) -> None:
    for mask in masks:
        if mask.data.shape != volume.shape:
            raise VolumeError(f"labels have shape {mask.data.shape}, image {volume.shape}")
    if reference is not None and reference.shape != volume.shape:
        raise VolumeError(f"known mask has shape {reference.shape}, image {volume.shape}")


def _marked(segmentation: Segmentation, reference: np.ndarray | None) -> np.ndarray:
    found = segmentation.data != 0
    return found if reference is None else found | (reference != 0)


def _axis(volume: Volume, axis: int | str | None, masks: Sequence[Segmentation]) -> int:
    if axis is not None:
        return resolve_axis(axis, volume.affine)
    recorded = [mask.report["axis"] for mask in masks if "axis" in mask.report]
    return int(recorded[0]) if recorded else int(np.argmax(spacing_of(volume.affine)))


def _index(
    volume: Volume,
    axis: int,
    index: int | None,
    prompts: Iterable[Prompt],
    masks: Iterable[Segmentation],
    reference: np.ndarray | None,
) -> int:
    if index is not None:
        if not 0 <= index < volume.shape[axis]:
            raise VolumeError(f"slice {index}: valid 0 to {volume.shape[axis] - 1}")
        return int(index)
    prompted = [place for prompt in prompts if (place := slice_of(prompt, axis)) is not None]
    if prompted:
        return prompted[0]
    seen = [mask.data != 0 for mask in masks] + ([reference != 0] if reference is not None else [])
    areas = sum((mask.sum(in_plane(axis)) for mask in seen), np.zeros(volume.shape[axis]))
    return int(np.argmax(areas)) if areas.any() else volume.shape[axis] // 2


def _longest(plane: Plane, volume: Volume) -> float:
    """Millimetres along the longer side of a picture."""
    return float(np.multiply(plane.sides, volume.spacing[[plane.across, plane.down]]).max())


def _centred(image: Image.Image, height: int) -> Image.Image:
    canvas = Image.new("RGB", (image.width, height))
    canvas.paste(image, (0, (height - image.height) // 2))
    return canvas


def _middle(marked: np.ndarray, axis: int) -> int:
    found = marked_slices(marked, axis)
    return int(np.median(found)) if len(found) else marked.shape[axis] // 2


def _indices(marked: np.ndarray, prompts: PromptSet, axis: int, count: int) -> list[int]:
    """Slices to show: evenly over the marked ones, the prompted ones among them."""
    found = marked_slices(marked, axis)
    if not len(found):
        found = np.arange(marked.shape[axis])
    count = min(count, len(found))
    shares = (np.arange(count) + 0.5) / count
    even = np.unique(np.floor(found[0] + shares * (np.ptp(found) + 1)).astype(int))
    for prompt in prompts:
        index = slice_of(prompt, axis)
        if index is not None:
            even[np.abs(even - index).argmin()] = index
    return sorted({int(index) for index in even})


def _targets(segmentation: Segmentation) -> list[tuple[Colour, str, int]]:
    return [
        (PALETTE[order % len(PALETTE)], segmentation.labels.get(target, f"target {target}"), target)
        for order, target in enumerate(segmentation.targets)
    ]


def _others(reference: np.ndarray | None, prompted: bool) -> list[Entry]:
    known: list[Entry] = [] if reference is None else [(KNOWN, "known mask")]
    return known + ([(PROMPT, "prompt")] if prompted else [])


def _captioned(image: Image.Image, text: str, colour: Colour = _FAINT) -> Image.Image:
    tile = Image.new("RGB", (image.width, image.height + _CAPTION), _PAPER)
    tile.paste(image, (0, 0))
    font = _font(13)
    while text and font.getlength(text) > image.width - 2:
        text = text[:-2].rstrip(" …") + "…" if len(text) > 2 else ""
    ImageDraw.Draw(tile).text((2, image.height + 4), text, colour, font)
    return tile


def _sheet(tiles: list[Image.Image], columns: int, title: str, legend: list[Entry]) -> Image.Image:
    columns = min(columns, len(tiles))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    down = max(tile.height for tile in tiles) + _GAP
    width = max(sum(tile.width + _GAP for tile in row) for row in rows) + _GAP
    header = _header(width, title, legend)
    sheet = Image.new("RGB", (width, len(rows) * down + header.height), _PAPER)
    sheet.paste(header, (0, 0))
    for number, row in enumerate(rows):
        x = _GAP
        for tile in row:
            sheet.paste(tile, (x, header.height + number * down))
            x += tile.width + _GAP
    return sheet


def _header(width: int, title: str, legend: list[Entry]) -> Image.Image:
    """Title and legend, in as many lines as they need."""
    if not title and not legend:
        return Image.new("RGB", (width, _GAP), _PAPER)
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
