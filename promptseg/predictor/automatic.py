"""Segmenting with no prompt: an adapter's tokens say what is wanted.

Coarse first: every few slices are seen whole, and the largest body that the token marks says
where the target is. Then every slice of that stretch is answered in a view around it, and a track
from the best slice, mask by mask, is averaged in, so that neighbours agree. A mask much larger than
any cross-section that the adapter was trained on is something else (a cyst, a bowel full of water)
and is not trusted, unless there is nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from promptseg.backbones.base import PixelPrompts
from promptseg.inference.crop import (
    CROP,
    frame_of,
    group_regions,
    mask_extent,
    squared,
    stored_or,
    touches_edge,
    whole_slice,
    widened,
)
from promptseg.inference.decoder import ABSENT_LOGIT, Request, SliceDecoder, SliceMask, mean_mask
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import FrameMasks
from promptseg.predictor.engine import Engine
from promptseg.propagation.tracker import Tracker
from promptseg.volume.slicing import Frame, Region, in_plane

COARSE_SLICES = 24
BODY_LEVEL = 0.04
LEAST_AREA = 6
STRAY_SHARE = 0.1
GROWTH, GROWTHS = 1.5, 2
# Half as large again as the largest cross-section in training.
ROOM = 1.5
# Parts of a target that are followed beyond the slices where it was found, over the largest.
FOLLOWED_SHARE = 0.5
Tokens = Mapping[int, Tensor]
Sections = Mapping[int, float]
Masks = dict[int, SliceMask]


@dataclass(frozen=True)
class Found:
    """Where a target is.

    Args:
        region: In-plane rectangle around it.
        low: First slice it may fill.
        high: One past the last.
        fits: False if it was only found where it is larger than in training.
    """

    region: Region
    low: int
    high: int
    fits: bool = True


def segment_unprompted(
    engine: Engine,
    tokens: Tokens,
    progress: Progress | None = None,
    sections: Sections | None = None,
) -> list[FrameMasks]:
    """Answer every token on one volume.

    Args:
        engine: Of the volume, with the adapter active.
        tokens: (C,) token by label.
        progress: Called with "find" or "segment", slices done, slices to do.
        sections: Largest cross-section of each label in training in cm², along the same axis;
            labels without one may be of any size.

    Returns:
        Answers by label; a label that is nowhere has none.
    """
    wide = ROOM * engine.magnified**2
    largest = {label: wide * area for label, area in (sections or {}).items()}
    found = find_targets(engine, tokens, progress, largest)
    largest = {n: area for n, area in largest.items() if n in found and found[n].fits}
    view = frame_of(engine.encoder, engine.axis, body_region(engine), engine.spacing)
    answered = [FrameMasks(view, {label: {} for label in tokens if label not in found})]
    for region, labels in group_regions({label: f.region for label, f in found.items()}):
        group = {label: tokens[label] for label in labels}
        low = min(found[label].low for label in labels)
        high = max(found[label].high for label in labels)
        answered.append(_answer_group(engine, group, Found(region, low, high), progress, largest))
    return [group for group in answered if group.answers]


def find_targets(
    engine: Engine,
    tokens: Tokens,
    progress: Progress | None = None,
    largest: Sections | None = None,
) -> dict[int, Found]:
    """Where each token's target is; one that coarse slices miss is looked for on all."""
    count = engine.shape[engine.axis]
    stride = -(-count // COARSE_SLICES)
    found = _find(engine, tokens, stride, progress, largest or {})
    missed = {label: token for label, token in tokens.items() if label not in found}
    if stride == 1 or not missed:
        return found
    return {**_find(engine, missed, 1, progress, largest or {}), **found}


def _find(
    engine: Engine, tokens: Tokens, stride: int, progress: Progress | None, largest: Sections
) -> dict[int, Found]:
    count = engine.shape[engine.axis]
    indices = list(range(stride // 2, count, stride))
    frame = frame_of(engine.encoder, engine.axis, body_region(engine), engine.spacing)
    seen = decode_tokens(engine.decoder, frame, indices, tokens, "find", progress)
    found = {}
    fitting = plausible(seen, frame, largest)
    for label, masks in seen.items():
        likely = connected(trusted(fitting[label]), indices, share=1.0)
        body = likely or connected(trusted(masks), indices, share=1.0)
        extents = [e for e in (mask_extent(m, frame) for m in body.values()) if e is not None]
        if extents:
            region = extents[0]
            for extent in extents[1:]:
                region = region.union(extent)
            low, high = max(0, min(body) - stride), min(count, max(body) + stride + 1)
            found[label] = Found(region, low, high, fits=bool(likely))
    return found


def body_region(engine: Engine) -> Region:
    """The part of the slices that is not black; all of it for networks trained on whole slices."""
    whole = whole_slice(engine.encoder, engine.axis)
    if not engine.encoder.backbone.spec.crop:
        return whole
    shown = engine.encoder.data.max(engine.axis) > BODY_LEVEL
    rows, cols = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not len(rows):
        return whole
    return Region((rows[0], rows[-1] + 1), (cols[0], cols[-1] + 1))


def decode_tokens(
    decoder: SliceDecoder,
    frame: Frame,
    indices: list[int],
    tokens: Tokens,
    stage: str,
    progress: Progress | None = None,
) -> dict[int, Masks]:
    """Answer of every token on every slice, batch by batch."""
    answers: dict[int, Masks] = {label: {} for label in tokens}
    step = decoder.encoder.batch_size
    for start in range(0, len(indices), step):
        asked = [(i, label) for i in indices[start : start + step] for label in tokens]
        requests = [Request(i, PixelPrompts(), concept=tokens[label]) for i, label in asked]
        masks = decoder.decode(frame, requests)
        for (index, label), mask in zip(asked, masks, strict=True):
            answers[label][index] = mask
        if progress is not None:
            progress(stage, min(start + step, len(indices)), len(indices))
    return answers


def plausible(answers: dict[int, Masks], frame: Frame, largest: Sections) -> dict[int, Masks]:
    """The same; masks larger than `largest` cm² say that their target is not there.

    Args:
        answers: Masks by label, then by slice.
        frame: Their view.
        largest: By label; the others may be of any size.
    """
    rows, cols = in_plane(frame.axis)
    across, down = frame.scale
    voxel = frame.spacing[rows] * frame.spacing[cols] / 100
    judged = dict(answers)
    for label in answers.keys() & largest.keys():
        judged[label] = {}
        for index, mask in answers[label].items():
            pixel = voxel / (across * down) * (frame.size / mask.logits.shape[-1]) ** 2
            fits = mask.area * pixel <= largest[label]
            judged[label][index] = mask if fits else replace(mask, presence=0.0)
    return judged


def oversized(
    engine: Engine, labels: np.ndarray, sections: Sections
) -> dict[int, tuple[float, float]]:
    """Largest cross-section in cm² of what is larger than in training by `ROOM`, and that of it.

    Args:
        engine: Of the volume.
        labels: (I, J, K) that were found.
        sections: Largest cross-section of each label in training in cm².
    """
    rows, cols = in_plane(engine.axis)
    voxel = engine.spacing[rows] * engine.spacing[cols] / engine.magnified**2 / 100
    found = {}
    for label, known in sections.items():
        area = float((labels == label).sum((rows, cols)).max()) * voxel
        if area > ROOM * known:
            found[label] = (round(area, 1), known)
    return found


def trusted(masks: Masks) -> Masks:
    """Answers on slices where the network says that the target is."""
    return {i: m for i, m in masks.items() if m.presence >= 0.5 and m.area >= LEAST_AREA}


def connected(masks: Masks, indices: list[int], share: float = STRAY_SHARE) -> Masks:
    """Answers without stray parts.

    Args:
        masks: By slice.
        indices: All slices that were looked at, in order; neighbours in it touch.
        share: Connected bodies of at least this share of the largest are kept.
    """
    if not masks:
        return {}
    blank = torch.full_like(next(iter(masks.values())).logits, ABSENT_LOGIT)
    stack = torch.stack([masks[i].logits if i in masks else blank for i in indices]) > 0
    bodies, count = ndimage.label(stack.numpy(), np.ones((3, 3, 3)))
    if not count:
        return {}
    sizes = np.bincount(bodies.ravel())[1:]
    kept = torch.from_numpy(np.isin(bodies, 1 + np.flatnonzero(sizes >= share * sizes.max())))
    cleaned = {}
    for place, index in enumerate(indices):
        if index in masks and bool(kept[place].any()):
            logits = masks[index].logits
            stray = (logits > 0) & ~kept[place]
            cleaned[index] = replace(masks[index], logits=logits.masked_fill(stray, ABSENT_LOGIT))
    return cleaned


def _answer_group(
    engine: Engine, tokens: Tokens, found: Found, progress: Progress | None, largest: Sections
) -> FrameMasks:
    """Answer in a view around the group, widened while a target reaches its edge."""
    whole = whole_slice(engine.encoder, engine.axis)
    crop = engine.encoder.backbone.spec.crop
    factor = stored_or(engine.encoder, CROP.unprompted)
    view = squared(found.region, engine.axis, engine.spacing, factor) if crop else whole

    def fitting(view: Region, last: bool) -> tuple[Frame, dict[int, Masks]] | None:
        frame = frame_of(engine.encoder, engine.axis, view, engine.spacing)
        direct = _every_slice(engine, frame, tokens, found, progress, largest)
        masks = (m for answers in direct.values() for m in trusted(answers).values())
        cut = any(touches_edge(mask, frame) for mask in masks)
        return None if cut and not last and not view.contains(whole) else (frame, direct)

    frame, direct = widened(view, fitting, partial(Region.grow, factor=GROWTH), GROWTHS)
    return FrameMasks(frame, {t: consistent(engine, frame, m) for t, m in direct.items()})


def _every_slice(
    engine: Engine,
    frame: Frame,
    tokens: Tokens,
    found: Found,
    progress: Progress | None,
    largest: Sections,
) -> dict[int, Masks]:
    """Answers on the stretch of slices, and beyond it while the target goes on."""
    count, (low, high) = engine.shape[engine.axis], (found.low, found.high)
    answers = decode_tokens(
        engine.decoder, frame, list(range(low, high)), tokens, "segment", progress
    )
    answers = plausible(answers, frame, largest)
    while True:
        bodies = [connected(trusted(m), sorted(m), FOLLOWED_SHARE) for m in answers.values()]
        ends = {i for body in bodies for i in body} & {low, high - 1}
        more = [low - 1] if low in ends and low > 0 else []
        more += [high] if high - 1 in ends and high < count else []
        if not more:
            return answers
        added = decode_tokens(engine.decoder, frame, more, tokens, "segment")
        for label, masks in plausible(added, frame, largest).items():
            answers[label].update(masks)
        low, high = min(low, *more), max(high, more[-1] + 1)


def consistent(engine: Engine, frame: Frame, direct: Masks) -> Masks:
    """Direct answers averaged with a track from the best slice, stray parts dropped.

    Args:
        engine: Of the volume.
        frame: The view of the answers.
        direct: Answer of one token on every slice of a stretch.
    """
    sure = trusted(direct)
    if not sure:
        return {}
    largest = max(mask.area for mask in sure.values())
    full = {i: mask for i, mask in sure.items() if 2 * mask.area >= largest}
    best = max(full, key=lambda index: full[index].quality * full[index].presence)
    tracker = Tracker(engine.decoder, frame, engine.criteria)
    limits = {1: (min(direct), max(direct) + 1)}
    tracked = tracker.propagate({1: {best: full[best]}}, limits)[1]
    merged = {i: mean_mask([direct[i], tracked[i]], [0.5, 0.5]) for i in tracked}
    return connected({**sure, **merged}, sorted(direct))
