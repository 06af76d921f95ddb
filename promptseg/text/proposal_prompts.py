"""Proposals in a session: words that no adapter knows become a mask prompt, or nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from promptseg.inference.crop import frame_of
from promptseg.inference.encoder import Progress
from promptseg.inference.labels import FrameMasks
from promptseg.predictor.automatic import body_region
from promptseg.predictor.engine import Engine
from promptseg.predictor.seen import Seen
from promptseg.text.proposal_scores import ImageText, Scorer
from promptseg.text.proposals import Proposal, Refused, propose_in_volume
from promptseg.text.vocabulary import vocabulary


@dataclass(frozen=True)
class Meant:
    """What became of words that the image-text model was asked for.

    Args:
        words: As the user gave them.
        name: As the image-text model was asked.
        found: The mask, or why there is none; None where other prompts say which is meant.
    """

    words: str
    name: str
    found: Proposal | Refused | None

    def told(self, target: int, model: ImageText, found: bool) -> dict[str, Any]:
        """The entry of `result.report["text"]`."""
        reason = note = None
        if isinstance(self.found, Refused):
            reason = self.found.reason
        elif self.found is None:
            note = "the other prompts say which is meant"
        else:
            note = f"proposed on slice {self.found.index} of axis {self.found.axis}"
        score = 1.0 if self.found is None else self.found.score
        return {"target": target, "words": self.words, "concept": self.name,
                "likeness": round(score, 3), "adapter": None,
                "text_model": getattr(model, "name", None),
                "sha256": getattr(model, "sha256", None), "labels": [], "found": found,
                "reason": reason, "nearest": [], "note": note}  # fmt: skip


class Proposer:
    """Asks an image-text model, once for the same words on the same slices.

    Args:
        model: Encodes pictures and texts.
        modality: Of the volume.
    """

    def __init__(self, model: ImageText, modality: str | None) -> None:
        self.model, self.scorer = model, Scorer(model, modality)
        self._found: dict[tuple[str | None, int, str], Proposal | Refused] = {}

    def find(
        self, engine: Engine, adapter: str | None, words: str, progress: Progress | None = None
    ) -> Meant:
        """The mask of some words seen with an adapter; known names are asked for in English."""
        name = english(words)
        key = adapter, engine.axis, name
        if key not in self._found:
            self._found[key] = propose_in_volume(engine, name, self.scorer, progress=progress)
        return Meant(words, name, self._found[key])


def english(words: str) -> str:
    """The concept's name where the words are listed for one, else the words."""
    concept = vocabulary().find(words)
    return words if concept is None else concept.name


def in_file(meant: Meant, seen: Seen) -> Meant:
    """What was found on a volume as the network sees it, on the voxels of its file."""
    if not isinstance(meant.found, Proposal):
        return meant
    mask = seen.mask_in_file(meant.found.prompt())
    slices = seen.slices_in_file(meant.found)
    return replace(meant, found=replace(slices, mask=mask.data))


def nowhere(engine: Engine, targets: list[int]) -> FrameMasks:
    """The answer of targets that were not found."""
    frame = frame_of(engine.encoder, engine.axis, body_region(engine), engine.spacing)
    return FrameMasks(frame, {target: {} for target in targets})
