"""From words to the adapter and the labels that segment what they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from promptseg.adapters import Adapter, AdapterInfo, list_adapters, read_adapter
from promptseg.adapters.files import INFO
from promptseg.adapters.info import read_info
from promptseg.adapters.own_names import OWN, own_adapter, own_info
from promptseg.errors import AdapterError, PromptError
from promptseg.text.folding import fold
from promptseg.text.resolving import Resolved, Resolver, listed_concept
from promptseg.text.tower import TextTower, load_tower
from promptseg.text.vocabulary import Concept, vocabulary

if TYPE_CHECKING:
    from promptseg.adapters import AdapterStack


@dataclass(frozen=True)
class Choice:
    """What segments some words.

    Args:
        words: As they were given.
        name: Of the concept or label that they mean.
        likeness: 1 for a listed name, else the cosine to the concept.
        adapter: Name of the adapter.
        labels: Those of its labels that make up the concept.
        nearest: Names of the nearest known concepts, where the words are not listed.
        note: What the user should know of the choice, empty if nothing.
    """

    words: str
    name: str
    likeness: float
    adapter: str
    labels: tuple[int, ...]
    nearest: tuple[str, ...] = ()
    note: str = ""


class Selector:
    """Chooses among the adapters that are loaded, and those that are installed and fit.

    Args:
        stack: Of the segmenter.
        tower: Of other words than listed ones; None for the one that ships, read when needed.
        single_slice: True for images of one slice.
    """

    def __init__(
        self, stack: AdapterStack, tower: TextTower | None = None, single_slice: bool = False
    ) -> None:
        self.stack, self._tower, self.single_slice = stack, tower, single_slice

    @property
    def tower(self) -> TextTower:
        """The text tower."""
        if self._tower is None:
            self._tower = load_tower()
        return self._tower

    def infos(self) -> dict[str, AdapterInfo]:
        """What each adapter is: the active one first, then the user's own, then the installed.

        Of the installed those for fewer things come first: they know them better. Those for
        images of one slice are not asked of any other.
        """
        active, installed = self.stack.active, _installed()
        own_names = [name for name in self.stack.names if name not in installed]
        names = [*([] if active is None else [active.name]), *own_names]
        held = {name: self.stack.get(name).info for name in dict.fromkeys(names)}
        if self.stack.backbone.spec.concept:
            fitting = [(n, i) for n, i in installed.items() if self._fits(i)]
            fitting.sort(key=lambda pair: len(pair[1].labels))
            for name, info in fitting:
                held.setdefault(name, self._loaded(name) or info)
        # Last: an adapter knows its organ better than a network that knows many.
        own = own_info(self.stack.backbone)
        if own is not None and OWN not in held:
            held[OWN] = own
        return {name: info for name, info in held.items() if self._speaks(name, info)}

    def _loaded(self, name: str) -> AdapterInfo | None:
        return self.stack.get(name).info if name in self.stack.names else None

    def known(self) -> tuple[str, ...]:
        """Names of everything that words can ask for here."""
        return tuple(dict.fromkeys(n for i in self.infos().values() for n in i.labels.values()))

    def choose(self, words: str, modality: str | None = None) -> Choice:
        """Adapter and labels for some words.

        Args:
            words: As the user gave them.
            modality: Of the volume; an adapter for another one is taken only if there is no other.

        Raises:
            PromptError: The words mean nothing that is known, or nothing that any adapter here
                segments; names the nearest that are.
            WeightsError: The words are not listed and the text tower is missing or damaged.
        """
        infos = self.infos()
        installed = list_adapters()
        order = sorted(
            infos, key=lambda n: (_foreign(infos[n], modality),
                                  self._rank(n, infos[n], modality, n in installed)),
        )  # fmt: skip
        for name in order:
            labels = own_labels(infos[name], words)
            if labels:
                named = infos[name].labels[labels[0]] if len(labels) == 1 else infos[name].organ
                return Choice(words, named, 1.0, name, labels, note=_note(infos[name], modality))
        resolved = self._resolved(words)
        if resolved.concept is None:
            raise PromptError(self._unknown(resolved))
        found = _segmenting(resolved.concept, infos, order)
        if found is None:
            raise PromptError(self._unserved(resolved, resolved.concept))
        name, labels = found
        return Choice(words, resolved.concept.name, resolved.likeness, name, labels,
                      resolved.nearest, _note(infos[name], modality))  # fmt: skip

    def _rank(self, name: str, info: AdapterInfo, modality: str | None, installed: bool) -> int:
        """Lower is asked first on an image of one slice; of a volume all are equal.

        An installed adapter that is for its very modality, such as `cardiac` for MR, knows its
        organ better than one for many organs in pictures of any kind.
        """
        if not self.single_slice or self._active(name):
            return 0
        if not installed:
            return 4 if name == OWN else 0
        exact = modality is not None and info.modality == modality
        return 1 if exact else 2 if info.single_slice else 3

    def _active(self, name: str) -> bool:
        return self.stack.active is not None and self.stack.active.name == name

    def use(self, choice: Choice) -> Adapter:
        """The adapter of a choice, loaded if it was not."""
        if choice.adapter not in self.stack.names:
            own = own_adapter(self.stack.backbone) if choice.adapter == OWN else None
            self.stack.add(read_adapter(choice.adapter) if own is None else own)
        return self.stack.get(choice.adapter)

    def tokens(self, choice: Choice) -> dict[int, Tensor]:
        """(C,) token by label: that of the label's name, moved to the words if they are others."""
        adapter = self.use(choice)
        shift = None
        if choice.likeness < 1 and len(choice.labels) == 1 and self._projects(adapter):
            name = adapter.info.labels[choice.labels[0]]
            words, named = torch.from_numpy(self.tower.embed([choice.words, name]))
            shift = words - named
        return {label: adapter.token(label, shift) for label in choice.labels}

    def _projects(self, adapter: Adapter) -> bool:
        return adapter.projection is not None and adapter.info.text_sha256 == self.tower.digest

    def _resolved(self, words: str) -> Resolved:
        listed = listed_concept(words, vocabulary())
        if listed is not None:
            return Resolved(words, listed, 1.0)
        return Resolver(self.tower, vocabulary()).resolve(words)

    def _fits(self, info: AdapterInfo) -> bool:
        return self._same_base(info) and (self.single_slice or not info.single_slice)

    def _same_base(self, info: AdapterInfo) -> bool:
        return (
            info.family == self.stack.backbone.spec.family
            and info.base_sha256 == self.stack.base_sha256
        )

    def _speaks(self, name: str, info: AdapterInfo) -> bool:
        """True if an adapter has tokens; those not loaded were trained with them or not."""
        if name in self.stack.names:
            return bool(self.stack.get(name).tokens)
        return bool(info.settings.get("unprompted", 1))

    def _unknown(self, resolved: Resolved) -> str:
        return (
            f"text {resolved.words!r} is nothing that is known by words (likeness "
            f"{resolved.likeness:.2f}, at least {self.tower.threshold:.2f} is needed); nearest: "
            f"{', '.join(resolved.nearest) or 'nothing'}. {self._offer(resolved.words)}"
        )

    def _unserved(self, resolved: Resolved, concept: Concept) -> str:
        others = {n: i for n, i in _installed().items() if own_labels(i, resolved.words)}
        reasons = {n: "images of one slice" if self._same_base(i) else "another model"
                   for n, i in others.items()}  # fmt: skip
        trained = "".join(f" ({name} is for {what})" for name, what in reasons.items())
        meant = "" if concept.name == resolved.words else f" (taken as {concept.name})"
        return (
            f"text {resolved.words!r} is known{meant}, but no adapter here segments it{trained}. "
            f"{self._offer(resolved.words)}"
        )

    def _offer(self, words: str) -> str:
        known = self.known()
        if not known:
            return (
                "No adapter is loaded or installed that fits this model: give a point, a box or a "
                "scribble, or train one with promptseg finetune"
            )
        return (
            f"Nearest that can be asked for: {', '.join(self.nearest(words, known))}. Give one of "
            "them, or a point, a box or a scribble instead"
        )

    def nearest(self, words: str, among: Iterable[str], count: int = 3) -> tuple[str, ...]:
        """The nearest of some names; in their order where there is no tower to say."""
        from promptseg.errors import WeightsError

        names = tuple(among)
        concepts = {name: vocabulary().find(name) for name in names}
        listed = {c.name: name for name, c in concepts.items() if c is not None}
        try:
            ranked = Resolver(self.tower, vocabulary()).ranked(words, tuple(listed), len(listed))
        except WeightsError:
            return names[:count]
        ordered = [listed[name] for name in ranked]
        return tuple([*ordered, *(name for name in names if name not in ordered)][:count])


def own_labels(info: AdapterInfo, words: str) -> tuple[int, ...]:
    """Labels of an adapter that go by these very words; of its organ's name, all of them."""
    key = fold(words).key
    for label, name in info.labels.items():
        if fold(name).key == key:
            return (label,)
    for label, names in info.vocabulary.items():
        if any(fold(name).key == key for name in names):
            return (label,)
    whole = (info.organ, *info.synonyms)
    return tuple(info.labels) if any(fold(name).key == key for name in whole) else ()


def concepts_of(info: AdapterInfo) -> dict[int, Concept]:
    """The concept of each label that has one."""
    found = {label: vocabulary().find(name) for label, name in info.labels.items()}
    return {label: concept for label, concept in found.items() if concept is not None}


def labels_for(info: AdapterInfo, concept: Concept) -> tuple[int, ...]:
    """Labels that are the concept, or that are all of its parts; empty if neither."""
    by_name = {held.name: label for label, held in concepts_of(info).items()}

    def made_of(name: str) -> tuple[int, ...]:
        if name in by_name:
            return (by_name[name],)
        parts = [made_of(part) for part in vocabulary()[name].parts]
        return tuple(label for part in parts for label in part) if parts and all(parts) else ()

    return made_of(concept.name) if concept.name in vocabulary() else ()


def _segmenting(
    concept: Concept, infos: Mapping[str, AdapterInfo], order: Iterable[str]
) -> tuple[str, tuple[int, ...]] | None:
    """Adapter and labels of a concept; one that has it whole before one that has its parts."""
    found = [(name, labels_for(infos[name], concept)) for name in order]
    found = [(name, labels) for name, labels in found if labels]
    return min(found, key=lambda pair: len(pair[1]), default=None)


def _installed() -> dict[str, AdapterInfo]:
    """What the installed adapters are; one that cannot be read is as if it were not there."""
    infos = {}
    for name, folder in list_adapters().items():
        try:
            infos[name] = read_info(folder / INFO)
        except AdapterError:
            continue
    return infos


def _foreign(info: AdapterInfo, modality: str | None) -> bool:
    return None not in (info.modality, modality) and info.modality != modality


def _note(info: AdapterInfo, modality: str | None) -> str:
    if not _foreign(info, modality):
        return ""
    return f"the adapter was trained on {info.modality}, this volume is {modality}"
