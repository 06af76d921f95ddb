"""Accepted masks as examples: the slices of a case as a network saw them, with the masks on them.

Encoding is the costly part of learning from a case; here it is done once, when the case is
accepted, and only the small maps that the encoder gave are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from promptseg.backbones.base import Embedding
from promptseg.errors import PromptError
from promptseg.inference.crop import CROP, squared, stored_or, whole_slice
from promptseg.inference.encoder import SliceEncoder
from promptseg.volume import bounding_slices
from promptseg.volume.slicing import Frame, Region, in_plane, take_slice

LEAST_PIXELS = 12
# Slices of a case close to a label, of the whole body, and without any label. A view at half the
# input costs an eighth: there are more of those, and they are seen closer and from farther as well.
SMALL, LARGE = (20, 14, 6), (14, 10, 4)
CLOSER, WIDER = 1.4, 2.4
# A track hands masks on over three millimetres: the neighbour that is shown lies as far away.
APART_MM = 3.0


@dataclass(frozen=True, eq=False)
class SeenSlice:
    """One slice of an accepted case in one view.

    Args:
        embedding: Of one row, on the CPU.
        masks: (m, m) share of every pixel inside each label, by label.
        beside: The same on a slice a few millimetres away.
        size: Side of the network's input in pixels.
    """

    embedding: Embedding
    masks: Mapping[int, Tensor]
    beside: Mapping[int, Tensor]
    size: int


@dataclass(frozen=True, eq=False)
class Example:
    """An accepted case.

    Args:
        name: Of the case.
        labels: In it, in order.
        seen: Its slices.
        axis: Along which they were cut.
    """

    name: str
    labels: tuple[int, ...]
    seen: tuple[SeenSlice, ...]
    axis: int

    @property
    def nbytes(self) -> int:
        """Bytes that its embeddings take."""
        return sum(slice_.embedding.nbytes for slice_ in self.seen)


class Lessons:
    """The examples of a segmenter; those of the oldest cases are forgotten when memory is short.

    Args:
        max_bytes: Bound on the embeddings that are kept; the latest case always is.
    """

    def __init__(self, max_bytes: int = 2 << 30) -> None:
        self.max_bytes = max_bytes
        self.names: dict[int, str] = {}
        self._held: dict[str, Example] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def examples(self) -> list[Example]:
        """In the order they were accepted."""
        return list(self._held.values())

    def add(self, key: str, example: Example, names: Mapping[int, str]) -> None:
        """Keep a case; one that was accepted before is replaced."""
        self._held.pop(key, None)
        self._held[key] = example
        self.names |= {label: names.get(label, self.names.get(label, f"target {label}"))
                       for label in example.labels}  # fmt: skip
        while len(self._held) > 1 and sum(e.nbytes for e in self.examples) > self.max_bytes:
            del self._held[next(iter(self._held))]

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()
        self.names.clear()


def make_example(
    name: str,
    encoders: Sequence[SliceEncoder],
    axis: int,
    spacing: Sequence[float],
    known: np.ndarray,
    body: Region,
) -> Example:
    """Look at an accepted case as the network will look at the next ones.

    Args:
        name: Of the case.
        encoders: Of the same volume, one for each size of input.
        axis: Slice axis.
        spacing: (3,) mm.
        known: (I, J, K) accepted labels.
        body: What is not black, where targets are looked for.

    Raises:
        PromptError: No label has a slice with at least `LEAST_PIXELS` voxels.
    """
    labels = [int(label) for label in np.unique(known) if label > 0]
    usable = [label for label in labels if len(_filled(known == label, axis))]
    if not usable:
        raise PromptError(
            f"the mask of {name} has no slice with at least {LEAST_PIXELS} voxels: there is "
            "nothing to learn from"
        )
    reach = max(1, round(APART_MM / float(spacing[axis])))
    seen: list[SeenSlice] = []
    for encoder in encoders:
        small = encoder is encoders[0] and len(encoders) > 1
        views = _views(encoder, axis, spacing, known, usable, body, small)
        for region, indices in views:
            seen += _look(encoder, axis, spacing, known, usable, region, indices, reach)
    return Example(name, tuple(usable), tuple(seen), axis)


def _views(
    encoder: SliceEncoder,
    axis: int,
    spacing: Sequence[float],
    known: np.ndarray,
    labels: Sequence[int],
    body: Region,
    small: bool,
) -> list[tuple[Region, list[int]]]:
    """Regions and the slices shown in each: the whole body, and close to every label."""
    close, wide, blank = SMALL if small else LARGE
    whole = body if encoder.backbone.spec.crop else whole_slice(encoder, axis)
    filled, outside = _filled(np.isin(known, labels), axis), _outside(known, labels, axis)
    if not encoder.backbone.spec.crop:
        return [(whole, sorted({*spread(filled, close), *outside[:blank]}))]
    views = [(whole, sorted({*spread(filled, wide), *spread(outside, blank)}))]
    usual = stored_or(encoder, CROP.trained)
    for label in labels:
        mask = known == label
        beside = spread(_outside(known, [label], axis), max(1, blank // 2))
        for factor in (CLOSER, usual, WIDER) if small else (usual,):
            region = squared(_extent(mask, axis), axis, spacing, factor)
            views.append((region, sorted({*spread(_filled(mask, axis), close), *beside})))
    return views


def _look(
    encoder: SliceEncoder,
    axis: int,
    spacing: Sequence[float],
    known: np.ndarray,
    labels: Sequence[int],
    region: Region,
    indices: Sequence[int],
    reach: int,
) -> list[SeenSlice]:
    spec, last = encoder.backbone.spec, known.shape[axis] - 1
    shape = (known.shape[0], known.shape[1], known.shape[2])
    apart = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    frame = Frame(axis, region, shape, apart, spec.input_size)
    embedding = encoder.embed(frame, list(indices)).to("cpu", torch.float32)
    seen = []
    for row, index in enumerate(indices):
        other = index - reach if index >= reach else min(index + reach, last)
        here, beside = (
            {label: _mask(frame, known, label, n, spec.mask_size) for label in labels}
            for n in (index, other)
        )
        # Inference tensors may not take part in what is learned: their values are copied.
        one = Embedding(tuple(f[row : row + 1].clone() for f in embedding.features))
        seen.append(SeenSlice(one, here, beside, spec.input_size))
    return seen


def _mask(frame: Frame, known: np.ndarray, label: int, index: int, side: int) -> Tensor:
    plane = take_slice(known, frame.axis, index) == label
    return frame.project(plane.astype(np.float32), side)


def _filled(mask: np.ndarray, axis: int) -> list[int]:
    rows, cols = in_plane(axis)
    return np.flatnonzero(mask.sum((rows, cols)) >= LEAST_PIXELS).tolist()


def _outside(known: np.ndarray, labels: Sequence[int], axis: int) -> list[int]:
    """Slices without any of the labels, those next to where they end first."""
    rows, cols = in_plane(axis)
    blank = np.flatnonzero(~np.isin(known, labels).any((rows, cols)))
    filled = _filled(np.isin(known, labels), axis)
    if not filled:
        return []
    return sorted(blank.tolist(), key=lambda n: min(abs(n - i) for i in (filled[0], filled[-1])))


def _extent(mask: np.ndarray, axis: int) -> Region:
    bound = bounding_slices(mask)
    if bound is None:
        raise PromptError("a label has no voxel")
    rows, cols = in_plane(axis)
    return Region((bound[rows].start, bound[rows].stop), (bound[cols].start, bound[cols].stop))


def spread(indices: Sequence[int], count: int) -> list[int]:
    """At most `count` of some slices, evenly, the ends included."""
    if len(indices) <= count:
        return list(indices)
    chosen = np.linspace(0, len(indices) - 1, count).round().astype(int)
    return [indices[n] for n in np.unique(chosen)]
