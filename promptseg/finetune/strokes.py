"""Cases of which only strokes are annotated, checked before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptseg.datasets.cohort import (
    Case,
    Images,
    Labels,
    Pair,
    named_files,
    open_cohort,
    present_labels,
    raise_all,
    read_image,
)
from promptseg.errors import FormatError, PromptsegError, VolumeError
from promptseg.prompts.types import Point, PromptSet, Scribble
from promptseg.volume import Volume

NOT_ANNOTATED, BACKGROUND = -1, 0
# A value that more than this share of the voxels has was hardly drawn by hand.
MOST_DRAWN = 0.5


@dataclass(frozen=True)
class StrokePair(Pair):
    """An image and the strokes on it.

    Args:
        ignore: Value of the voxels that nobody drew on.
    """

    ignore: int | None = None

    def load(self) -> Case:
        """Read both; labels are `NOT_ANNOTATED` where nobody drew."""
        if isinstance(self.label, Path) and self.label.suffix.lower() == ".json":
            volume = self.image if isinstance(self.image, Volume) else read_image(self.image)
            return Case(self.name, volume, drawn(PromptSet.load(self.label), volume))
        case = super().load()
        labels = case.labels.astype(np.int32)
        labels[case.labels == self.ignore] = NOT_ANNOTATED
        return Case(case.name, case.volume, labels)


def drawn(prompts: PromptSet, volume: Volume) -> NDArray[np.int32]:
    """Labels of the voxels that strokes and points lie on, `NOT_ANNOTATED` elsewhere.

    Strokes outside a target are background where no stroke is inside another; with several
    targets only those outside all of them, since what is not one may be another.

    Args:
        prompts: As a session or the demo saves them; boxes and masks are left out.
        volume: They lie on.
    """
    labels = np.full(volume.shape, NOT_ANNOTATED, np.int32)
    given = [p for p in prompts.to_voxel(volume) if isinstance(p, (Scribble, Point))]
    targets = {prompt.target for prompt in given}
    outside: dict[int, NDArray[np.bool_]] = {t: np.zeros(volume.shape, bool) for t in targets}
    for prompt in (p for p in given if not p.positive):
        outside[prompt.target][_voxels(prompt, volume)] = True
    if outside:
        labels[np.all(list(outside.values()), axis=0)] = BACKGROUND
    for prompt in (p for p in given if p.positive):
        labels[_voxels(prompt, volume)] = prompt.target
    return labels


def _voxels(prompt: Scribble | Point, volume: Volume) -> tuple[NDArray[np.int64], ...]:
    places = prompt.voxels if isinstance(prompt, Scribble) else np.array([prompt.at])
    whole = np.floor(np.asarray(places, float) + 0.5).astype(np.int64)
    return tuple(np.clip(whole, 0, np.array(volume.shape) - 1).T)


def open_strokes(
    images: Images,
    scribbles: Labels,
    wanted: Sequence[int],
    ignore: int | None,
    cases: int | tuple[int, int] | None = None,
    trusted: bool = False,
) -> list[StrokePair]:
    """Pair images and strokes by file name and check every chosen pair.

    Args:
        images: Folder, or list of files or volumes.
        scribbles: The same for label images; a folder may hold prompt files `<case>.json` or
            `<case>/prompts.json` instead, as the demo exports them.
        wanted: Labels that every case must have strokes of; empty takes those of any case.
        ignore: Value of the voxels of label images that nobody drew on.
        cases: As in `open_cohort`.
        trusted: As in `open_cohort`.

    Raises:
        FormatError: Files are missing, unmatched or cannot be read; every fault is listed.
        VolumeError: A value or a stroke is missing; every fault is listed.
    """
    if ignore in wanted:
        raise FormatError(
            f"ignore is {ignore}, which is also a label to learn: give the value of the voxels "
            "that nobody drew on"
        )
    prompts = _prompt_files(scribbles)
    if prompts:
        pairs = _chosen_prompts(images, prompts, cases)
    else:
        opened = open_cohort(images, scribbles, None, cases, trusted)
        pairs = [StrokePair(p.name, p.image, p.label, p.trusted, ignore=ignore) for p in opened]
    _check(pairs, wanted)
    return pairs


def _prompt_files(scribbles: Labels) -> dict[str, Path]:
    """Name -> prompt file, of a folder that holds any."""
    if not isinstance(scribbles, (str, os.PathLike)) or not Path(scribbles).is_dir():
        return {}
    folder = Path(scribbles)
    inner = {path.parent.name: path for path in sorted(folder.glob("*/prompts.json"))}
    return {path.stem: path for path in sorted(folder.glob("*.json"))} or inner


def _chosen_prompts(
    images: Images, prompts: dict[str, Path], cases: int | tuple[int, int] | None
) -> list[StrokePair]:
    found = named_files(images)
    lonely = sorted(found.keys() ^ prompts.keys())
    raise_all([FormatError(f"{name} has no {'prompt file' if name in found else 'image'}")
               for name in lonely])  # fmt: skip
    pairs = [StrokePair(name, found[name], prompts[name]) for name in sorted(found)]
    first, last = (1, cases) if isinstance(cases, int) else cases or (1, len(pairs))
    return pairs[first - 1 : last]


def _check(pairs: Sequence[StrokePair], wanted: Sequence[int]) -> None:
    faults: list[PromptsegError] = []
    known: dict[str, list[int]] = {}
    for pair in pairs:
        try:
            labels = pair.load().labels
            known[pair.name] = present_labels(labels)
            faults += _faults(pair, labels)
        except PromptsegError as error:
            faults.append(error)
    raise_all(faults)
    asked = list(wanted) or sorted({label for found in known.values() for label in found})
    missing = [(name, label) for name, found in known.items() for label in asked
               if label not in found]  # fmt: skip
    raise_all([VolumeError(f"{name}: no stroke of label {label}: draw one, or leave the case out")
               for name, label in missing])  # fmt: skip


def _faults(pair: StrokePair, labels: NDArray[np.integer]) -> list[PromptsegError]:
    """What keeps a case's strokes from being learned."""
    values, counts = np.unique(labels, return_counts=True)
    shares = dict(zip(values.tolist(), (counts / labels.size).tolist(), strict=True))
    shown = ", ".join(str(value) for value in values if value >= 0) or "none"
    if NOT_ANNOTATED not in shares:
        told = "no value is named" if pair.ignore is None else f"no voxel has it ({pair.ignore})"
        return [FormatError(f"{pair.name}: give the value of the voxels that nobody drew on as "
                            f"ignore: {told}; the file has {shown}")]  # fmt: skip
    large = [v for v, share in shares.items() if v > 0 and share > MOST_DRAWN]
    if large:
        return [VolumeError(f"{pair.name}: {100 * shares[large[0]]:.0f} % of the voxels have the "
                            f"value {large[0]}: is that the one that nobody drew on, rather than "
                            f"ignore = {pair.ignore}?")]  # fmt: skip
    if not present_labels(labels):
        return [VolumeError(f"{pair.name}: no stroke of any label")]
    if BACKGROUND not in shares:
        return [VolumeError(f"{pair.name}: no stroke on the background (value 0): without one, "
                            "nothing tells a label from what is none")]  # fmt: skip
    return []
