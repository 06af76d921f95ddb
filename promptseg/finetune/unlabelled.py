"""Images without labels, checked against those with labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptseg.datasets.cohort import Images, Pair, named_files, raise_all, read_image
from promptseg.errors import FormatError, PromptsegError, VolumeError
from promptseg.predictor.seen import Seen
from promptseg.prompts.types import PromptSet
from promptseg.volume import Volume, with_modality

# Voxels up to this many times finer or coarser than those of labelled cases show the same things.
MOST_FACTOR = 2.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unlabelled:
    """Where an image without labels comes from.

    Args:
        name: Case name.
        image: File, or a volume in memory.
    """

    name: str
    image: Path | Volume

    def load(self) -> Volume:
        """Read it."""
        return self.image if isinstance(self.image, Volume) else read_image(self.image)


@dataclass(frozen=True)
class Kind:
    """What images of one cohort have in common.

    Args:
        modality: Of the file, else the recipe's, else what the grey values say; None if unsure.
        flat: True for an image of one slice.
        spacing: (3,) millimetres, slices first.
    """

    modality: str | None
    flat: bool
    spacing: NDArray[np.floating]


def kind_of(volume: Volume, axis: str, assumed: str | None = None) -> Kind:
    """Modality, slices and spacing; `assumed` where a file does not say its modality."""
    seen = Seen.of(volume)
    chosen = seen.axis(PromptSet(), axis)
    order = [chosen, *(a for a in range(3) if a != chosen)]
    told = None if volume.guessed else volume.modality
    found = told or assumed or with_modality(volume).modality
    return Kind(found, seen.volume.shape[chosen] == 1, np.asarray(seen.volume.spacing)[order])


def open_unlabelled(
    images: Images,
    labelled: Sequence[Pair],
    held_out: Iterable[str],
    axis: str,
    cases: tuple[int, int] | int | None = None,
    modality: str | None = None,
) -> list[Unlabelled]:
    """Images without labels; those that are labelled or held out are left out by name.

    Args:
        images: Folder, or list of files or volumes.
        labelled: Cases to learn from with labels.
        held_out: Names of the validation cases.
        axis: Slice axis, as in the recipe.
        cases: First and last in sorted order; None takes all.
        modality: Of files that do not say theirs; None goes by their values.

    Raises:
        FormatError: None is left, or one cannot be read.
        VolumeError: One has another modality, dimension or grid than the labelled cases; every
            fault is listed.
    """
    found = named_files(images)
    names = sorted(found)
    first, last = (1, cases) if isinstance(cases, int) else cases or (1, len(names))
    taken = _left(found, names[first - 1 : last], labelled, set(held_out))
    if not taken:
        raise FormatError(
            f"no unlabelled image: {len(found)} found, "
            f"{len(names[first - 1 : last])} of them chosen, and those are labelled or validation "
            "cases: give further images"
        )
    known = [kind_of(pair.load().volume, axis, modality) for pair in labelled]
    faults = [fault for one in taken if (fault := _fault(one, known, axis, modality)) is not None]
    raise_all(faults)
    return taken


def _left(
    found: Mapping[str, Path | Volume],
    chosen: Sequence[str],
    labelled: Sequence[Pair],
    held_out: set[str],
) -> list[Unlabelled]:
    """Those that are not known under another role; volumes in memory are told by themselves."""
    names = {p.name for p in labelled if isinstance(p.image, Path)} | held_out
    volumes = [id(pair.image) for pair in labelled]
    kept = [
        Unlabelled(name, found[name])
        for name in chosen
        if id(found[name]) not in volumes and (name not in names or isinstance(found[name], Volume))
    ]
    if len(kept) < len(chosen):
        logger.warning("%d of %d unlabelled images are labelled or validation cases and left out",
                       len(chosen) - len(kept), len(chosen))  # fmt: skip
    return kept


def _fault(
    one: Unlabelled, known: Sequence[Kind], axis: str, modality: str | None
) -> PromptsegError | None:
    try:
        kind = kind_of(one.load(), axis, modality)
    except (FormatError, VolumeError) as error:
        return error
    modalities = sorted({other.modality for other in known if other.modality is not None})
    if modalities and kind.modality not in (None, *modalities):
        return VolumeError(f"unlabelled {one.name} is {kind.modality}, the labelled cases are "
                           f"{' and '.join(modalities)}")  # fmt: skip
    if kind.flat not in {other.flat for other in known}:
        shown = ("one slice", "several") if kind.flat else ("several slices", "one")
        return VolumeError(f"unlabelled {one.name} has {shown[0]}, the labelled cases have "
                           f"{shown[1]}")  # fmt: skip
    spacings = np.stack([other.spacing for other in known])
    low, high = spacings.min(0) / MOST_FACTOR, spacings.max(0) * MOST_FACTOR
    if ((kind.spacing < low) | (kind.spacing > high)).any():
        return VolumeError(
            f"unlabelled {one.name} has another grid: voxels of {_shown(kind.spacing)} mm, the "
            f"labelled cases {_shown(spacings.min(0))} to {_shown(spacings.max(0))}"
        )
    return None


def _shown(spacing: NDArray[np.floating]) -> str:
    return " x ".join(f"{side:.3g}" for side in spacing)
