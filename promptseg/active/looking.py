"""Looking at unlabelled cases: what an adapter's tokens answer on every slice, without a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from promptseg.active.features import class_probabilities, doubts, masked_feature, watching
from promptseg.active.samples import Sample, case_of
from promptseg.backbones.base import PixelPrompts
from promptseg.errors import AdapterError
from promptseg.inference.crop import frame_of
from promptseg.inference.decoder import ABSENT_LOGIT, Request
from promptseg.predictor.automatic import BODY_LEVEL, body_region
from promptseg.predictor.engine import Engine
from promptseg.predictor.examples import LEAST_PIXELS, spread
from promptseg.prompts.types import PromptSet
from promptseg.session import Segmenter
from promptseg.volume import Volume
from promptseg.volume.slicing import Frame

SLICES = 24
Progress = Callable[[str, int, int], None]


class Looker:
    """Looks at cases with one segmenter.

    Without an adapter there is no prediction: the body, all that is not black, stands for it, and
    nothing can be said about how sure the network is.

    Args:
        segmenter: With an adapter in use whose tokens say what is wanted, or with none.
        slices: Of a case, evenly; None takes all.
        uncertainty: True to compute the calibrated maps too, which takes several times as long.

    Raises:
        AdapterError: Uncertainty is wanted of a network without an adapter.
    """

    def __init__(
        self, segmenter: Segmenter, slices: int | None = SLICES, uncertainty: bool = False
    ) -> None:
        self.segmenter, self.slices, self.uncertainty = segmenter, slices, uncertainty
        if uncertainty and not segmenter.adapters.tokens:
            raise AdapterError("uncertainty needs an adapter that says what is looked for")

    def case(self, name: str, volume: Volume, path: str | Path = "") -> tuple[Sample, list[Sample]]:
        """A whole case, and the slices that were looked at.

        Args:
            name: Of the case.
            volume: Its image.
            path: Where it comes from.
        """
        engine = self._engine(volume)
        frame = frame_of(engine.encoder, engine.axis, body_region(engine), engine.spacing)
        count = engine.shape[engine.axis]
        chosen = range(count) if self.slices is None else spread(range(count), self.slices)
        tokens = self.segmenter.adapters.tokens
        looked = Looked(name, str(path), engine, frame, list(chosen))
        slices = _with_tokens(looked, tokens) if tokens else _whole_body(looked)
        doubt = self._doubt(volume) if self.uncertainty else None
        return case_of(slices, doubt), slices

    def _engine(self, volume: Volume) -> Engine:
        active = self.segmenter.adapters.active
        session = self.segmenter.session(volume)
        return session.asker.prepared(PromptSet(), "auto" if active is None else active.info.axis)

    def _doubt(self, volume: Volume) -> float:
        """Mean calibrated uncertainty about what was predicted; 1 where nothing was."""
        result = self.segmenter.segment(volume, uncertainty=True)
        inside = int((result.data > 0).sum())
        if result.uncertainty is None or not inside:
            return 1.0
        return float(result.uncertainty.sum()) / inside


@dataclass(frozen=True)
class Looked:
    """What is looked at of one case.

    Args:
        name: Of the case.
        path: Where it comes from.
        engine: Of its volume.
        frame: The view of its slices.
        indices: The slices.
    """

    name: str
    path: str
    engine: Engine
    frame: Frame
    indices: Sequence[int]


def _with_tokens(case: Looked, tokens: Mapping[int, Tensor]) -> list[Sample]:
    samples, engine, frame = [], case.engine, case.frame
    with watching(engine.encoder.backbone.module) as seen:
        for index in case.indices:
            maps, logits = [], []
            for token in tokens.values():
                answer = engine.decoder.decode(frame, [Request(index, PixelPrompts(),
                                                               concept=token)])[0]  # fmt: skip
                there = answer.presence >= 0.5
                logits.append(answer.logits if there
                              else torch.full_like(answer.logits, ABSENT_LOGIT))  # fmt: skip
                maps.append(seen[0][0] if seen else _finest(engine, frame, index))
            samples.append(slice_sample(case.name, case.path, index, maps, logits))
    return samples


def slice_sample(
    name: str, path: str, index: int, maps: Sequence[Tensor], logits: Sequence[Tensor]
) -> Sample:
    """A slice; a few stray pixels are no prediction.

    The feature is divided by the number of pixels: a slice with three of them would lie a hundred
    times as far from all others as any real one, and take a reference vector for itself.
    """
    masks = [one > 0 for one in logits]
    seen = sum(int(mask.sum()) for mask in masks) >= LEAST_PIXELS
    feature = masked_feature(maps, masks) if seen else None
    shares = class_probabilities(torch.stack(list(logits)))
    return Sample(name, index, feature, *doubts(shares), path=path)


def _whole_body(case: Looked) -> list[Sample]:
    shown = case.frame.extract(case.engine.encoder.data, case.indices)[:, 1]
    samples = []
    for row, index in enumerate(case.indices):
        features = _finest(case.engine, case.frame, index)
        feature = masked_feature([features], [shown[row] > BODY_LEVEL])
        samples.append(Sample(case.name, index, feature, 0.0, 0.0, 0.0, path=case.path))
    return samples


def _finest(engine: Engine, frame: Frame, index: int) -> Tensor:
    """(C, h, w) finest map that the encoder gives."""
    features = engine.encoder.embed(frame, [index]).features
    return max(features, key=lambda one: one.shape[-1])[0].float().cpu()


def features_of(samples: Sequence[Sample]) -> np.ndarray:
    """(N, 256) features of the samples that have one."""
    rows = [one.feature for one in samples if one.feature is not None]
    return np.stack(rows) if rows else np.zeros((0, 0))
