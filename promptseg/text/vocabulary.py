"""What is known by words: concepts, their names in English and Chinese, their parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from promptseg.io.toml_text import parse_toml
from promptseg.text.folding import fold
from promptseg.text.plain import plain_key

SIDES = {"left": "左", "right": "右"}
LEVELS = {"C": ("cervical", "颈", 7), "T": ("thoracic", "胸", 12), "L": ("lumbar", "腰", 5)}
RIBS = 12


@dataclass(frozen=True)
class Concept:
    """One thing that words can name.

    Args:
        name: Canonical name.
        names: Other names: synonyms, abbreviations, TG-263, Chinese.
        parts: Names of the concepts that make it up, empty for one that is whole.
    """

    name: str
    names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def wordings(self) -> tuple[str, ...]:
        """All names, the canonical one first."""
        return (self.name, *self.names)


class Vocabulary:
    """Concepts by name and by wording.

    Args:
        concepts: Of two with a wording in common, the first has it.
    """

    def __init__(self, concepts: Iterable[Concept]) -> None:
        self.concepts = {concept.name: concept for concept in concepts}
        self._by_key: dict[tuple[str, ...], str] = {}
        # Canonical names first: no synonym of another concept may take one.
        for concept in self.concepts.values():
            self._by_key.setdefault(fold(concept.name).key, concept.name)
        for concept in self.concepts.values():
            for words in concept.names:
                self._by_key.setdefault(fold(words).key, concept.name)
        self._by_plain_key = self._plain_keys()

    def _plain_keys(self) -> dict[tuple[str, ...], str]:
        """Name of a concept by the words of a wording that count.

        Wordings that have nothing else come first: `liver` before `hepatic vessel`.
        """
        wordings = [(w, c.name) for c in self.concepts.values() for w in c.wordings]
        keys = [(plain_key(fold(words)), fold(words).key, name) for words, name in wordings]
        found: dict[tuple[str, ...], str] = {}
        for key, _, name in sorted(keys, key=lambda row: row[0] != row[1]):
            if key:
                found.setdefault(key, name)
        return found

    def __len__(self) -> int:
        return len(self.concepts)

    def __contains__(self, name: str) -> bool:
        return name in self.concepts

    def __getitem__(self, name: str) -> Concept:
        return self.concepts[name]

    def find(self, words: str) -> Concept | None:
        """The concept that has these very words among its names, after folding."""
        name = self._by_key.get(fold(words).key)
        return None if name is None else self.concepts[name]

    def find_plain(self, words: str) -> Concept | None:
        """The concept that has a name of the same words, but for those that say nothing."""
        name = self._by_plain_key.get(plain_key(fold(words)))
        return None if name is None else self.concepts[name]

    def leaves(self, name: str) -> tuple[str, ...]:
        """The concept, its parts, their parts and so on, each once."""
        found = [name]
        for part in self.concepts[name].parts if name in self.concepts else ():
            found += [leaf for leaf in self.leaves(part) if leaf not in found]
        return tuple(found)


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Every concept of `concepts.toml`, sides and numbers written out."""
    concepts: list[Concept] = []
    for name, row in _rows().items():
        concepts += _sided(name, row) if row.get("sided") else [_plain(name, row)]
    return Vocabulary([*concepts, *_vertebrae(), *_ribs()])


def _rows() -> Mapping[str, Mapping[str, Any]]:
    return parse_toml(files(__package__).joinpath("concepts.toml").read_text(encoding="utf-8"))


def _plain(name: str, row: Mapping[str, Any]) -> Concept:
    return Concept(name, (*row.get("names", ()), *row.get("zh", ())), tuple(row.get("parts", ())))


def _sided(name: str, row: Mapping[str, Any]) -> list[Concept]:
    """The pair as a whole, and each of the two."""
    whole = _plain(name, row)
    each = []
    for side, sign in SIDES.items():
        names = [f"{side} {words}" for words in row.get("names", ())]
        names += [f"{sign}{words}" for words in row.get("zh", ())]
        each.append(Concept(f"{side} {name}", tuple(names), _PARTS.get(f"{side} {name}", ())))
    both = tuple(concept.name for concept in each)
    return [Concept(name, whole.names, whole.parts or both), *each]


_PARTS = {
    "left lung": ("left lung upper lobe", "left lung lower lobe"),
    "right lung": ("right lung upper lobe", "right lung middle lobe", "right lung lower lobe"),
}


def _vertebrae() -> list[Concept]:
    concepts = []
    for letter, (region, sign, count) in LEVELS.items():
        for n in range(1, count + 1):
            names = (f"{letter}{n}", f"vertebral body {letter}{n}", f"vertebra {letter} {n}",
                     f"{_ordinal(n)} {region} vertebra", f"第{n}{sign}椎", f"{sign}{n}椎体",
                     f"{letter}{n}椎体")  # fmt: skip
            concepts.append(Concept(f"vertebra {letter}{n}", names))
    return [*concepts, Concept("vertebra S1", ("S1", "vertebral body S1", "first sacral vertebra"))]


def _ribs() -> list[Concept]:
    return [
        Concept(
            f"{side} rib {n}",
            (f"{_ordinal(n)} {side} rib", f"{sign}第{n}肋", f"{sign}侧第{n}肋骨"),
        )
        for side, sign in SIDES.items()
        for n in range(1, RIBS + 1)
    ]


def _ordinal(n: int) -> str:
    return f"{n}{ ({1: 'st', 2: 'nd', 3: 'rd'}.get(n, 'th')) }"
