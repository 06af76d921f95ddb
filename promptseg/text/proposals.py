"""Words to a mask for a network that was never taught words.

The network proposes masks of whatever it sees, and an image-text model says which of them is
meant: the division of work between SAM and BiomedCLIP of MedCLIP-SAM (Koleilat et al., MICCAI
2024; v2, Medical Image Analysis 2025). There a saliency map of the image-text model makes a box
for SAM; here SAM's automatic masks are scored, so that one image-text model serves all backbones
and each answer comes with a score to refuse by.

Without a `Segmenter`, on any backbone of the protocol:

    encoder = SliceEncoder(backbone, grey, "my volume", torch.device("cpu"), "fp32")
    engine = Engine(encoder, axis=2, spacing=np.array([1.0, 1.0, 3.0]))
    scorer = Scorer(load_clip("models/BiomedCLIP"), modality="MR")
    found = propose_in_volume(engine, "left atrium", scorer)
    if isinstance(found, Proposal):
        answers = engine.run(PromptSet([found.prompt()]))
    else:
        print(found.reason)

The scores are the image-text model's own: calibrate `threshold` on data like yours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.errors import PromptError
from promptseg.inference.crop import frame_of
from promptseg.inference.encoder import Progress
from promptseg.predictor.automatic import body_region
from promptseg.predictor.engine import Engine
from promptseg.prompts.types import Mask
from promptseg.text.proposal_masks import Candidate, MaskRules, automatic_masks
from promptseg.text.proposal_scores import CONTRASTS, Scorer, mask_pictures
from promptseg.volume.slicing import Frame

THRESHOLD = 0.5
LOOKS = 12
TIE = 2


@dataclass(frozen=True)
class Proposal:
    """The mask that the words mean.

    Args:
        words: As they were given.
        mask: (H, W) bool on the whole slice.
        axis: Slice axis.
        index: Slice.
        score: Probability in [0, 1] that the mask is what the words mean.
        quality: Overlap in [0, 1] that the network predicts for the mask.
        candidates: Masks that were compared.
    """

    words: tuple[str, ...]
    mask: np.ndarray
    axis: int
    index: int
    score: float
    quality: float
    candidates: int

    def prompt(self, target: int = 1) -> Mask:
        """The same as a prompt, to be propagated."""
        return Mask(self.mask, target, self.axis, self.index)


@dataclass(frozen=True)
class Refused:
    """No mask is what the words mean.

    Args:
        words: As they were given.
        reason: Why, in a sentence.
        score: Of the likeliest mask; 0 if there was none.
        candidates: Masks that were compared.
    """

    words: tuple[str, ...]
    reason: str
    score: float
    candidates: int


def propose(
    engine: Engine,
    index: int,
    words: str | Sequence[str],
    scorer: Scorer,
    threshold: float = THRESHOLD,
    rules: MaskRules | None = None,
    contrasts: Sequence[str] = CONTRASTS,
) -> Proposal | Refused:
    """The mask on one slice that the words mean.

    Args:
        engine: Of the volume.
        index: Slice along the engine's axis.
        words: What is meant, or several names of it, in the language of the image-text model.
        scorer: Scores masks against words.
        threshold: Least score, in [0, 1].
        rules: Which masks are looked at.
        contrasts: What else might be there; the more, the surer the answer.

    Raises:
        PromptError: If there are no words, no such slice, or no contrast.
    """
    names = checked_names(words)
    _check(engine, index, threshold)
    frame = frame_of(engine.encoder, engine.axis, body_region(engine), engine.spacing)
    best, count = _best_on(engine, frame, index, names, scorer, rules, contrasts)
    return _judged(names, best, count, threshold, f"slice {index}")


def propose_in_volume(
    engine: Engine,
    words: str | Sequence[str],
    scorer: Scorer,
    every: int | None = None,
    threshold: float = THRESHOLD,
    rules: MaskRules | None = None,
    contrasts: Sequence[str] = CONTRASTS,
    progress: Progress | None = None,
) -> Proposal | Refused:
    """The mask in a volume that the words mean best, on one of its slices.

    Of masks whose scores agree to two decimals the largest is taken, the best to start a
    propagation from.

    Args:
        engine: Of the volume.
        words: As in `propose`.
        scorer: As in `propose`.
        every: Every which slice is looked at; None for about twelve slices.
        threshold: As in `propose`.
        rules: As in `propose`.
        contrasts: As in `propose`.
        progress: Called with "propose", slices done, slices to do.

    Raises:
        PromptError: As in `propose`, or if `every` is less than 1.
    """
    names, slices = checked_names(words), engine.shape[engine.axis]
    stride = -(-slices // LOOKS) if every is None else every
    if stride < 1:
        raise PromptError(f"every is {every}: use 1 for all slices, 2 for every second, ...")
    _check(engine, 0, threshold)
    indices = list(range(min(stride // 2, slices - 1), slices, stride))
    frame = frame_of(engine.encoder, engine.axis, body_region(engine), engine.spacing)
    found, count = [], 0
    for done, index in enumerate(indices):
        if done % engine.encoder.batch_size == 0:
            engine.encoder.embed(frame, indices[done : done + engine.encoder.batch_size])
        best, seen = _best_on(engine, frame, index, names, scorer, rules, contrasts)
        found += [] if best is None else [best]
        count += seen
        if progress is not None:
            progress("propose", done + 1, len(indices))
    best = max(found, key=lambda p: (round(p.score, TIE), int(p.mask.sum())), default=None)
    return _judged(names, best, count, threshold, f"{len(indices)} slices")


def checked_names(words: str | Sequence[str]) -> tuple[str, ...]:
    """Names of one thing; PromptError if there is none or one is blank."""
    names = (words,) if isinstance(words, str) else tuple(words)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise PromptError(f"words are {words!r}: name the target")
    return tuple(" ".join(name.split()) for name in names)


def _check(engine: Engine, index: int, threshold: float) -> None:
    count = engine.shape[engine.axis]
    if not 0 <= index < count:
        raise PromptError(f"slice {index} is not there: axis {engine.axis} has 0 to {count - 1}")
    if not 0 <= threshold <= 1:
        raise PromptError(f"threshold is {threshold}: use a probability in [0, 1]")


def _best_on(
    engine: Engine,
    frame: Frame,
    index: int,
    names: tuple[str, ...],
    scorer: Scorer,
    rules: MaskRules | None,
    contrasts: Sequence[str],
) -> tuple[Proposal | None, int]:
    """The likeliest mask of a slice, and how many there were."""
    candidates = automatic_masks(engine.decoder, frame, index, rules)
    if not candidates:
        return None, 0
    scores = scorer.score(_pictures(engine, index, candidates, scorer), names, contrasts)
    place = int(np.argmax(scores))
    best = candidates[place]
    count = len(candidates)
    score = float(scores[place])
    return Proposal(names, best.mask, engine.axis, index, score, best.quality, count), count


def _pictures(
    engine: Engine, index: int, candidates: Sequence[Candidate], scorer: Scorer
) -> np.ndarray:
    size = scorer.model.image_size
    return np.stack([mask_pictures(engine, index, one.mask, size) for one in candidates])


def _judged(
    names: tuple[str, ...], best: Proposal | None, count: int, threshold: float, where: str
) -> Proposal | Refused:
    if best is None:
        reason = f"{names[0]!r} was not found: no mask on {where} is trusted by the network"
        return Refused(names, reason, 0.0, 0)
    if not best.score >= threshold:
        reason = (
            f"{names[0]!r} was not found: the likeliest of {count} masks on {where} is it with "
            f"probability {best.score:.2f}, less than {threshold:.2f}"
        )
        return Refused(names, reason, best.score, count)
    return best
