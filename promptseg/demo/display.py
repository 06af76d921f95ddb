"""Slices as pictures for the page: grey image, masks, doubt, prompts."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageChops, ImageColor, ImageDraw
from PIL.ImageFilter import BoxBlur

from promptseg.prompts.types import Box, Point, PromptSet, Scribble
from promptseg.report.visualization import planes
from promptseg.report.visualization.planes import Plane
from promptseg.volume import Volume
from promptseg.volume.slicing import take_slice

LONGEST = 880
DOUBT_COLOUR = (255, 176, 46)
_LINE = 1.5
_SMOOTH = 0.4
_RIDGE = [min(255, round(3 * min(value, 255 - value))) for value in range(256)]
_DOT = 9
_DASH = 7


def plane_of(volume: Volume, axis: int, longest: int = LONGEST) -> Plane:
    """Lay out whole slices along a voxel axis at the size of the page."""
    return planes.plane_of(volume, axis, longest)


def draw_slice(
    data: np.ndarray,
    plane: Plane,
    index: int,
    limits: tuple[float, float],
    labels: np.ndarray | None = None,
    colours: Mapping[int, str] | None = None,
    opacity: float = 0.35,
    doubt: np.ndarray | None = None,
    prompts: PromptSet | None = None,
    outlined: np.ndarray | None = None,
) -> Image.Image:
    """Draw one slice with masks, uncertainty and prompts.

    Args:
        data: (I, J, K) image.
        plane: Layout.
        index: Slice along its axis.
        limits: Grey values shown black and white.
        labels: (rows, columns) labels of this slice.
        colours: `#rrggbb` by label.
        opacity: Of the masks in [0, 1]; outlines are always opaque.
        doubt: (rows, columns) uncertainty in [0, 1].
        prompts: In voxels; those on this slice are drawn.
        outlined: (rows, columns) labels of which a dashed outline alone is drawn.
    """
    grey = take_slice(data, plane.axis, index).astype(np.float32)
    span = max(limits[1] - limits[0], 1e-6)
    levels = (np.clip((grey - limits[0]) / span, 0, 1) * 255).astype(np.uint8)
    canvas = _enlarged(levels, plane, Image.Resampling.BICUBIC).convert("RGB")
    if doubt is not None and doubt.any():
        weight = _enlarged((np.clip(doubt, 0, 1) * 200).astype(np.uint8), plane)
        canvas.paste(DOUBT_COLOUR, (0, 0), weight)
    for target, colour in (colours or {}).items():
        painted = ImageColor.getrgb(colour)[:3]
        if labels is not None:
            _draw_mask(canvas, labels == target, plane, painted, opacity)
        if outlined is not None:
            _draw_outline(canvas, outlined == target, plane, painted)
    for prompt in prompts or ():
        _draw_prompt(canvas, prompt, plane, index)
    return canvas


def data_url(picture: Image.Image) -> str:
    """A picture as text that an `<img>` takes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _enlarged(
    levels: np.ndarray, plane: Plane, how: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(plane.turned(levels))).resize(plane.size, how)


def _draw_mask(
    canvas: Image.Image, mask: np.ndarray, plane: Plane, colour: tuple[int, ...], opacity: float
) -> None:
    if not mask.any():
        return
    inside = _smooth(mask, plane)
    outline = inside.filter(BoxBlur(_LINE)).point(_RIDGE)
    weight = inside.point([round(value * opacity) for value in range(256)])
    canvas.paste(tuple(colour), (0, 0), ImageChops.lighter(weight, outline))


def _draw_outline(
    canvas: Image.Image, mask: np.ndarray, plane: Plane, colour: tuple[int, ...]
) -> None:
    """Dashes along the edge; they are where squares of a chessboard meet it."""
    if not mask.any():
        return
    outline = _smooth(mask, plane).filter(BoxBlur(_LINE)).point(_RIDGE)
    y, x = np.indices(canvas.size[::-1]) // _DASH
    dashes = Image.fromarray(((x + y) % 2 * 255).astype(np.uint8))
    canvas.paste(tuple(colour), (0, 0), ImageChops.darker(outline, dashes))


def _smooth(mask: np.ndarray, plane: Plane) -> Image.Image:
    """A mask at the size of the page, 255 inside, without the steps of its voxels."""
    pixels = min(plane.size[n] / plane.sides[n] for n in range(2))
    smooth = _enlarged(mask.astype(np.uint8) * 255, plane).filter(BoxBlur(_SMOOTH * pixels))
    return smooth.point([255 if value > 127 else 0 for value in range(256)])


def _draw_prompt(canvas: Image.Image, prompt: object, plane: Plane, index: int) -> None:
    draw = ImageDraw.Draw(canvas)
    if isinstance(prompt, Point) and round(prompt.at[plane.axis]) == index:
        _draw_dot(draw, *plane.place(prompt.at), prompt.positive)
    elif isinstance(prompt, Box) and prompt.lo[plane.axis] <= index < prompt.hi[plane.axis]:
        corners = [plane.place([value - 0.5 for value in c]) for c in (prompt.lo, prompt.hi)]
        (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(*corners, strict=True))
        draw.rectangle((x0, y0, x1, y1), outline=(0, 0, 0), width=4)
        draw.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline=(255, 255, 255), width=2)
    elif isinstance(prompt, Scribble):
        colour = (90, 220, 110) if prompt.positive else (240, 80, 80)
        for voxel in prompt.voxels[prompt.voxels[:, plane.axis] == index]:
            x, y = plane.place(voxel)
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), colour)


def _draw_dot(draw: ImageDraw.ImageDraw, x: float, y: float, positive: bool) -> None:
    colour = (46, 160, 67) if positive else (208, 52, 52)
    draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), colour, (255, 255, 255), 2)
    draw.line((x - 4, y, x + 4, y), (255, 255, 255), 2)
    if positive:
        draw.line((x, y - 4, x, y + 4), (255, 255, 255), 2)
