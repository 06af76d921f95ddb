"""Asking again what a session was asked, of another view of its volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from promptseg.backbones.base import PixelPrompts
from promptseg.inference.decoder import Request, SliceDecoder, SliceMask
from promptseg.inference.labels import Answers, FrameMasks, probabilities
from promptseg.predictor.automatic import consistent, decode_tokens
from promptseg.predictor.engine import Engine
from promptseg.predictor.question import Question
from promptseg.predictor.uncertainty.views import View
from promptseg.propagation.carrying import box_of, shown_as
from promptseg.volume.slicing import Frame

LEAST_SHARE = 1e-6


def ask_again(
    engine: Engine, question: Question, before: Sequence[FrameMasks], view: View
) -> list[FrameMasks]:
    """Answers of a view to the same question, each in the region of interest it had before.

    Args:
        engine: Of the volume as the view shows it.
        question: What was asked.
        before: The session's answers.
        view: What the engine's volume is of the session's.
    """
    axis = engine.axis
    prompts = view.prompts(question.prompts, axis, engine.shape)
    frames = [view.frame(group.frame) for group in before]
    given = set(prompts.targets)
    views = [
        (frame.region, [group.keys.get(t, t) for t in sorted(given & group.answers.keys())])
        for frame, group in zip(frames, before, strict=True)
    ]
    asked = [(region, targets) for region, targets in views if targets]
    named = {t: token for t, token in question.tokens.items() if t in given}
    dense = {t: np.flip(m, view.axes(axis)) for t, m in question.dense.items()}
    answered = engine.run(prompts, question.propagate, None, named, dense, asked) if asked else []
    for frame, group in zip(frames, before, strict=True):
        alone = group.answers.keys() - given
        tokens = {t: question.tokens[t] for t in alone if t in question.tokens and group.answers[t]}
        answered.append(FrameMasks(frame, answer_tokens(engine, frame, tokens, group)))
    return answered


def answer_tokens(
    engine: Engine, frame: Frame, tokens: Mapping[int, Tensor], before: FrameMasks
) -> Answers:
    """Answers to tokens on the slices that were answered before, and one beyond each end."""
    if not tokens:
        return {}
    held = [index for target in tokens for index in before.answers[target]]
    low, high = max(0, min(held) - 1), min(engine.shape[engine.axis], max(held) + 2)
    direct = decode_tokens(engine.decoder, frame, list(range(low, high)), tokens, "uncertainty")
    return {target: consistent(engine, frame, masks) for target, masks in direct.items()}


def other_candidates(decoder: SliceDecoder, before: Sequence[FrameMasks]) -> list[FrameMasks]:
    """Answers averaged over the network's candidates for an ambiguous prompt.

    Each slice is asked again with its own mask as the prompt. Candidates count by their predicted
    quality. Nothing is encoded.
    """
    answered = []
    for group in before:
        kept: Answers = {target: dict(masks) for target, masks in group.answers.items()}
        places = [
            (target, index)
            for target, masks in group.answers.items()
            for index, mask in masks.items()
            if mask.given is None and mask.area
        ]
        masks = [group.answers[target][index] for target, index in places]
        for (target, index), mask in zip(places, blended(decoder, group.frame, places, masks),
                                         strict=True):  # fmt: skip
            kept[target][index] = mask
        answered.append(replace(group, answers=kept))
    return answered


def blended(
    decoder: SliceDecoder,
    frame: Frame,
    places: Sequence[tuple[int, int]],
    masks: Sequence[SliceMask],
) -> list[SliceMask]:
    """Mean probability of the candidates of every (target, slice), as logits."""
    spec = decoder.backbone.spec
    shown_by = shown_as(spec)
    requests = []
    for (_, index), mask in zip(places, masks, strict=True):
        box = None if shown_by == "mask" else box_of(mask.logits, spec.input_size)
        shown = PixelPrompts(mask=mask.logits) if box is None else PixelPrompts(box=box)
        requests.append(Request(index, shown, ambiguous=True))
    if not requests:
        return []
    found = decoder.candidates(frame, requests)
    weights = found.quality / found.quality.sum(1, keepdim=True).clamp_min(LEAST_SHARE)
    share = (found.logits.sigmoid() * weights[..., None, None]).sum(1)
    logits = torch.logit(share, LEAST_SHARE)
    return [SliceMask(logits[n], mask.quality, mask.presence) for n, mask in enumerate(masks)]


def shares(
    answered: Sequence[FrameMasks], shape: tuple[int, int, int], target: int, view: View
) -> np.ndarray:
    """(I, J, K) float32 foreground probability of one target on the session's voxels."""
    groups = [group for group in answered if target in group.answers]
    if not groups:
        return np.zeros(shape, np.float32)
    return view.back(probabilities(groups, shape, target), groups[0].frame.axis)
