"""Masks of a plane to closed contours along the pixels' edges, and back by even-odd filling."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Contours lie this part of a pixel inside the edges. Readers that round corners to whole pixels
# and paint the outline, as OpenCV's do, then paint exactly the mask, and contours of regions that
# touch at a corner do not touch. 1/256 is far above the rounding of float32 coordinates in voxels
# and takes less than 0.2 % of the area of a disc 5 pixels wide.
INSET = 1.0 / 256


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """Closed contours around the true pixels of a plane; holes are contours of their own.

    Pixels that touch at a corner only are apart. Filling the contours by even-odd gives the mask
    back exactly.

    Args:
        mask: (I, J) bool.

    Returns:
        (N, 2) corners of each contour in pixel coordinates, whole numbers at pixel centres,
        without repeating the first.

    Example:
        >>> import numpy as np
        >>> [contour] = trace(np.ones((2, 1), bool))
        >>> np.abs(contour.round()).tolist()
        [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    """
    corners, inward = _corners(np.pad(np.asarray(mask, dtype=bool), 1))
    if not len(corners):
        return []
    across = _partners(corners[:, 1], corners[:, 0], inward[:, 0])
    down = _partners(corners[:, 0], corners[:, 1], inward[:, 1])
    places = corners - 0.5 + INSET * inward
    return [places[loop] for loop in _loops(across, down)]


def _corners(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) corners where an outline turns, and (N, 2) signs that point into the mask."""
    around = {
        (-1, -1): padded[:-1, :-1],
        (1, -1): padded[1:, :-1],
        (-1, 1): padded[:-1, 1:],
        (1, 1): padded[1:, 1:],
    }
    filled = sum(part.astype(np.uint8) for part in around.values())
    diagonal = (filled == 2) & (around[-1, -1] == around[1, 1])
    corners, inward = [], []
    for (x, y), part in around.items():
        for where, sign in ((part & ((filled == 1) | diagonal), 1), (~part & (filled == 3), -1)):
            found = np.argwhere(where)
            corners.append(found)
            inward.append(np.broadcast_to((sign * x, sign * y), found.shape))
    return np.concatenate(corners), np.concatenate(inward)


def _partners(line: np.ndarray, along: np.ndarray, inward: np.ndarray) -> np.ndarray:
    """The other end of each corner's edge on its line; edges are every second gap on it.

    Where two corners share a place, the one whose mask lies before it ends the edge before.
    """
    order = np.lexsort((inward, along, line))
    partners = np.empty(len(order), dtype=np.int64)
    partners[order[0::2]] = order[1::2]
    partners[order[1::2]] = order[0::2]
    return partners


def _loops(across: np.ndarray, down: np.ndarray) -> Iterable[list[int]]:
    turns = across.tolist(), down.tolist()
    left = np.ones(len(across), dtype=bool)
    for start in range(len(across)):
        if not left[start]:
            continue
        loop: list[int] = []
        place, turn = start, 0
        while not loop or place != start:
            loop.append(place)
            place, turn = turns[turn][place], 1 - turn
        left[loop] = False
        yield loop


def fill(contours: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """(I, J) bool mask of the pixels whose centres an odd number of contours goes around.

    Args:
        contours: (N, 2) corners of each in pixel coordinates, closed or not.
        shape: Pixels.
    """
    crossings = np.zeros((shape[0] + 1, shape[1]), dtype=np.int32)
    for contour in contours:
        _count_crossings(np.asarray(contour, dtype=np.float64), crossings)
    return (np.cumsum(crossings, axis=0)[:-1] & 1).astype(bool)


def _count_crossings(contour: np.ndarray, crossings: np.ndarray) -> None:
    """Add 1 at the first pixel behind each edge, on every line that the edge crosses."""
    lines = crossings.shape[1]
    start, end = contour, np.roll(contour, -1, axis=0)
    low = np.minimum(start[:, 1], end[:, 1])
    high = np.maximum(start[:, 1], end[:, 1])
    # Half-open: an edge owns its lower end, so that a corner on a line counts once.
    first = np.clip(np.ceil(low), 0, lines).astype(np.int64)
    last = np.clip(np.ceil(high), 0, lines).astype(np.int64)
    count = last - first
    edges = np.repeat(np.arange(len(contour)), count)
    if not len(edges):
        return
    offsets = np.arange(len(edges)) - np.repeat(np.cumsum(count) - count, count)
    rows = first[edges] + offsets
    slope = (end[edges, 0] - start[edges, 0]) / (end[edges, 1] - start[edges, 1])
    crossed = start[edges, 0] + slope * (rows - start[edges, 1])
    columns = np.clip(np.ceil(crossed), 0, crossings.shape[0] - 1).astype(np.int64)
    np.add.at(crossings, (columns, rows), 1)
