"""What slices along the other two axes say of a target that is known on a few slices.

A mask that is carried from slice to slice keeps its size, so a track sees badly where its target
ends. Slices along the other axes cross every known slice in a line of which is known what lies
inside: prompted with these lines, they show how far the target goes along the track.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from promptseg.inference.crop import CROP, frame_of, squared, widened
from promptseg.inference.decoder import Request, SliceDecoder
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.volume.slicing import Frame, Region, in_plane, take_slice

Known = Mapping[int, np.ndarray]
STEP_MM = 5.0
FEWEST, MOST = 6, 24
LEAST_LINE = 3
RIM = 0.15
GROWTH, GROWTHS = 1.6, 2
AGREEMENT = 0.6
LIMIT = 8.0
UNSEEN = -2.0


@dataclass(frozen=True)
class CrossView:
    """Answers on some slices along another axis.

    Args:
        frame: What of these slices is seen.
        indices: (N,) their numbers, ascending.
        logits: (N, h, w) float16 in the voxels of the frame's region.
    """

    frame: Frame
    indices: np.ndarray
    logits: np.ndarray

    def reaches(self, axis: int, index: int) -> bool:
        """True if slice `index` along `axis` is in view."""
        low, high = self._bounds(axis)
        return low <= index < high

    def plane(self, axis: int, index: int) -> np.ndarray:
        """(H, W) logits on a slice that it reaches, `UNSEEN` where it does not look.

        Between two slices of the view the logits are interpolated.
        """
        rows, cols = in_plane(axis)
        plane = np.full((self.frame.shape[rows], self.frame.shape[cols]), UNSEEN, np.float32)
        low, _ = self._bounds(axis)
        across = self._across(axis)
        lines = self.logits[:, index - low] if self._rows(axis) else self.logits[:, :, index - low]
        image = slice(max(0, across[0]), min(self.frame.shape[self._rest(axis)], across[1]))
        inside = lines[:, image.start - across[0] : image.stop - across[0]].astype(np.float32)
        filled = between(inside, self.indices)
        along = slice(int(self.indices[0]), int(self.indices[-1]) + 1)
        turned = self.frame.axis > self._rest(axis)
        place = (image, along) if turned else (along, image)
        plane[place] = filled.T if turned else filled
        return plane

    def _rows(self, axis: int) -> bool:
        return in_plane(self.frame.axis)[0] == axis

    def _rest(self, axis: int) -> int:
        return 3 - axis - self.frame.axis

    def _bounds(self, axis: int) -> tuple[int, int]:
        region = self.frame.region
        return region.rows if self._rows(axis) else region.cols

    def _across(self, axis: int) -> tuple[int, int]:
        region = self.frame.region
        return region.cols if self._rows(axis) else region.rows


@dataclass(frozen=True)
class Crossing:
    """What both other axes say of one target.

    Args:
        axis: The axis of the track.
        views: One or two.
        name: Differs where the known slices differ.
    """

    axis: int
    views: tuple[CrossView, ...]
    name: str

    def planes(self, index: int) -> list[np.ndarray]:
        """(H, W) logits of every view that reaches a slice."""
        return [v.plane(self.axis, index) for v in self.views if v.reaches(self.axis, index)]

    def project(self, frame: Frame, index: int, side: int) -> Tensor | None:
        """(V, side, side) of the same in a frame of the track, None where no view reaches."""
        planes = self.planes(index)
        if not planes:
            return None
        return torch.stack([handed(frame, plane, side) for plane in planes])


def cross(
    decoder: SliceDecoder,
    axis: int,
    spacing: Sequence[float],
    known: Known,
    name: str = "",
    earlier: np.ndarray | None = None,
) -> Crossing | None:
    """Ask the slices along the other two axes.

    Args:
        decoder: Answers them.
        axis: The axis of the known slices.
        spacing: (3,) mm.
        known: (H, W) bool masks by slice, at least one of them not empty.
        name: Of the result.
        earlier: (I, J, K) logits of an earlier answer, handed to the network as well.

    Returns:
        None if the target is too small to be crossed or neither axis finds it again.
    """
    views = [view_along(decoder, other, axis, spacing, known, earlier) for other in in_plane(axis)]
    agreeing = [v for v in views if v is not None and agreement(v, axis, known) >= AGREEMENT]
    return Crossing(axis, tuple(agreeing), name) if agreeing else None


def view_along(
    decoder: SliceDecoder,
    other: int,
    axis: int,
    spacing: Sequence[float],
    known: Known,
    earlier: np.ndarray | None = None,
) -> CrossView | None:
    """Answers along one other axis, in a view that is widened while the target reaches its end."""
    indices = crossed(other, axis, spacing, known)
    if not len(indices):
        return None
    side = decoder.backbone.spec.mask_size

    def fitting(factor: float, last: bool) -> CrossView | None:
        frame = frame_across(decoder, other, axis, spacing, known, factor)
        requests = []
        for i in indices.tolist():
            pixels = line_prompts(other, axis, known, i).to_pixels(frame, i, side)
            if earlier is not None:
                pixels = replace(pixels, mask=handed(frame, take_slice(earlier, other, i), side))
            requests.append(Request(i, pixels))
        masks = decoder.decode(frame, requests)
        logits = frame.restore(torch.stack([m.logits.clamp(-LIMIT, LIMIT) for m in masks]))
        view = CrossView(frame, indices, logits.numpy().astype(np.float16))
        return view if last or not reaches_end(view, axis) else None

    return widened(1.0, fitting, lambda factor: factor * GROWTH, GROWTHS)


def handed(frame: Frame, plane: np.ndarray, side: int) -> Tensor:
    """(side, side) logits of an (H, W) plane of logits."""
    share = (plane.astype(np.float32).clip(-LIMIT, LIMIT) + LIMIT) / (2 * LIMIT)
    return frame.project(share, side) * 2 * LIMIT - LIMIT


def crossed(other: int, axis: int, spacing: Sequence[float], known: Known) -> np.ndarray:
    """Slices along `other` to be asked: evenly spread, without the target's outermost rim."""
    widths = line_widths(other, axis, known)
    usable = np.flatnonzero(widths >= max(LEAST_LINE, RIM * widths.max()))
    if len(usable) < 2:
        return usable[:0]
    low, high = int(usable[0]), int(usable[-1])
    wanted = round((high - low) * spacing[other] / STEP_MM) + 1
    count = min(max(wanted, FEWEST), MOST, high - low + 1)
    spread = np.unique(np.linspace(low, high, count).round().astype(int))
    return spread[np.isin(spread, usable)]


def line_widths(other: int, axis: int, known: Known) -> np.ndarray:
    """Most known voxels inside, on any known slice, by slice along `other`."""
    across = 1 if other == in_plane(axis)[0] else 0
    return np.max([mask.sum(across) for mask in known.values()], axis=0)


def frame_across(
    decoder: SliceDecoder,
    other: int,
    axis: int,
    spacing: Sequence[float],
    known: Known,
    factor: float,
) -> Frame:
    """View of slices along `other`: as wide as the target, and `factor` times as long."""
    rest = 3 - axis - other
    inside = np.flatnonzero(np.any([m.any(m_axis(rest, axis)) for m in known.values()], axis=0))
    across = int(inside[0]), int(inside[-1]) + 1
    filled = [index for index, mask in known.items() if mask.any()]
    half = (across[1] - across[0]) * spacing[rest] / 2 * factor / spacing[axis]
    count = decoder.encoder.data.shape[axis]
    along = max(0, round(min(filled) - half)), min(count, round(max(filled) + 1 + half))
    rows, cols = (along, across) if axis < rest else (across, along)
    region = squared(Region(rows, cols), other, spacing, CROP.other_planes)
    return frame_of(decoder.encoder, other, region, spacing)


def m_axis(kept: int, axis: int) -> int:
    """The axis of a (H, W) mask across `axis` that is not voxel axis `kept`."""
    return 1 if kept == in_plane(axis)[0] else 0


def line_prompts(other: int, axis: int, known: Known, index: int) -> SlicePrompts:
    """Strokes along the lines in which known slices cross slice `index` along `other`.

    Inside the target they are positive, and beside it, as far as a tenth of its width, negative,
    with a gap of one voxel.
    """
    rest = 3 - axis - other
    inside: list[np.ndarray] = []
    outside: list[np.ndarray] = []
    for place, mask in known.items():
        line = mask[index] if other == in_plane(axis)[0] else mask[:, index]
        near = within_reach(np.asarray(mask.any(m_axis(rest, axis))))
        beside = line.copy()
        beside[1:] |= line[:-1]
        beside[:-1] |= line[1:]
        for cells, strokes in ((line, inside), (~beside & near, outside)):
            at = np.flatnonzero(cells)
            if len(at):
                voxels = np.zeros((len(at), 3), int)
                voxels[:, other], voxels[:, axis], voxels[:, rest] = index, place, at
                strokes.append(voxels)
    return SlicePrompts(strokes=(inside, outside))


def within_reach(extent: np.ndarray) -> np.ndarray:
    """(L,) bool: where a target lies along a line, and a tenth of that beyond."""
    filled = np.flatnonzero(extent)
    near = np.zeros(len(extent), bool)
    if len(filled):
        more = max(3, round((filled[-1] - filled[0]) * 0.1))
        near[max(0, filled[0] - more) : filled[-1] + 1 + more] = True
    else:
        near[:] = True
    return near


def reaches_end(view: CrossView, axis: int) -> bool:
    """True if the target reaches an end of the view along `axis` where the image goes on."""
    found = view.logits > 0
    lines = np.asarray(found.any((0, 2) if view._rows(axis) else (0, 1)))
    low, high = view._bounds(axis)
    count = view.frame.shape[axis]
    first, last = max(0, -low), min(high, count) - low - 1
    return bool((lines[first] and low > 0) or (lines[last] and high < count))


def agreement(view: CrossView, axis: int, known: Known) -> float:
    """Dice of a view with what is known, on the slices it looked at."""
    both = total = 0
    for place, mask in known.items():
        if not view.reaches(axis, place):
            continue
        plane = view.plane(axis, place)
        found, truth = plane > 0, mask & (plane != UNSEEN)
        both += int((found & truth).sum())
        total += int(found.sum()) + int(truth.sum())
    return 2 * both / total if total else 0.0


def between(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(L, W) rows interpolated at every whole number from the first to the last position.

    Args:
        values: (N, W).
        positions: (N,) ascending whole numbers.
    """
    if len(positions) == 1:
        return values
    wanted = np.arange(positions[0], positions[-1] + 1)
    after = np.searchsorted(positions, wanted).clip(1, len(positions) - 1)
    share = (wanted - positions[after - 1]) / (positions[after] - positions[after - 1])
    weight = share.astype(np.float32)[:, None]
    return values[after - 1] * (1 - weight) + values[after] * weight
