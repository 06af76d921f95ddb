"""Maximum flow on a pixel grid whose edges are implied by the array, not stored as a graph.

The search-tree algorithm of Boykov and Kolmogorov, PAMI 2004, with their time stamps and
distances. A neighbour is found by adding a stride, as in Jamriska, Sykora and Hornung,
"Cache-efficient graph cuts on structured grids", CVPR 2012: there is no graph to build, and the
memory is a fifth of that of a general one.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_NONE, _TERMINAL, _ORPHAN = -1, 100, 101
_FAR = 1 << 30


def source_side(
    gain: NDArray[np.float32], edges: NDArray[np.float32], strides: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """True on the source's side of a minimum cut, and where no flow arrives.

    Args:
        gain: (N,) flow that the source may send to each element; below 0 what the sink takes.
        edges: (ndim, N) capacity, both ways, between element n and n + strides[axis]; 0 at the
            end of the axis.
        strides: (ndim,) distance of neighbours in the flat array.

    Returns:
        (N,) bool.
    """
    pad, count = int(strides.max()), gain.size
    inner = slice(pad, pad + count)
    rest = np.zeros(count + 2 * pad, np.float32)
    rest[inner] = gain
    residual = _both_ways(edges, np.asarray(strides, np.int64), pad)
    offsets = np.stack([strides, -strides], axis=1).ravel().astype(np.int64)
    return _flow(rest, residual, offsets)[inner]


@njit(cache=True, nogil=True)
def _both_ways(edges, strides, pad):  # type: ignore[no-untyped-def]
    """(N + 2 pad, 2 ndim) capacity from each element ahead and back along each axis.

    Element by element: axis by axis every pass would touch all of the memory again.
    """
    axes, count = edges.shape
    residual = np.zeros((count + 2 * pad, 2 * axes), np.float32)
    for n in range(count):
        for a in range(axes):
            residual[pad + n, 2 * a] = edges[a, n]
            residual[pad + n + strides[a], 2 * a + 1] = edges[a, n]
    return residual


@njit(cache=True, nogil=True)
def _flow(rest, residual, offsets):  # type: ignore[no-untyped-def]
    """Grow a tree from either terminal, send flow where they meet, adopt what that cut off.

    `parent` holds the direction of the parent; direction d and d ^ 1 are opposite. `stamp` and
    `depth` are the time at which an element's distance to its terminal was known, and it.
    """
    n = rest.size
    parent = np.full(n, _NONE, np.int8)
    sink = rest < 0
    stamp, depth = np.zeros(n, np.int32), np.zeros(n, np.int32)
    queue, orphans = np.empty(n + 1, np.int32), np.empty(n + 1, np.int32)
    queued = np.zeros(n, np.bool_)
    ends = np.zeros(2, np.int64)
    for i in range(n):
        if rest[i] != 0:
            parent[i], depth[i] = _TERMINAL, 1
            _push(queue, queued, ends, i)
    time, current = 0, -1
    while True:
        if current < 0 or parent[current] == _NONE:
            current = _pop(queue, queued, ends, parent)
            if current < 0:
                break
        met = _grow(residual, offsets, parent, sink, stamp, depth, queue, queued, ends, current)
        time += 1
        if met < 0:
            current = -1
            continue
        a, b, d = current, current + offsets[met], met
        if sink[current]:
            a, b, d = b, a, met ^ 1
        count = _augment(rest, residual, offsets, parent, orphans, a, b, d)
        _adopt(residual, offsets, parent, sink, stamp, depth, queue, queued, ends, orphans, count,
               time)  # fmt: skip
    return ~(sink & (parent != _NONE))


@njit(cache=True, nogil=True)
def _push(queue, queued, ends, i):  # type: ignore[no-untyped-def]
    if not queued[i]:
        queue[ends[1]], queued[i] = i, True
        ends[1] = ends[1] + 1 if ends[1] + 1 < queue.size else 0


@njit(cache=True, nogil=True)
def _pop(queue, queued, ends, parent):  # type: ignore[no-untyped-def]
    """The next active element that still is in a tree; -1 if there is none."""
    while ends[0] != ends[1]:
        i = queue[ends[0]]
        ends[0] = ends[0] + 1 if ends[0] + 1 < queue.size else 0
        queued[i] = False
        if parent[i] != _NONE:
            return i
    return -1


@njit(cache=True, nogil=True)
def _grow(residual, offsets, parent, sink, stamp, depth, queue, queued, ends, i):  # type: ignore[no-untyped-def]
    """Take free neighbours of element i into its tree; the direction of the other tree or -1."""
    for d in range(offsets.size):
        j = i + offsets[d]
        if (residual[j, d ^ 1] if sink[i] else residual[i, d]) <= 0:
            continue
        if parent[j] == _NONE:
            parent[j], sink[j] = d ^ 1, sink[i]
            stamp[j], depth[j] = stamp[i], depth[i] + 1
            _push(queue, queued, ends, j)
        elif sink[j] != sink[i]:
            return d
        elif stamp[j] <= stamp[i] and depth[j] > depth[i]:
            parent[j] = d ^ 1
            stamp[j], depth[j] = stamp[i], depth[i] + 1
    return -1


@njit(cache=True, nogil=True)
def _augment(rest, residual, offsets, parent, orphans, a, b, d):  # type: ignore[no-untyped-def]
    """Send what fits along the edge d from a to b; the number of elements cut off by that."""
    flow = min(residual[a, d], _room(rest, residual, offsets, parent, a, False))
    flow = min(flow, _room(rest, residual, offsets, parent, b, True))
    residual[a, d] -= flow
    residual[b, d ^ 1] += flow
    count = _send(rest, residual, offsets, parent, orphans, 0, a, False, flow)
    return _send(rest, residual, offsets, parent, orphans, count, b, True, flow)


@njit(cache=True, nogil=True)
def _room(rest, residual, offsets, parent, i, to_sink):  # type: ignore[no-untyped-def]
    """What can flow between element i and its terminal."""
    room = np.float32(np.inf)
    while parent[i] != _TERMINAL:
        up = parent[i]
        j = i + offsets[up]
        room = min(room, residual[i, up] if to_sink else residual[j, up ^ 1])
        i = j
    return min(room, abs(rest[i]))


@njit(cache=True, nogil=True)
def _send(rest, residual, offsets, parent, orphans, count, i, to_sink, flow):  # type: ignore[no-untyped-def]
    """Let `flow` pass between element i and its terminal; appends what is cut off to `orphans`."""
    sign = np.float32(1.0 if to_sink else -1.0)
    while True:
        up = parent[i]
        if up == _TERMINAL:
            rest[i] += sign * flow
            if rest[i] * sign >= 0:
                parent[i], orphans[count] = _ORPHAN, i
                count += 1
            return count
        j = i + offsets[up]
        residual[i, up] -= sign * flow
        residual[j, up ^ 1] += sign * flow
        if (residual[i, up] if to_sink else residual[j, up ^ 1]) <= 0:
            parent[i], orphans[count] = _ORPHAN, i
            count += 1
        i = j


@njit(cache=True, nogil=True)
def _adopt(  # type: ignore[no-untyped-def]
    residual, offsets, parent, sink, stamp, depth, queue, queued, ends, orphans, count, time
):
    """Give every orphan a new parent in its tree, the nearest to the terminal, or set it free."""
    first = 0
    while count > 0:
        o = orphans[first]
        first = first + 1 if first + 1 < orphans.size else 0
        count -= 1
        best, nearest = -1, _FAR
        for d in range(offsets.size):
            j = o + offsets[d]
            if sink[j] != sink[o] or parent[j] == _NONE:
                continue
            if (residual[o, d] if sink[o] else residual[j, d ^ 1]) <= 0:
                continue
            far = _rooted(parent, stamp, depth, offsets, j, time)
            if far < nearest:
                best, nearest = d, far
        if best >= 0:
            parent[o], stamp[o], depth[o] = best, time, nearest + 1
            continue
        parent[o] = _NONE
        for d in range(offsets.size):
            j = o + offsets[d]
            if sink[j] != sink[o] or parent[j] == _NONE:
                continue
            if (residual[o, d] if sink[o] else residual[j, d ^ 1]) > 0:
                _push(queue, queued, ends, j)
            if parent[j] == d ^ 1:
                parent[j] = _ORPHAN
                last = first + count
                orphans[last if last < orphans.size else last - orphans.size] = j
                count += 1


@njit(cache=True, nogil=True)
def _rooted(parent, stamp, depth, offsets, j, time):  # type: ignore[no-untyped-def]
    """Steps from element j to its terminal, noted on the way; `_FAR` if an orphan is above it."""
    far, k = 0, j
    while stamp[k] != time:
        up = parent[k]
        if up == _ORPHAN:
            return _FAR
        if up == _TERMINAL:
            stamp[k], depth[k] = time, 1
            break
        far += 1
        k += offsets[up]
    total = far + depth[k]
    far, k = total, j
    while stamp[k] != time:
        stamp[k], depth[k] = time, far
        far -= 1
        k += offsets[parent[k]]
    return total
