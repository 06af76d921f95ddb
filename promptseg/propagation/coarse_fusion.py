"""Tracks and the coarse view put together: which slices hold the target, and its outline there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from promptseg.inference.caching import LRUCache
from promptseg.inference.decoder import Request, SliceDecoder, SliceMask
from promptseg.inference.labels import FrameMasks, slice_logits
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.propagation.coarse import CoarseAnswer, CoarseView, Told
from promptseg.propagation.slice_step import SURE
from promptseg.propagation.steps import handed_on
from promptseg.propagation.track import masks_bytes, tensor_key
from promptseg.volume.slicing import Frame, in_plane, take_slice

Masks = Mapping[int, SliceMask]
Plane = NDArray[np.bool_]

# Dice of view and track on the last slice of the view from which on the track is believed beyond
# it. Chosen on the development half of benchmarks/targets.py: 0.5 follows a sarcoma's track out
# into muscle (0.42 -> 0.23), 0.9 does not and still follows hearts of slices 10 mm apart.
AGREED = 0.9
FUSED_BYTES = 64 << 20


@dataclass(frozen=True)
class Clicks:
    """Voxels (N, 3) that the user marked, on the target and beside it."""

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]


class CoarseFusion:
    """Looks at a whole target that tracks have followed, and asks its slices again.

    Tracks know outlines and run on or end early; the coarse view knows where a target ends. It
    sees the tracks' masks among what it is told, so that it keeps what is right in them, and each
    slice that it marks is asked once more with its answer as the mask prompt.

    Args:
        view: The coarse view.
        decoder: Answers slices.
        spacing: (3,) mm.
    """

    def __init__(self, view: CoarseView, decoder: SliceDecoder, spacing: Sequence[float]) -> None:
        self.view, self.decoder, self.spacing = view, decoder, spacing
        self._known: LRUCache[tuple[object, ...], dict[int, SliceMask]] = LRUCache(
            FUSED_BYTES, masks_bytes
        )

    def fused(
        self,
        frame: Frame,
        prompts: Mapping[int, SlicePrompts],
        masks: Masks,
        limits: tuple[int, int],
    ) -> dict[int, SliceMask]:
        """Answers of one target on every slice it reaches; prompted slices stay as they are.

        Args:
            frame: Of the masks.
            prompts: What the user said, by slice.
            masks: Answers of tracks and of prompted slices.
            limits: Half-open slice range.
        """
        keys = {i: m for i, m in masks.items() if i in prompts}
        if not any(mask.area for mask in keys.values()):
            return dict(masks)
        said = tuple((i, p.signature()) for i, p in sorted(prompts.items()))
        key = (frame, said, limits, *((i, tensor_key(m)) for i, m in sorted(masks.items())))
        known = self._known.get(key)
        if known is None:
            known = self._fused(frame, prompts, keys, masks, limits)
            self._known.put(key, known)
        return dict(known)

    def _fused(
        self,
        frame: Frame,
        prompts: Mapping[int, SlicePrompts],
        keys: Masks,
        masks: Masks,
        limits: tuple[int, int],
    ) -> dict[int, SliceMask]:
        first, second = looks_of(frame, prompts, masks)
        image = self.decoder.encoder.data
        cube = self.view.answer(image, self.spacing, first).cube
        seen = self.view.answer(image, self.spacing, second, cube)
        shown = {i: s for i, s in self._shown(frame, seen, limits).items() if i not in keys}
        asked = asked_again(self.decoder, frame, shown).items()
        found = {**{i: replace(mask, looked=seen.quality) for i, mask in asked}, **keys}
        return followed(frame, found, masks, seen.cube.region(image.shape)[frame.axis])

    def preview(
        self, frame: Frame, prompts: Mapping[int, SlicePrompts], masks: Masks
    ) -> CoarseAnswer | None:
        """What the view takes a target for, from its prompted slices alone; None without a mask.

        Args:
            frame: Of the masks.
            prompts: What the user said, by slice.
            masks: Answers of the prompted slices.
        """
        told = told_of(frame.axis, prompts, planes_of(frame, masks))
        if not told.masks:
            return None
        return self.view.answer(self.decoder.encoder.data, self.spacing, told)

    def _shown(
        self, frame: Frame, seen: CoarseAnswer, limits: tuple[int, int]
    ) -> dict[int, Tensor]:
        """(m, m) logits of the view on the slices where it sees the target."""
        region, values = seen.cube.paste(seen.logits, frame.shape)
        side = self.decoder.backbone.spec.mask_size
        rows, cols = (region[a] for a in in_plane(frame.axis))
        shown = {}
        for n, index in enumerate(range(region[frame.axis].start, region[frame.axis].stop)):
            part = take_slice(values, frame.axis, n)
            if not limits[0] <= index < limits[1] or not (part > 0).any():
                continue
            share = np.zeros([frame.shape[a] for a in in_plane(frame.axis)], np.float32)
            share[rows, cols] = 1 / (1 + np.exp(-part))
            logits = frame.project(share, side).clamp(1e-3, 1 - 1e-3).logit()
            if bool((logits > 0).any()):
                shown[index] = logits
        return shown


def asked_again(
    decoder: SliceDecoder, frame: Frame, shown: Mapping[int, Tensor]
) -> dict[int, SliceMask]:
    """Slices answered once more; the mean of that and of what is shown.

    Args:
        decoder: Answers them.
        frame: Of the masks.
        shown: (m, m) logits by slice, handed to the network as its neighbours' are.
    """
    if not shown:
        return {}
    requests = [Request(i, handed_on(logits, decoder.backbone.spec)) for i, logits in shown.items()]
    found = {}
    for (index, logits), own in zip(shown.items(), decoder.decode(frame, requests), strict=True):
        mean = (logits.clamp(-SURE, SURE) + own.logits.clamp(-SURE, SURE)) / 2
        if bool((mean > 0).any()):
            found[index] = replace(own, logits=mean)
    return found


def followed(
    frame: Frame, found: Mapping[int, SliceMask], masks: Masks, seen: slice
) -> dict[int, SliceMask]:
    """A view's answers, and what tracks found beyond it: a target may be longer than the view.

    A track is believed where it goes on from the last slice of the view and both mark the same
    there.

    Args:
        frame: Of the masks.
        found: Answers of the view.
        masks: Answers of tracks.
        seen: Slices that the view reaches.
    """
    whole = dict(found)
    for last, step in ((seen.start, -1), (seen.stop - 1, 1)):
        if last not in masks or last not in found or last + step not in masks:
            continue
        own, tracked = (planes_of(frame, {last: m[last]})[last] for m in (found, masks))
        if 2 * (own & tracked).sum() < AGREED * (own.sum() + tracked.sum()):
            continue
        index = last + step
        while index in masks and masks[index].area:
            whole.setdefault(index, masks[index])
            index += step
    return whole


def looks_of(frame: Frame, prompts: Mapping[int, SlicePrompts], masks: Masks) -> tuple[Told, Told]:
    """What the view is told at its first look, and at the second, when it is shown the tracks.

    Args:
        frame: Of the masks.
        prompts: What the user said, by slice.
        masks: Answers of tracks and of prompted slices.
    """
    planes = planes_of(frame, masks)
    first = told_of(frame.axis, prompts, {i: p for i, p in planes.items() if i in prompts})
    answered = {i: p for i, p in planes.items() if i not in prompts and p.any()}
    return first, replace(first, answered=answered)


def told_of(axis: int, prompts: Mapping[int, SlicePrompts], planes: Mapping[int, Plane]) -> Told:
    """What the view is told of prompted slices: prompts, and their (H, W) masks if not empty."""
    clicks = clicks_of(prompts.values())
    shown = {i: plane for i, plane in planes.items() if plane.any()}
    return Told(axis, shown, box_of_prompts(prompts), clicks.positive, clicks.negative)


def planes_of(frame: Frame, masks: Masks) -> dict[int, Plane]:
    """(H, W) bool of whole slices."""
    group = [FrameMasks(frame, {1: dict(masks)})]
    shape = [frame.shape[a] for a in in_plane(frame.axis)]
    planes = {}
    for index in masks:
        planes[index] = np.zeros(shape, bool)
        for _, place, logits in slice_logits(group, index):
            planes[index][place] = logits > 0
    return planes


def clicks_of(prompts: Iterable[SlicePrompts]) -> Clicks:
    """All clicks and strokes of some slices, as whole voxels."""
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for place in prompts:
        for at, positive in zip(place.points, place.labels, strict=True):
            sides[0 if positive else 1].append(np.floor(np.array(at) + 0.5).reshape(1, 3))
        for n in range(2):
            sides[n].extend((*place.strokes[n], *place.late[n]))
    whole = [np.concatenate(side) if side else np.zeros((0, 3)) for side in sides]
    return Clicks(*(side.astype(np.int64) for side in whole))


def box_of_prompts(
    prompts: Mapping[int, SlicePrompts],
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The box of the only slice that has one: several masks say more than their boxes."""
    boxes = [place.box for place in prompts.values() if place.box is not None]
    if len(boxes) != 1:
        return None
    low, high = (tuple(int(np.floor(x + 0.5)) for x in corner) for corner in boxes[0])
    return low, high
