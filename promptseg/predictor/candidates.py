"""What an ambiguous prompt could mean: every candidate mask of the network, not only the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from promptseg.errors import PromptError
from promptseg.inference.decoder import Request, SliceMask
from promptseg.inference.labels import FrameMasks, probabilities
from promptseg.inference.multimask import MaskCandidate
from promptseg.inference.slice_prompts import SlicePrompts, sort_prompts
from promptseg.predictor.components import boxed_parts
from promptseg.predictor.engine import Engine
from promptseg.predictor.rings import clicked_at, middle_of, surrounds
from promptseg.prompts.types import PromptSet
from promptseg.refine.strokes import obeyed
from promptseg.volume.slicing import take_slice


def candidates(
    engine: Engine, prompts: PromptSet, answered: Sequence[FrameMasks], target: int
) -> list[MaskCandidate]:
    """Candidates of a target on its first prompted slice, the most trusted first.

    Args:
        engine: What answered.
        prompts: In voxels and checked.
        answered: Its answers to them; candidates are seen in the same view.
        target: Which target.

    Raises:
        PromptError: Nothing says where the target is on any slice.
    """
    part = boxed_parts(prompts.for_target(target), engine.axis)[0]
    slices = sort_prompts(PromptSet(part), engine.axis, engine.shape).get(target, {})
    places = [(index, place) for index, place in slices.items() if place.starts]
    groups = (g for g in answered if target in g.answers and g.keys.get(target, target) == target)
    group = next(groups, None)
    if not places or group is None:
        raise PromptError(f"target {target} has no prompt that says where it is")
    index, place = places[0]
    given = PromptSet(part)
    said = group.answers[target][index]
    answer = MaskCandidate(_painted(group, index, said.logits, engine.shape), said.quality)
    meant = engine.mask_candidates(index, place)
    if meant:
        shown = [answer, *_others(meant[1:], answer, engine, index)]
    else:
        shown = _of_network(engine, group, index, place)
        if place.only_box:
            capped = [replace(c, quality=min(answer.quality, c.quality)) for c in shown[1:]]
            shown = [answer, *_inside(engine, group, index, place, answer), *capped]
    return [_as_given(one, given, target, engine.axis, index) for one in shown]


def _of_network(
    engine: Engine, group: FrameMasks, index: int, place: SlicePrompts
) -> list[MaskCandidate]:
    """The candidate masks of the network, in the order of their predicted quality."""
    pixels = place.to_pixels(group.frame, index, engine.encoder.backbone.spec.mask_size)
    found = engine.decoder.candidates(group.frame, [Request(index, pixels, True, place.concept)])
    ordered = found.quality[0].argsort(descending=True).tolist()
    masks = ((n, _painted(group, index, found.logits[0, n], engine.shape)) for n in ordered)
    return [MaskCandidate(mask, float(found.quality[0, n])) for n, mask in masks]


def _inside(
    engine: Engine, group: FrameMasks, index: int, place: SlicePrompts, first: MaskCandidate
) -> Iterator[MaskCandidate]:
    """What a ring around the middle of a box surrounds, if that is what the box gave."""
    if place.box is None:
        return
    middle = middle_of(*place.box)
    if surrounds(first.mask, engine.axis, *place.box):
        side = engine.encoder.backbone.spec.mask_size
        clicked = clicked_at(place, middle).to_pixels(group.frame, index, side)
        answer = engine.decoder.decode(group.frame, [Request(index, clicked)])[0]
        mask = _painted(group, index, answer.logits, engine.shape)
        yield MaskCandidate(mask, min(first.quality, answer.quality))


def _as_given(
    candidate: MaskCandidate, prompts: PromptSet, target: int, axis: int, index: int
) -> MaskCandidate:
    """A candidate with the clicks and strokes of its slice as they were given, as answers are."""
    labels = obeyed(np.where(candidate.mask, target, 0), prompts)
    mask = np.zeros(labels.shape, bool)
    take_slice(mask, axis, index)[:] = take_slice(labels, axis, index) == target
    return replace(candidate, mask=mask)


def _others(
    meant: Sequence[MaskCandidate], answer: MaskCandidate, engine: Engine, index: int
) -> Iterator[MaskCandidate]:
    """What else a click could mean; no quality is above that of a more trusted candidate."""
    quality = answer.quality
    for meaning in meant:
        mask = np.zeros(engine.shape, bool)
        take_slice(mask, engine.axis, index)[:] = meaning.mask
        quality = min(quality, meaning.quality)
        yield MaskCandidate(mask, quality)


def _painted(
    group: FrameMasks, index: int, logits: Tensor, shape: tuple[int, int, int]
) -> np.ndarray:
    alone = FrameMasks(group.frame, {1: {index: SliceMask(logits, 1.0, 1.0)}})
    return probabilities([alone], shape, 1) > 0.5
