"""What a lone click could mean: it is looked at from several distances.

A click says nothing of a target's size, and a network that was trained on crops around its
prompt expects the target to fill its view: seen from too near or too far it draws too much or
too little, and doubtfully. Views of several sizes are therefore answered together, and a learned
ranking says which of their masks is meant (`inference.ranking`). For a network that has none, a
mask is trusted by the quality predicted in its view and by how little the threshold changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from promptseg.inference.crop import frame_of, squared, touches_edge, whole_slice, zoomed
from promptseg.inference.decoder import Request, SliceDecoder, SliceMask
from promptseg.inference.ranking import MaskRanking
from promptseg.inference.ranking_features import candidate_features, stability
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.volume.slicing import Frame, Region, in_plane

VIEWS = 6
STEP = 0.5**0.5
STABILITY, EDGE = 0.5, 0.15
ALIKE = 0.85
OFFERED = 3
EMPTY = -1.0


@dataclass(frozen=True, eq=False)
class MaskCandidate:
    """One mask that a prompt could mean.

    Args:
        mask: (H, W) bool on the whole slice; (I, J, K), empty but for that slice, as
            `Session.candidates` gives it.
        quality: Predicted IoU in [0, 1].
        trust: Decides among several; higher is better.
    """

    mask: np.ndarray
    quality: float
    trust: float = 0.0


@dataclass(frozen=True, eq=False)
class Looks:
    """What a click gave in views of several sizes.

    Args:
        masks: All candidates, view by view, trusted by predicted quality.
        features: Gives their (N, F) `candidate_features`.
    """

    masks: list[MaskCandidate]
    features: Callable[[], np.ndarray]


def mask_candidates(
    decoder: SliceDecoder,
    axis: int,
    spacing: Sequence[float],
    index: int,
    prompts: SlicePrompts,
    ranking: MaskRanking | None = None,
) -> list[MaskCandidate]:
    """`OFFERED` masks that differ, the most trusted first; none if the network sees nothing.

    Args:
        decoder: Of a network that is trained on crops.
        axis: Slice axis.
        spacing: (3,) mm.
        index: Slice number.
        prompts: A single click.
        ranking: Of the network's masks; None to go by its own predicted quality.
    """
    looks = looked_at(decoder, axis, spacing, index, prompts)
    every = looks.masks if ranking is None else expected(looks, ranking)
    at = np.floor(np.array(prompts.points[0])[list(in_plane(axis))] + 0.5).astype(int)
    row, col = np.minimum(at, np.array(every[0].mask.shape) - 1)
    ranked = sorted(every, key=lambda m: (m.mask[row, col], m.trust), reverse=True)
    return distinct(ranked, OFFERED) if ranked[0].trust > EMPTY else []


def looked_at(
    decoder: SliceDecoder, axis: int, spacing: Sequence[float], index: int, prompts: SlicePrompts
) -> Looks:
    """The masks of all views, as `mask_candidates` takes them, and what they look like."""
    encoder = decoder.encoder
    frames = [frame_of(encoder, axis, v, spacing) for v in views(decoder, axis, spacing, prompts)]
    side = encoder.backbone.spec.mask_size
    asked = [
        (frame, Request(index, prompts.to_pixels(frame, index, side), True, prompts.concept))
        for frame in frames
    ]
    found = decoder.candidates_in(asked)
    every = [
        meaning
        for frame, logits, quality in zip(frames, found.logits, found.quality, strict=True)
        for meaning in judged(frame, logits, quality)
    ]

    def features() -> np.ndarray:
        planes = np.stack([meaning.mask for meaning in every])
        return candidate_features(
            encoder, frames, index, prompts, found.logits, found.quality, planes
        )

    return Looks(every, features)


def views(
    decoder: SliceDecoder, axis: int, spacing: Sequence[float], prompts: SlicePrompts
) -> list[Region]:
    """The whole slice and ever smaller squares about a click, without repeats."""
    whole = squared(whole_slice(decoder.encoder, axis), axis, spacing, 1.0)
    centre = prompts.extent(axis)
    if centre is None:
        return [whole]
    sized = (zoomed(whole, centre, axis, spacing, STEP**n) for n in range(VIEWS))
    return list(dict.fromkeys(sized))


def judged(frame: Frame, logits: Tensor, quality: Tensor) -> list[MaskCandidate]:
    """The (M, m, m) candidates of one view.

    Trusted least are an empty one, and all of a view where the best is empty.

    The network's own order of its candidates is the same whatever it sees, so that its greatest
    quality judges the view, and stability the candidate.
    """
    best, found = float(quality.max()), []
    seen = bool((logits[quality.argmax()] > 0).any())
    for one, own in zip(logits, quality.tolist(), strict=True):
        mask, trust = SliceMask(one, own), EMPTY
        if seen and mask.area:
            trust = best + STABILITY * stability(one) - EDGE * touches_edge(mask, frame)
        found.append(MaskCandidate(plane_mask(frame, one), own, trust))
    return found


def expected(looks: Looks, ranking: MaskRanking) -> list[MaskCandidate]:
    """Masks trusted by the Dice that a ranking expects of them; least of all empty ones."""
    return [
        replace(one, trust=score if one.mask.any() else EMPTY)
        for one, score in zip(looks.masks, ranking.of_click(looks.features()), strict=True)
    ]


def plane_mask(frame: Frame, logits: Tensor) -> np.ndarray:
    """(H, W) bool of (m, m) logits on the whole slice."""
    rows, cols = in_plane(frame.axis)
    plane = np.zeros((frame.shape[rows], frame.shape[cols]), bool)
    image, region = frame.paste_slices()
    plane[image] = frame.restore(logits[None])[0].numpy()[region] > 0
    return plane


def distinct(ranked: Sequence[MaskCandidate], count: int) -> list[MaskCandidate]:
    """The first `count` that differ from those before them, filled up with what is left."""
    kept: list[MaskCandidate] = []
    for meaning in ranked:
        if all(overlap(meaning.mask, other.mask) < ALIKE for other in kept):
            kept.append(meaning)
    left = [meaning for meaning in ranked if not any(meaning is other for other in kept)]
    return [*kept, *left][:count]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two bool masks; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
