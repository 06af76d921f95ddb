"""Looking back at the latest answer of a session."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from promptseg.inference.encoder import Progress
from promptseg.inference.labels import FrameMasks, probabilities
from promptseg.predictor.candidates import MaskCandidate, candidates
from promptseg.predictor.engine import Engine
from promptseg.predictor.question import Question
from promptseg.predictor.seen import Seen
from promptseg.predictor.uncertainty.calibration import calibration_of
from promptseg.predictor.uncertainty.maps import Ensemble, Sources, overruled, uncertainty_map
from promptseg.predictor.uncertainty.suggestion import Place, Suggestion, suggest


@dataclass(frozen=True, eq=False)
class Interaction:
    """A question and its answer.

    Args:
        engine: What answered.
        adapter: Signature of the adapter then in use, empty for none.
        question: What was asked.
        answered: Masks on slices.
        before: (I, J, K) labels that the network gave.
        after: The same after graph cut on clicks, else the same array.
        seen: The volume as the network saw it; all of the above is on those voxels, what is
            given back is on the file's.
        ensemble: Answers the question in other ways; made when first needed.
    """

    engine: Engine
    adapter: str
    question: Question
    answered: list[FrameMasks]
    before: np.ndarray
    after: np.ndarray
    seen: Seen
    ensemble: Ensemble | None = None

    def following(self, earlier: Interaction | None) -> Interaction:
        """The same, with what an earlier answer of the same engine has encoded."""
        if earlier is None or earlier.engine is not self.engine or earlier.adapter != self.adapter:
            return self
        return replace(self, ensemble=earlier.ensemble)

    def ready(self, sources: Sources | None) -> Interaction:
        """The same with an ensemble of these sources."""
        wanted = Sources() if sources is None else sources
        if self.ensemble is not None and self.ensemble.sources == wanted:
            return self
        return replace(self, ensemble=Ensemble(self.engine, bool(self.adapter), wanted))

    def uncertainty(self, progress: Progress | None = None) -> np.ndarray:
        """(I, J, K) float32 in [0, 1], see `uncertainty_map`."""
        ensemble = self.ensemble or Ensemble(self.engine, bool(self.adapter))
        shares = ensemble.shares(self.question, self.answered, progress)
        calibration = calibration_of(self.engine.encoder.backbone.spec.sha256)
        turned = overruled(shares, self.before, self.after)
        return self.seen.in_file(uncertainty_map(self.after, turned, calibration))

    def suggest(
        self, target: int | None = None, checked: Collection[Place] = ()
    ) -> Suggestion | None:
        """The slice most worth correcting next, of one target or of all, see `suggest`."""
        targets = None if target is None else (target,)
        places = {(*self.seen.network_slice(axis, i), of) for axis, i, of in checked}
        found = suggest(self.answered, self.question.prompts, targets, places)
        return None if found is None else self.seen.slices_in_file(found)

    def candidates(self, target: int) -> list[MaskCandidate]:
        """Every mask that the prompts on a target's first slice could mean, see `candidates`."""
        found = candidates(self.engine, self.question.prompts, self.answered, target)
        return [replace(one, mask=self.seen.in_file(one.mask)) for one in found]

    def probability(self, target: int) -> np.ndarray:
        """(I, J, K) float32 probability of a target as the network gave it."""
        groups = [group for group in self.answered if target in group.answers]
        if not groups:
            return np.zeros(self.seen.file.shape, np.float32)
        return self.seen.in_file(probabilities(groups, self.engine.shape, target))
