"""Uncertainty maps: how the answer varies over candidates, views and dropout, calibrated.

Test-time augmentation as in Wang et al., Aleatoric uncertainty estimation with test-time
augmentation for medical image segmentation, Neurocomputing 2019; dropout as in Gal and
Ghahramani, ICML 2016. Whole procedures are repeated, propagation included, so that a track that
ends elsewhere or drifts shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.inference.encoder import EmbeddingCache, Progress, SliceEncoder
from promptseg.inference.labels import FrameMasks
from promptseg.predictor.engine import Engine
from promptseg.predictor.question import Question
from promptseg.predictor.uncertainty.asking import ask_again, other_candidates, shares
from promptseg.predictor.uncertainty.calibration import Calibration
from promptseg.predictor.uncertainty.dropout import adapter_dropout
from promptseg.predictor.uncertainty.views import VIEWS, View

Shares = dict[int, np.ndarray]


@dataclass(frozen=True)
class Sources:
    """What an uncertainty map is made from.

    Args:
        candidates: The network's other masks for the same prompt.
        views: The volume shown in other ways, each answered from the start.
        draws: Answers with the adapter's dropout on; none without an adapter.
        rate: Share of an adapter layer's inputs that a draw drops.
        seed: Decides the draws.
    """

    candidates: bool = True
    views: tuple[View, ...] = VIEWS
    draws: int = 3
    rate: float = 0.1
    seed: int = 0


class Ensemble:
    """Answers the same question in several ways.

    Views that were encoded once are not encoded again.

    Args:
        engine: Of the session.
        adapter: True if an adapter is active.
        sources: What varies.
    """

    def __init__(self, engine: Engine, adapter: bool, sources: Sources | None = None) -> None:
        self.engine, self.adapter = engine, adapter
        self.sources = Sources() if sources is None else sources
        self._cache = EmbeddingCache()

    def members(
        self, question: Question, answered: Sequence[FrameMasks], progress: Progress | None = None
    ) -> Iterator[tuple[str, list[FrameMasks], View]]:
        """Kind, answers and view of every member, the given answers first.

        Args:
            question: What was asked.
            answered: The session's answers to it.
            progress: Called with "uncertainty", members done, members in all.
        """
        plain, sources = View(), self.sources
        draws = sources.draws if self.adapter else 0
        total, done = sources.candidates + len(sources.views) + draws, 0
        yield "answer", list(answered), plain
        if sources.candidates:
            yield "candidates", other_candidates(self.engine.decoder, answered), plain
            done += 1
        for view in sources.views:
            if progress is not None:
                progress("uncertainty", done, total)
            seen = self._seen(view, self._cache, repr(view))
            yield "views", ask_again(seen, question, answered, view), view
            done += 1
        for draw in range(draws):
            if progress is not None:
                progress("uncertainty", done, total)
            yield "dropout", self._drawn(question, answered, draw), plain
            done += 1
        if progress is not None:
            progress("uncertainty", done, total)

    def _drawn(
        self, question: Question, answered: Sequence[FrameMasks], draw: int
    ) -> list[FrameMasks]:
        module = self.engine.encoder.backbone.module
        seed = self.sources.seed * 1000 + draw
        fresh = self._seen(View(), EmbeddingCache(), f"draw {seed}")
        with adapter_dropout(module, self.sources.rate, seed):
            return ask_again(fresh, question, answered, View())

    def _seen(self, view: View, cache: EmbeddingCache, name: str) -> Engine:
        """An engine on the volume as a view shows it."""
        engine = self.engine
        data = view.show(engine.encoder.data, engine.axis)

        def showing(own: SliceEncoder) -> SliceEncoder:
            return SliceEncoder(
                own.backbone, data, name, own.device, own.precision, own.batch_size, cache,
                crop_factor=own.crop_factor,
            )  # fmt: skip

        return Engine(
            showing(engine.encoder), engine.axis, np.array(engine.spacing), engine.criteria,
            engine.consistency, engine.coarse, engine.step,
            None if engine.lent is None else showing(engine.lent), engine.ranking,
        )  # fmt: skip

    def shares(
        self, question: Question, answered: Sequence[FrameMasks], progress: Progress | None = None
    ) -> Shares:
        """(I, J, K) float32 probability by target: the mean over the members."""
        targets = sorted({t for group in answered for t in group.answers})
        total = {t: np.zeros(self.engine.shape, np.float32) for t in targets}
        count = 0
        for _, answers, view in self.members(question, answered, progress):
            for target in targets:
                total[target] += shares(answers, self.engine.shape, target, view)
            count += 1
        return {target: share / count for target, share in total.items()}


def uncertainty_map(
    labels: np.ndarray, shares: Mapping[int, np.ndarray], calibration: Calibration
) -> np.ndarray:
    """Twice the calibrated probability that a voxel's label is wrong, at most 1.

    0 is certain; 1 says that the label is no better than a coin's. Of one target with
    probability p this is 1 - |2p - 1| where p agrees with the label, else 1.

    Args:
        labels: (I, J, K) integers, 0 is background.
        shares: (I, J, K) probability by target before calibration.
        calibration: Of the model.

    Returns:
        (I, J, K) float32 in [0, 1].
    """
    right = np.zeros(labels.shape, np.float32)
    most = np.zeros(labels.shape, np.float32)
    for target, share in shares.items():
        probability = calibration(share)
        np.maximum(most, probability, out=most)
        here = labels == target
        right[here] = probability[here]
    outside = labels == 0
    right[outside] = 1 - most[outside]
    return np.clip(2 * (1 - right), 0, 1).astype(np.float32)


def overruled(
    shares: Mapping[int, np.ndarray], before: np.ndarray, after: np.ndarray
) -> dict[int, np.ndarray]:
    """Probabilities turned round where the user's clicks overruled the network.

    Args:
        shares: (I, J, K) probability by target.
        before: (I, J, K) labels that the network gave.
        after: The same after graph cut on the clicks.
    """
    if before is after:
        return dict(shares)
    turned = {}
    for target, share in shares.items():
        other = (before == target) != (after == target)
        turned[target] = np.where(other, 1 - share, share)
    return turned
