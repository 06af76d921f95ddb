"""Which part of the slices the network sees: the region of interest of a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from promptseg.inference.decoder import Request, SliceDecoder, SliceMask
from promptseg.inference.encoder import SliceEncoder
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.volume.slicing import Frame, Region, in_plane

View = TypeVar("View")
Found = TypeVar("Found")


@dataclass(frozen=True)
class CropFactors:
    """Side of what the network sees over that of the target's box, of files that say none.

    A model or an adapter that was trained with one factor stores it (`crop_factor` of its
    configuration or of promptseg.json), and is then shown that everywhere: in training, at every
    prompt, without one. These differ by what measured best with weights that were made before.

    Args:
        trained: What training views are cut with, and prompts of a network without an adapter.
        adapted: With an adapter: a network that was taught its organ knows what lies around it,
            and does better where it sees more of that.
        unprompted: Around a target that was found without a prompt.
        margin_points: Around margin points in 3D.
        other_planes: Along the other two axes, where the target's extent is known.
    """

    trained: float = 1.7
    adapted: float = 2.4
    unprompted: float = 1.7
    margin_points: float = 1.7
    other_planes: float = 1.3


CROP = CropFactors()
LEAST_VOXELS = 24
ZOOMS = (1.0, 0.5, 0.25)


def whole_slice(encoder: SliceEncoder, axis: int) -> Region:
    """The whole slice."""
    rows, cols = in_plane(axis)
    shape = encoder.data.shape
    return Region((0, shape[rows]), (0, shape[cols]))


def crop_factor(encoder: SliceEncoder) -> float:
    """Side of a view over that of the box of a prompt."""
    return stored_or(encoder, CROP.adapted if encoder.adapter else CROP.trained)


def stored_or(encoder: SliceEncoder, usual: float) -> float:
    """The factor that the model or the adapter was trained with, else the usual one for a use."""
    return usual if encoder.crop_factor is None else encoder.crop_factor


def frame_of(encoder: SliceEncoder, axis: int, region: Region, spacing: Sequence[float]) -> Frame:
    """Frame of a region at the network's input size."""
    shape = tuple(int(side) for side in encoder.data.shape)
    size = encoder.backbone.spec.input_size
    return Frame(axis, region, shape, tuple(spacing), size)  # type: ignore[arg-type]


def squared(region: Region, axis: int, spacing: Sequence[float], factor: float) -> Region:
    """Grow a region by `factor` to a square in millimetres, of at least `LEAST_VOXELS`."""
    rows, cols = in_plane(axis)
    millimetres = np.array([spacing[rows], spacing[cols]])
    sides = np.array(region.shape) * millimetres
    side = max(float(sides.max()) * factor, LEAST_VOXELS * float(millimetres.min()))
    voxels = np.maximum(np.round(side / millimetres), 2).astype(int)
    middle = np.array([sum(region.rows) / 2, sum(region.cols) / 2])
    low = np.round(middle - voxels / 2).astype(int)
    return Region((low[0], low[0] + voxels[0]), (low[1], low[1] + voxels[1]))


def mask_extent(mask: SliceMask, frame: Frame, threshold: float = 0.0) -> Region | None:
    """In-plane region around a mask; None if it is empty."""
    inside = torch.nonzero(frame.restore(mask.logits[None])[0] > threshold)
    if not len(inside):
        return None
    low, high = inside.min(0).values.tolist(), inside.max(0).values.tolist()
    row, col = frame.region.rows[0], frame.region.cols[0]
    return Region((low[0] + row, high[0] + row + 1), (low[1] + col, high[1] + col + 1))


def touches_edge(mask: SliceMask, frame: Frame, room: float = 0.0) -> bool:
    """True if a mask reaches a side of the region where the image goes on.

    Args:
        mask: In the frame.
        frame: The view of the region.
        room: Share of a side of the region, at least a voxel, that counts as its edge.
    """
    extent = mask_extent(mask, frame)
    if extent is None:
        return False
    rows, cols = in_plane(frame.axis)
    sides = (
        (extent.rows, frame.region.rows, frame.shape[rows]),
        (extent.cols, frame.region.cols, frame.shape[cols]),
    )

    def reached(inner: tuple[int, int], outer: tuple[int, int], count: int) -> bool:
        edge = max(1.0, room * (outer[1] - outer[0]))
        low = inner[0] <= outer[0] + edge and outer[0] > 0
        return low or (inner[1] >= outer[1] - edge and outer[1] < count)

    return any(reached(*side) for side in sides)


def widened(
    view: View,
    answer: Callable[[View, bool], Found | None],
    wider: Callable[[View], View],
    times: int,
) -> Found:
    """What is answered in the first of ever wider views that holds all of the target.

    Args:
        view: The first.
        answer: In a view; None if it should be wider. True says that it is the last, whose answer
            is taken as it is.
        wider: The next view.
        times: How often it may be widened.
    """
    for _ in range(times):
        if (found := answer(view, False)) is not None:
            return found
        view = wider(view)
    last = answer(view, True)
    if last is None:
        raise ValueError("the last view must be answered")
    return last


def choose_region(
    decoder: SliceDecoder,
    axis: int,
    spacing: Sequence[float],
    prompted: dict[int, SlicePrompts],
) -> Region:
    """Region of interest of one target from its prompted slices.

    A network trained on whole slices gets the whole slice. A box or a mask says how large the
    target is, and so does the guess at what a lone click means (`inference.multimask`). Clicks
    and strokes do not: the first prompted slice is answered at several zooms and the most trusted
    answer that fits into its view decides.

    Args:
        decoder: Answers the trial views.
        axis: Slice axis.
        spacing: (3,) mm.
        prompted: Prompts by slice, at least one of which starts a propagation.
    """
    encoder = decoder.encoder
    whole = whole_slice(encoder, axis)
    if not encoder.backbone.spec.crop:
        return whole
    extents = [e for e in (p.extent(axis) for p in prompted.values()) if e is not None]
    region = extents[0]
    for extent in extents[1:]:
        region = region.union(extent)
    margin = crop_factor(encoder)
    sized = (known for p in prompted.values() for known in (p.box, p.mask, p.guess))
    if any(known is not None for known in sized):
        return squared(region, axis, spacing, margin)
    index, prompts = next((i, p) for i, p in prompted.items() if p.starts)
    found = zoom_search(decoder, axis, spacing, index, prompts)
    return squared(region.union(found) if found else region, axis, spacing, margin)


def zoom_search(
    decoder: SliceDecoder, axis: int, spacing: Sequence[float], index: int, prompts: SlicePrompts
) -> Region | None:
    """Extent of the most trusted answer over views of several sizes around the prompts."""
    encoder = decoder.encoder
    centre = prompts.extent(axis)
    if centre is None:
        return None
    whole = squared(whole_slice(encoder, axis), axis, spacing, 1.0)
    best: tuple[float, Region] | None = None
    for zoom in ZOOMS:
        view = zoomed(whole, centre, axis, spacing, zoom)
        frame = frame_of(encoder, axis, view, spacing)
        pixels = prompts.to_pixels(frame, index, encoder.backbone.spec.mask_size)
        answer = decoder.decode(frame, [Request(index, pixels, prompts.ambiguous)])[0]
        extent = mask_extent(answer, frame)
        if extent is None:
            continue
        trust = answer.quality - 0.3 * touches_edge(answer, frame)
        if best is None or trust > best[0]:
            best = trust, extent
    return None if best is None else best[1]


def zoomed(
    whole: Region, centre: Region, axis: int, spacing: Sequence[float], zoom: float
) -> Region:
    """A square view of `zoom` times the slice around `centre`, never smaller than it."""
    if zoom >= 1:
        return whole
    rows = round(sum(centre.rows) / 2), round(sum(centre.rows) / 2) + 1
    cols = round(sum(centre.cols) / 2), round(sum(centre.cols) / 2) + 1
    side = whole.shape[0] * zoom
    view = Region(rows, cols).grow(round(side / 2))
    view = replace(view, cols=scaled(cols, whole.shape[1] * zoom))
    return squared(view.union(centre), axis, spacing, 1.0)


def scaled(bounds: tuple[int, int], side: float) -> tuple[int, int]:
    """Bounds of length `side` about the middle of `bounds`."""
    middle = sum(bounds) / 2
    return round(middle - side / 2), round(middle + side / 2)


def group_regions(
    regions: dict[int, Region], factor: float = 1.5
) -> list[tuple[Region, list[int]]]:
    """Targets that can share one view: those whose union is hardly larger than the largest."""
    groups: list[tuple[Region, list[int]]] = []
    for target, region in sorted(regions.items(), key=lambda item: -max(item[1].shape)):
        for n, (held, targets) in enumerate(groups):
            union = held.union(region)
            ratio = max(u / r for u, r in zip(union.shape, region.shape, strict=True))
            if ratio <= factor:
                groups[n] = union, [*targets, target]
                break
        else:
            groups.append((region, [target]))
    return groups
