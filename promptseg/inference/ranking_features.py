"""What tells a mask that a click means from one that it does not: numbers for a ranking.

Every mask is described by what the network says of it, by its shape and its edge in the image, by
where the click lies in it, and by how many of the other views drew the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from promptseg.inference.crop import squared, touches_edge, whole_slice
from promptseg.inference.decoder import SliceMask
from promptseg.inference.encoder import SliceEncoder
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.volume.slicing import Frame, take_slice

Mask2D = NDArray[np.bool_]
Grey = NDArray[np.float32]

CANDIDATES = 3
SAID = ("view_quality", "own_quality", "below_best", "view_sees", "stability", "cut",
        "log_side", "filled", "log_filled", "log_area", "first", "second", "third")  # fmt: skip
SHAPED = ("holds_click", "click_depth", "click_offset", "compactness", "parts", "largest_part",
          "clicked_part", "thickness", "box_over_area")  # fmt: skip
EDGED = ("signed_contrast", "contrast", "edge_over_view", "edge", "inside_over_edge",
         "spread_inside", "mean_inside", "unlike_click", "spread_beside")  # fmt: skip
SURE = ("mean_logit", "doubtful", "logit_at_click")
AGREED = ("mean", "most", "wider", "nearer", "with_best", "alike_views", "share", "log_share")
FEATURES = (*SAID, *SHAPED, *EDGED, *SURE, *AGREED)

# Band around the outline in which inside and outside are compared, in pixels of the mask.
RIM, NEAR = 7, 3
EIGHT = np.ones((3, 3))
BAND = 1.0
ALIKE = 0.8
# Masks are compared with each other on at most so many pixels a side.
COMPARED = 384
TINY = 0.02


@dataclass(frozen=True, eq=False)
class Seen:
    """One view of the slice, and what it shows around the click.

    Args:
        grey: (m, m) in [0, 1].
        gradient: (m, m) its steepness.
        shown: Rows and columns that the image fills.
        row: Of the click.
        col: Of the click.
        zoom: Side of the view over that of the whole slice.
    """

    grey: Grey
    gradient: Grey
    shown: tuple[int, int]
    row: int
    col: int
    zoom: float


def candidate_features(
    encoder: SliceEncoder,
    frames: Sequence[Frame],
    index: int,
    click: SlicePrompts,
    logits: Tensor,
    quality: Tensor,
    planes: NDArray[np.bool_],
) -> Grey:
    """(V * M, F) numbers of `FEATURES` of M candidates in V views.

    Args:
        encoder: Of the volume.
        frames: The V views, from the whole slice to the nearest.
        index: Slice number.
        click: A single click.
        logits: (V, M, m, m).
        quality: (V, M) predicted IoU.
        planes: (V * M, H, W) the same masks on the whole slice.
    """
    own = []
    for frame, masks, told in zip(frames, logits, quality, strict=True):
        seen = seen_in(encoder, frame, index, click, masks.shape[-1])
        values = told.tolist()
        sees = bool((masks[int(told.argmax())] > 0).any())
        for n, mask in enumerate(masks):
            own.append(
                [
                    *said(frame, seen, mask, values, n, sees),
                    *shaped(mask.numpy() > 0, seen.row, seen.col),
                    *edged(mask.numpy() > 0, seen),
                    *sure(mask.numpy(), seen),
                ]
            )
    best = [int(told.argmax()) for told in quality]
    return np.concatenate([np.array(own, np.float32), agreement(planes, best)], 1)


def seen_in(
    encoder: SliceEncoder, frame: Frame, index: int, click: SlicePrompts, side: int
) -> Seen:
    """What a view shows, at `side` pixels."""
    grey = frame.project(take_slice(encoder.data, frame.axis, index), side).numpy()
    steep = np.hypot(*(ndimage.sobel(grey, side, mode="mirror") for side in (0, 1)))
    x, y = click.to_pixels(frame, index, side).points[0].tolist()
    col, row = (int(np.clip(v * side / frame.size, 0, side - 1)) for v in (x, y))
    high, wide = (round(length * side / frame.size) for length in frame.valid)
    whole = squared(whole_slice(encoder, frame.axis), frame.axis, frame.spacing, 1.0)
    zoom = max(frame.region.shape) / max(whole.shape)
    return Seen(grey, np.asarray(steep, np.float32), (high, wide), row, col, zoom)


def said(
    frame: Frame, seen: Seen, mask: Tensor, told: Sequence[float], n: int, sees: bool
) -> list[float]:
    """What the network says, and how large the mask is."""
    area = int((mask > 0).sum())
    shown, best = max(1, seen.shown[0] * seen.shown[1]), max(told)
    share = area / mask.numel() * seen.zoom**2
    return [
        best, told[n], told[n] - best, float(sees), stability(mask),
        float(area > 0 and touches_edge(SliceMask(mask, 0.0), frame)), float(np.log2(seen.zoom)),
        area / shown, np.log(max(area, 1) / shown) / 3,
        np.log(max(share, seen.zoom**2 / mask.numel())) / 3,
        *(float(n == k) for k in range(CANDIDATES)),
    ]  # fmt: skip


def stability(logits: Tensor) -> float:
    """Overlap of the masks at a higher and at a lower threshold, in [0, 1].

    The stability score of SAM (Kirillov et al., ICCV 2023).
    """
    lower = int((logits > -BAND).sum())
    return int((logits > BAND).sum()) / lower if lower else 0.0


def shaped(inside: Mask2D, row: int, col: int) -> list[float]:
    """The shape of a mask, and where the click lies in it."""
    area = int(inside.sum())
    if not area:
        return [0.0] * len(SHAPED)
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    outline = int((inside & ~eroded(inside, NEAR)).sum())
    parts, count = ndimage.label(inside, EIGHT)
    areas = np.bincount(parts.ravel())
    clicked = int(parts[row, col])
    rows, cols = np.nonzero(inside)
    deepest = float(depth.max())
    return [
        float(inside[row, col]),
        float(depth[row, col]) / max(deepest, 1e-3),
        float(np.hypot(row - rows.mean(), col - cols.mean())) / area**0.5,
        2 * np.pi * area / max(1, outline) ** 2,
        min(count, 8) / 8,
        float(areas[1:].max()) / area,
        float(areas[clicked]) / area if clicked else 0.0,
        deepest / area**0.5,
        float((np.ptp(rows) + 1) * (np.ptp(cols) + 1)) / area / 4,
    ]


def eroded(inside: Mask2D, side: int) -> Mask2D:
    """What a square of `side` pixels leaves of a mask; the border of the view takes nothing off."""
    return np.asarray(ndimage.minimum_filter(inside, side, mode="nearest"), np.bool_)


def edged(inside: Mask2D, seen: Seen) -> list[float]:
    """What the image shows inside, outside and along the outline, where there is one."""
    if inside.all() or not inside.any():
        return [0.0] * len(EDGED)
    high, wide = seen.shown
    edge = inside & ~eroded(inside, NEAR)
    within = seen.grey[inside & ~eroded(inside, RIM)]
    rim = ~inside & ~eroded(~inside, RIM)
    rim[high:], rim[:, wide:] = False, False
    beside = seen.grey[rim] if rim.any() else within
    core, steep = seen.grey[inside], float(seen.gradient[edge].mean())
    apart = float(within.mean() - beside.mean()) / float(within.std() + beside.std() + TINY)
    return [
        apart, abs(apart), steep / (float(seen.gradient[:high, :wide].mean()) + 0.01), steep * 5,
        float(seen.gradient[inside].mean()) / (steep + 0.01), float(core.std()) * 4,
        float(core.mean()),
        abs(float(core.mean()) - float(seen.grey[seen.row, seen.col])) / (float(core.std()) + TINY),
        float(beside.std()) * 4,
    ]  # fmt: skip


def sure(logits: Grey, seen: Seen) -> list[float]:
    """How sure the network is of its pixels."""
    inside = logits > 0
    if not inside.any():
        return [0.0] * len(SURE)
    doubtful = float((np.abs(logits) < BAND).sum()) / float(inside.sum())
    return [float(logits[inside].mean()) / 5, doubtful, float(logits[seen.row, seen.col]) / 5]


def agreement(planes: NDArray[np.bool_], best: Sequence[int]) -> Grey:
    """(V * M, 8) how far every mask is what the other views drew, and its share of the slice.

    Args:
        planes: (V * M, H, W) bool, view by view.
        best: By view, the candidate of the greatest predicted quality.
    """
    views = len(best)
    each = len(planes) // views
    stride = -(-max(planes.shape[1:]) // COMPARED)
    flat = planes[:, ::stride, ::stride].reshape(len(planes), -1).astype(np.float32)
    areas = flat.sum(1)
    both = 2 * (flat @ flat.T) / np.maximum(areas[:, None] + areas, 1)
    likest = both.reshape(len(planes), views, each)
    found = np.zeros((len(planes), len(AGREED)), np.float32)
    for n in range(len(planes)):
        own = n // each
        others = np.array([likest[n, v].max() for v in range(views) if v != own])
        chosen = sum(float(likest[n, v, best[v]]) for v in range(views) if v != own)
        if len(others):
            found[n, :2] = others.mean(), others.max()
            found[n, 4:6] = chosen / len(others), (others > ALIKE).mean()
        found[n, 2] = likest[n, own - 1].max() if own else 0.0
        found[n, 3] = likest[n, own + 1].max() if own + 1 < views else 0.0
        found[n, 6] = areas[n] / flat.shape[1]
        found[n, 7] = np.log(max(areas[n], 1) / flat.shape[1]) / 3
    return found
