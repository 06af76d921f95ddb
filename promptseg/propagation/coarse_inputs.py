"""What the coarse 3D view is told: channels of a cubic view."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from promptseg.refine.geodesic import geodesic_distance

Mask = NDArray[np.bool_]
Field = NDArray[np.float32]

CHANNELS = 15
# A slice the user prompted is trusted; one that a network answered on its own less so.
PROMPTED, ANSWERED = 1.0, 0.5
NARROW, WIDE = 1.5, 8.0
LOGIT_SCALE = 4.0
# How far along the slice axis a prompted slice is felt, in elements of the view.
FELT = 12.0
STEP_COST = 0.03
_FAR = np.float32(1e3)


@dataclass
class CoarseHints:
    """Everything known of one target, in the elements of a view (D, H, W).

    Args:
        image: (D, H, W) grey values in [0, 1].
        inside: (D, H, W) bool, true within the volume.
        logits: (D, H, W) of masks on slices, 0 where none is known.
        trust: (D, H, W) `PROMPTED` on prompted slices, `ANSWERED` on slices answered by a
            network, 0 elsewhere.
        box: (D, H, W) bool, inside of the boxes; None without one.
        boxed: (D, H, W) bool, the slices for which `box` speaks.
        positive: (D, H, W) bool, clicks and strokes on the target.
        negative: (D, H, W) bool, those beside it.
        previous: (D, H, W) logits of the answer before these clicks; None for a first answer.
    """

    image: Field
    inside: Mask
    logits: Field
    trust: Field
    box: Mask | None = None
    boxed: Mask | None = None
    positive: Mask | None = None
    negative: Mask | None = None
    previous: Field | None = field(default=None)


def coarse_channels(hints: CoarseHints) -> Tensor:
    """(`CHANNELS`, D, H, W) float32 for the network.

    Grey value; inside the volume; mask on slices and how far it is trusted; box and where it
    speaks; clicks of either class seen narrowly, widely and by exponentialised geodesic distance
    (thesis equation 3-1); distance from the nearest prompted slice; the answer before, and
    whether there is one.
    """
    blank = np.zeros(hints.image.shape, np.float32)
    clicks = [_click_maps(hints, hints.positive), _click_maps(hints, hints.negative)]
    previous = blank if hints.previous is None else np.tanh(hints.previous / LOGIT_SCALE)
    maps = [
        hints.image,
        hints.inside,
        np.tanh(hints.logits / LOGIT_SCALE) * (hints.trust > 0),
        hints.trust,
        blank if hints.box is None else hints.box,
        blank if hints.boxed is None else hints.boxed,
        *(one for pair in zip(*clicks, strict=True) for one in pair),
        _nearness(hints.trust >= PROMPTED),
        previous,
        blank + (hints.previous is not None),
    ]
    return torch.from_numpy(np.stack([np.asarray(m, np.float32) for m in maps]))


def _nearness(known: Mask) -> Field:
    """1 on prompted slices, falling with the distance from them; 0 everywhere without one."""
    if not known.any():
        return np.zeros(known.shape, np.float32)
    distance = ndimage.distance_transform_edt(~known)
    return np.exp(-distance / FELT).astype(np.float32)


def _click_maps(hints: CoarseHints, seeds: Mask | None) -> tuple[Field, Field, Field]:
    """Nearness of clicks: narrow, wide, geodesic; 0 without a click."""
    if seeds is None or not seeds.any():
        blank = np.zeros(hints.image.shape, np.float32)
        return blank, blank, blank
    straight = np.minimum(ndimage.distance_transform_edt(~seeds), _FAR).astype(np.float32)
    spread = max(float(hints.image.std()), 1e-3)
    along = geodesic_distance(hints.image / np.float32(spread), seeds, None, 1.0, STEP_COST)
    return np.exp(-straight / NARROW), np.exp(-straight / WIDE), np.exp(-along)
