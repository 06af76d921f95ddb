"""What the labels of a run are called, as the frozen text tower sees it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptseg.errors import WeightsError

FRAMES = ("{}", "{} region", "segment {}", "{} tissue", "whole {}", "{} contour")
CHINESE_FRAMES = ("{}", "{}区域", "分割{}", "{}组织", "整个{}", "{}轮廓")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelWords:
    """Wordings of each label and their embeddings.

    Args:
        names: Of each label, its name first.
        embeddings: Of each label, (V, D) of its wordings, that of its name first.
        tower: Digest of the tower.
    """

    names: tuple[tuple[str, ...], ...]
    embeddings: tuple[Tensor, ...]
    tower: str

    @property
    def size(self) -> int:
        """Length D of an embedding."""
        return int(self.embeddings[0].shape[1])

    def chosen(self, places: Sequence[int], numbers: Sequence[int] | None) -> Tensor:
        """(B, D) embeddings of B labels.

        Args:
            places: Of the labels.
            numbers: Of the views, which choose a wording each; None for the labels' names.
        """
        picks = [0] * len(places) if numbers is None else [n * 7919 + n // 8 for n in numbers]
        rows = [self.embeddings[p][k % len(self.embeddings[p])]
                for p, k in zip(places, picks, strict=True)]  # fmt: skip
        return torch.stack(rows)

    def to(self, device: torch.device) -> LabelWords:
        """The same on a device."""
        return LabelWords(self.names, tuple(e.to(device) for e in self.embeddings), self.tower)


def label_words(labels: Mapping[int, str], synonyms: Sequence[str] = ()) -> LabelWords | None:
    """Names, synonyms and listed words of labels through the tower; None where there is none.

    Args:
        labels: Name by label.
        synonyms: Of the only label.
    """
    try:
        from promptseg.text.tower import load_tower
        from promptseg.text.vocabulary import vocabulary

        tower = load_tower()
    except WeightsError as error:
        logger.warning("this adapter will not understand words: %s", error)
        return None
    names, embeddings = [], []
    for name in labels.values():
        concept = vocabulary().find(name)
        listed = () if concept is None else concept.wordings
        only = tuple(synonyms) if len(labels) == 1 else ()
        names.append(tuple(dict.fromkeys((name, *only, *listed))))
        embeddings.append(torch.from_numpy(tower.embed(framed(names[-1]))))
    return LabelWords(tuple(names), tuple(embeddings), tower.digest)


def framed(names: Sequence[str]) -> list[str]:
    """Each name alone and in a few phrases, the names first."""
    phrases = [
        frame.format(name)
        for n in range(1, len(FRAMES))
        for name in names
        for frame in ((FRAMES if name.isascii() else CHINESE_FRAMES)[n],)
    ]
    return [*names, *phrases]
