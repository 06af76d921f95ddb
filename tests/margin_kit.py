"""Margin points of known targets."""

import numpy as np

from promptseg.prompts.types import MarginPoints


def extremes(target):
    """The middle voxel of each of the six outermost faces of a target, or four of a slice."""
    inside = np.argwhere(target)
    found = []
    for axis in range(3):
        if np.ptp(inside[:, axis]) == 0:
            continue
        for end in (inside[:, axis].min(), inside[:, axis].max()):
            face = inside[inside[:, axis] == end]
            found.append(face[np.abs(face - face.mean(0)).sum(1).argmin()])
    return MarginPoints(np.array(found))


def on_slice(target, k):
    only = np.zeros_like(target)
    only[..., k] = target[..., k]
    return only


def overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())
