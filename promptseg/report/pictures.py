"""Pictures of the quality report: flagged slices, an overview, area curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from promptseg.prompts.types import Prompt, PromptSet
from promptseg.report.visualization.planes import Plane, marked_slices, plane_of
from promptseg.report.visualization.tiles import PALETTE, draw_tile
from promptseg.volume import Segmentation, Volume
from promptseg.volume.intensity import choose_window, normalise

_QUALITY = 88
_WIDTH, _HEIGHT, _LEFT, _BELOW = 640.0, 120.0, 46.0, 18.0


@dataclass(frozen=True)
class Drawing:
    """What slices are drawn with.

    Args:
        result: Labels.
        shown: (I, J, K) grey values in [0, 1].
        plane: Layout of the slices.
        prompts: In voxels.
    """

    result: Segmentation
    shown: np.ndarray
    plane: Plane
    prompts: Sequence[Prompt] | PromptSet

    @classmethod
    def of(
        cls,
        volume: Volume,
        result: Segmentation,
        axis: int,
        window: str,
        prompts: Iterable[Prompt],
        longest: int = 340,
    ) -> Drawing:
        """Lay out slices along an axis, cropped around the targets."""
        marked = np.logical_or.reduce([result.mask(t) for t in result.targets] or [result.data > 0])
        plane = plane_of(volume, axis, longest, marked)
        shown = normalise(volume.data, choose_window(volume, window))
        return cls(result, shown, plane, PromptSet(prompts).to_voxel(volume))

    def slice(self, index: int) -> str:
        """One slice as a data URL."""
        tile = draw_tile(self.plane, index, self.shown, self.result, None, self.prompts)
        return data_url(tile)

    def overview(self, count: int = 12) -> list[tuple[int, str]]:
        """Evenly spaced slices through the targets, with their indices."""
        found = marked_slices(self.result.data != 0, self.plane.axis)
        if not len(found):
            return []
        shares = (np.arange(min(count, len(found))) + 0.5) / min(count, len(found))
        indices = sorted({int(i) for i in found[0] + shares * (np.ptp(found) + 1)})
        return [(index, self.slice(index)) for index in indices]


def data_url(image: Image.Image) -> str:
    """A picture inside the page itself."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY, optimize=True, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def colour_of(result: Segmentation, target: int) -> str:
    """The colour that a target is drawn in, for CSS."""
    red, green, blue = PALETTE[result.targets.index(target) % len(PALETTE)]
    return f"rgb({red},{green},{blue})"


def curve_svg(areas: Sequence[tuple[int, float]], flagged: Iterable[int], colour: str) -> str:
    """Area by slice as a drawing, with flagged slices marked.

    Args:
        areas: (slice, mm2), at least one.
        flagged: Slices to mark.
        colour: Of the curve.
    """
    first, last = areas[0][0], areas[-1][0]
    top = _round_up(max(area for _, area in areas) / 100.0)
    right, floor = _WIDTH - 8, _HEIGHT - _BELOW

    def place(index: float, area: float) -> tuple[float, float]:
        share = (index - first) / max(1, last - first)
        return _LEFT + share * (right - _LEFT), floor - area / 100.0 / top * (floor - 8)

    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(i, area) for i, area in areas))
    start, end = place(first, 0)[0], place(last, 0)[0]
    by_slice = dict(areas)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" class="mark"><title>{index}</title></circle>'
        for index in sorted(set(flagged) & set(by_slice))
        for x, y in [place(index, by_slice[index])]
    )
    lines = "".join(
        f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in (0, top / 2, top)
        for y in [place(first, value * 100)[1]]
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" class="curve" role="img">{lines}'
        f'<text x="{_LEFT}" y="{_HEIGHT - 3}">{first}</text>'
        f'<text x="{right}" y="{_HEIGHT - 3}" text-anchor="end">{last}</text>'
        f'<polygon points="{start:.1f},{floor} {points} {end:.1f},{floor}" fill="{colour}" '
        f'fill-opacity="0.25"/><polyline points="{points}" fill="none" stroke="{colour}" '
        f'stroke-width="2"/>{marks}</svg>'
    )


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is no smaller."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.999))
