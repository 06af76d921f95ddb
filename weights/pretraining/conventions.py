"""Other hands' outlines: the same structure drawn wider, tighter, smoother or cut short.

The labels of one data set follow one convention, and a network that has seen no other draws every
organ by it: to the edge in the image, wherever the box or the mask handed to it ends. Episodes
whose outline was redrawn, and whose prompts show it, teach it to follow the prompt.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float32]
Redraw = Callable[[Shares], Shares]


def signed_depth(shares: Shares) -> Shares:
    """Distance to the outline of (S, S) shares in pixels, positive inside."""
    inside = (shares > 0.5).astype(np.uint8)
    near = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    away = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    return np.asarray(near - away + (0.5 - inside), np.float32)


def shifted(shift: float) -> Redraw:
    """Move the outline outwards by `shift` pixels, inwards if it is negative."""
    return lambda shares: np.clip(0.5 + signed_depth(shares) + shift, 0, 1).astype(np.float32)


def opened(radius: float) -> Redraw:
    """Leave out what is thinner than two `radius` pixels, unless that is everything."""

    def redraw(shares: Shares) -> Shares:
        core = signed_depth(shares) > radius
        if not core.any():
            return shares
        return np.asarray(np.minimum(shares, shifted(radius)(core.astype(np.float32))), np.float32)

    return redraw


def cut(shares: Shares, share: float, angle: float) -> Redraw:
    """Leave out what lies beyond a straight line.

    Args:
        shares: (S, S) shares; the line is placed so that this loses `share` of its pixels.
        share: Between 0 and 1.
        angle: Radians, of the normal that points to the side that is lost.
    """
    rows, columns = np.indices(shares.shape, np.float32)
    along = np.asarray(columns * np.cos(angle) + rows * np.sin(angle), np.float32)
    line = np.float32(np.quantile(along[shares > 0.5], 1 - share))
    kept = np.clip(0.5 + line - along, 0, 1)
    return lambda other: np.asarray(other * kept, np.float32)


def random_convention(target: Shares, rng: np.random.Generator) -> Redraw:
    """A way to redraw a non-empty target and what belongs to it on the slices beside.

    Args:
        target: (S, S) share of each pixel inside the target.
        rng: Draws kind and strength.
    """
    deepest = float(signed_depth(target).max())
    kind = rng.random()
    if kind < 0.55:
        return shifted(deepest * rng.uniform(-0.3, 0.3))
    if kind < 0.7:
        return opened(deepest * rng.uniform(0.3, 0.7))
    return cut(target, rng.uniform(0.05, 0.4), rng.uniform(0, 2 * np.pi))
