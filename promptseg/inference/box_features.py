"""What tells how much of what a network half believes in a box is meant: numbers for a ranking.

A mask is described as one of a click is (`inference.ranking_features`), and by how it lies in its
box: a user's box is tight or a little loose, so that a mask that leaves room on one side, or runs
out of it, is told from one that fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptseg.inference.decoder import SliceMask
from promptseg.inference.encoder import SliceEncoder
from promptseg.inference.ranking_features import (
    EDGED,
    SAID,
    SHAPED,
    SURE,
    Mask2D,
    edged,
    said,
    seen_in,
    shaped,
    sure,
)
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.volume.slicing import Frame

OWN_SAID = SAID[:-3]
BOXED = ("box_overlap", "most_over", "over", "room", "most_room", "outside", "least_filled",
         "most_filled", "box_filled", "log_aspect", "log_box")  # fmt: skip
ASKED = ("presence", "level", "factor", "tighter", "spared", "deep")
BESIDE = ("mean_overlap", "least_overlap", "most_overlap", "mean_growth", "least_growth",
          "most_growth", "own_growth")  # fmt: skip
FEATURES = (*OWN_SAID, *SHAPED, *EDGED, *SURE, *BOXED, *ASKED, *BESIDE)
LEVEL_SCALE = 3.0


@dataclass(frozen=True, eq=False)
class BoxView:
    """What one view of a box gave.

    Args:
        frame: The view.
        factor: Its side over that of the box.
        mask: The answer.
        tighter: True if the box was taken for as large as what was found in it.
        spared: True if it was taken for one with room on all sides.
    """

    frame: Frame
    factor: float
    mask: SliceMask
    tighter: bool = False
    spared: bool = False


def features_of(
    encoder: SliceEncoder,
    views: Sequence[BoxView],
    levels: Sequence[float],
    index: int,
    box: tuple[tuple[float, ...], tuple[float, ...]],
    planes: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """(V * L, F) numbers of `FEATURES` of the masks at L levels in V views.

    Args:
        encoder: Of the volume.
        views: The V views.
        levels: Logits from which on a pixel is inside; one of them is 0.
        index: Slice number.
        box: Half-open corners in voxels.
        planes: (V * L, H, W) the masks on the whole slice, view by view.
    """
    lo, hi = box
    axis = views[0].frame.axis
    deep = float(hi[axis] - lo[axis] > 1)
    middle = tuple((low + high - 1) / 2 for low, high in zip(lo, hi, strict=True))
    centre = SlicePrompts([middle], [1], [False])
    rows = []
    for view in views:
        side = view.mask.logits.shape[-1]
        seen = seen_in(encoder, view.frame, index, centre, side)
        x0, y0, x1, y1 = view.frame.box_to_pixels(lo, hi) * side / view.frame.size
        sees = bool((view.mask.logits > 0).any())
        for level in levels:
            logits = view.mask.logits - level
            inside = logits.numpy() > 0
            rows.append(
                [
                    *said(view.frame, seen, logits, [view.mask.quality], 0, sees)[: len(OWN_SAID)],
                    *shaped(inside, seen.row, seen.col),
                    *edged(inside, seen),
                    *sure(logits.numpy(), seen),
                    *in_box(inside, (y0, x0, y1, x1)),
                    view.mask.presence,
                    level / LEVEL_SCALE,
                    view.factor,
                    float(view.tighter),
                    float(view.spared),
                    deep,
                ]
            )
    told = beside(planes, len(views), list(levels).index(0.0))
    return np.concatenate([np.array(rows, np.float32), told], 1)


def in_box(inside: Mask2D, box: tuple[float, float, float, float]) -> list[float]:
    """How a mask lies in a box.

    Args:
        inside: (m, m).
        box: First row and column, and the row and column behind the last.
    """
    high, wide = max(box[2] - box[0], 1e-3), max(box[3] - box[1], 1e-3)
    shape = [abs(float(np.log(high / wide))), float(np.log(high * wide)) / 10]
    if not inside.any():
        return [0.0] * (len(BOXED) - len(shape)) + shape
    rows, cols = np.nonzero(inside)
    own = (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)
    both = [max(0.0, min(own[n + 2], box[n + 2]) - max(own[n], box[n])) for n in (0, 1)]
    shared = both[0] * both[1]
    whole = (own[2] - own[0]) * (own[3] - own[1]) + high * wide - shared
    room = sorted(
        [(own[0] - box[0]) / high, (box[2] - own[2]) / high,
         (own[1] - box[1]) / wide, (box[3] - own[3]) / wide]
    )  # fmt: skip
    centres = [np.arange(side) + 0.5 for side in inside.shape]
    held = [(c > box[n]) & (c < box[n + 2]) for n, c in enumerate(centres)]
    boxed = held[0][:, None] & held[1][None]
    taken = inside & boxed
    area, offered = int(inside.sum()), max(1, int(boxed.sum()))
    filled = sorted(
        float(np.any(taken, axis=1 - n)[h].mean()) if h.any() else 0.0 for n, h in enumerate(held)
    )
    return [shared / whole, *room, float((inside & ~boxed).sum()) / area, *filled,
            float(taken.sum()) / offered, *shape]  # fmt: skip


def beside(planes: NDArray[np.bool_], views: int, plain: int) -> NDArray[np.float32]:
    """(V * L, 7) overlap with the masks at level 0 of all V views, and log of the growth from them.

    Args:
        planes: (V * L, H, W), view by view.
        views: V.
        plain: Place of level 0.
    """
    flat = planes.reshape(len(planes), -1).astype(np.float32)
    own = np.arange(len(planes)) // (len(planes) // views) * (len(planes) // views) + plain
    areas = np.maximum(flat.sum(1), 1)
    at = np.unique(own)
    overlap = 2 * (flat @ flat[at].T) / (areas[:, None] + areas[at])
    growth = np.log(areas)[:, None] - np.log(areas[at])
    told = [part for each in (overlap, growth) for part in (each.mean(1), each.min(1), each.max(1))]
    return np.stack([*told, np.log(areas) - np.log(areas[own])], 1).astype(np.float32)
