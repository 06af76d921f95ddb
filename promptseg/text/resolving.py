"""Words to a known concept, or an honest no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptseg.text.folding import Folded, fold
from promptseg.text.heads import head_of
from promptseg.text.plain import pieces
from promptseg.text.tower import TextTower
from promptseg.text.vocabulary import Concept, Vocabulary

NEAREST = 3
COVERED = 0.5


@dataclass(frozen=True)
class Resolved:
    """What some words mean.

    Args:
        words: As they were given.
        concept: None where they mean nothing that is known.
        likeness: 1 for a listed name, else less; of refused words that to the nearest concept.
        nearest: Names of the nearest concepts, best first.
    """

    words: str
    concept: Concept | None
    likeness: float
    nearest: tuple[str, ...] = ()

    @property
    def listed(self) -> bool:
        """True if the words are one of the concept's names."""
        return self.concept is not None and self.likeness == 1.0


def listed_concept(words: str, known: Vocabulary) -> Concept | None:
    """The concept that words name by a listed name, alone or as what a phrase is about."""
    return known.find(words) or known.find_plain(words) or head_of(words, known)


class Resolver:
    """Finds the concept that words mean.

    Listed names are looked up, also with words such as `region` around them and with what
    describes them (`the spleen in the upper abdomen`). Other words go through the tower: the
    concept is that with the greatest mean of cosine and, weighing half as much, the share of the
    words that stand in its names, among those of the same side and the same numbers: no likeness
    of two organs makes up for left and right.

    Args:
        tower: With a vector for each concept, and the threshold.
        known: The vocabulary.
    """

    def __init__(self, tower: TextTower, known: Vocabulary) -> None:
        self.tower, self.known = tower, known
        self.names = [name for name in known.concepts if name in tower.concepts]
        self._vectors = np.stack([tower.concepts[name] for name in self.names])
        self._numbers = [fold(name).numbers for name in self.names]
        folded = [[fold(words) for words in known[name].wordings] for name in self.names]
        # The heart muscle is that of the left ventricle, but has a name without a side.
        self._sides = [{f[0].side} | {other.side for other in f if other.side} for f in folded]
        self._pieces = [{piece for one in f for piece in pieces(one)} for f in folded]

    def resolve(self, words: str) -> Resolved:
        """The concept, or none with the nearest ones."""
        listed = listed_concept(words, self.known)
        if listed is not None:
            return Resolved(words, listed, 1.0)
        near = self.nearest(words)
        names = tuple(name for name, _ in near)
        if near and near[0][1] >= self.tower.threshold:
            return Resolved(words, self.known[near[0][0]], min(near[0][1], 0.999), names)
        return Resolved(words, None, near[0][1] if near else 0.0, names)

    def nearest(self, words: str, count: int = NEAREST) -> list[tuple[str, float]]:
        """The nearest concepts that the words may mean, with their likeness, best first."""
        folded = fold(words)
        if not folded.words:
            return []
        likeness = self.likeness(words)
        order = [n for n in np.argsort(-likeness) if self._agrees(int(n), folded)]
        return [(self.names[n], float(likeness[n])) for n in order[:count]]

    def likeness(self, words: str) -> np.ndarray:
        """(C,) likeness of words and concepts, at most 1."""
        said = pieces(fold(words))
        covered = [sum(piece in held for piece in said) for held in self._pieces]
        shares = np.array(covered) / max(1, len(said))
        cosines = self._vectors @ self.tower.embed([words])[0]
        return (cosines + COVERED * shares) / (1 + COVERED)

    def _agrees(self, place: int, words: Folded) -> bool:
        return words.side in self._sides[place] and words.numbers == self._numbers[place]

    def ranked(self, words: str, among: Sequence[str], count: int = NEAREST) -> tuple[str, ...]:
        """The nearest of some concepts, whatever their side."""
        places = {name: n for n, name in enumerate(self.names)}
        likeness = self.likeness(words)
        held = [name for name in among if name in places]
        held.sort(key=lambda name: -float(likeness[places[name]]))
        return tuple([*held, *(name for name in among if name not in places)][:count])
