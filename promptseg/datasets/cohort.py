"""Cases of a cohort: images and labels paired by file name, checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from promptseg.datasets.folders import pair_folders, suffixes
from promptseg.datasets.folders import stem as case_name
from promptseg.errors import FormatError, PromptsegError, VolumeError
from promptseg.io import Image, pictures
from promptseg.io import read_image as read_content
from promptseg.io.labels import labels_on, on_grid, whole_labels
from promptseg.volume import Segmentation, Volume, read

__all__ = [
    "Case", "Images", "Labels", "Pair", "case_files", "case_name", "load_cases", "named_files",
    "notes_of", "open_cohort", "present_labels", "raise_all", "read_image", "read_labels",
    "whole_labels",
]  # fmt: skip

PathLike: TypeAlias = "str | os.PathLike[str]"
Images: TypeAlias = "PathLike | Sequence[PathLike | Volume]"
Labels: TypeAlias = "PathLike | Sequence[PathLike | Volume | Segmentation]"

YES = 255
"""What pictures and some tools write for "yes" where there is one label."""


@dataclass(frozen=True)
class Case:
    """One image with its known labels.

    Args:
        name: File name without its suffix.
        volume: The image.
        labels: (I, J, K) integers on its grid; below 0 where a voxel is to be ignored.
        notes: What was made of the labels, each a sentence.
    """

    name: str
    volume: Volume
    labels: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Where one case comes from.

    Args:
        name: File name without its suffix.
        image: File, or a volume in memory.
        label: File, or labels in memory.
        trusted: True to match voxels by their place in the arrays, whatever the affines say.
        yes: Value that means label 1; None for none.
        notes: What was made of this case, each a sentence.
        target: Label to take where labels share voxels, as in an RTSTRUCT; None takes none.
    """

    name: str
    image: Path | Volume
    label: Path | Volume | Segmentation
    trusted: bool = False
    yes: int | None = None
    notes: tuple[str, ...] = ()
    target: int | None = None

    def load(self) -> Case:
        """Read both; the first fault found is raised."""
        volume = self.image if isinstance(self.image, Volume) else read_image(self.image)
        grid = Image(volume.data, volume.affine, header=volume.header)
        if isinstance(self.label, Path):
            known = labels_on(self.label, grid, trusted=self.trusted)
        else:
            held = Image(self.label.data, self.label.affine)
            known = on_grid(self.name, held, grid, self.trusted)
        labels = self._apart(known)
        if self.yes is not None:
            labels = np.where(labels == self.yes, 1, labels).astype(labels.dtype, copy=False)
        return Case(self.name, volume, labels, known.notes)

    def _apart(self, known: Image) -> np.ndarray:
        """One label a voxel."""
        if not known.layers:
            return known.data
        if self.target is None:
            listed = ", ".join(f"{n} {known.names.get(n, '')}".strip() for n in known.targets)
            raise VolumeError(
                f"{self.name}: its labels share voxels: choose one with --label (label=): {listed}"
            )
        return np.where(known.mask(self.target), self.target, 0).astype(known.data.dtype)


def open_cohort(
    images: Images,
    labels: Labels,
    label: int | None = None,
    cases: int | tuple[int, int] | None = None,
    trusted: bool = False,
) -> list[Pair]:
    """Pair images and labels and check every chosen pair.

    A case without the label, or without any, is a negative, with a note. 255 means label 1 where
    the cases have no other label but 1.

    Args:
        images: Folder, or a list of files or volumes; for folders see `pair_folders`.
        labels: The same for the labels.
        label: Label that some case must have; None asks for any label.
        cases: Only the first N cases in sorted order, or the cases from first to last, counted
            from 1.
        trusted: True to match voxels by their place in the arrays, whatever the affines say.

    Raises:
        FormatError: Files are missing, unmatched or cannot be read; every fault is listed.
        VolumeError: Grids differ or a label is absent; every fault is listed.
    """
    pairs, faults, notes = _paired(images, labels)
    chosen = [replace(pair, trusted=trusted, target=label) for pair in _chosen(pairs, cases)]
    read: list[tuple[Pair, list[int]]] = []
    for pair in chosen:
        try:
            case = pair.load()
            said = tuple(f"{pair.name}: {text}" for text in case.notes)
            read.append((replace(pair, notes=said), present_labels(case.labels)))
        except (FormatError, VolumeError) as error:
            faults.append(error)
    raise_all(faults)
    if not chosen:
        raise FormatError(f"no case in {images}: give images ending in {', '.join(suffixes())}")
    return _with_negatives(read, label, notes)


def _with_negatives(
    read: Sequence[tuple[Pair, list[int]]], label: int | None, notes: Sequence[str]
) -> list[Pair]:
    """The pairs with what is to be said of them; refused if none has the label."""
    every = {value for _, present in read for value in present}
    yes = YES if YES in every and every <= {1, YES} and label != YES else None
    every = {1} if yes else every
    wanted = every if label is None else every & {label}
    if not wanted:
        what = "any label, every voxel is 0" if label is None else f"label {label}"
        shown = f", present {sorted(every)}" if every else ""
        raise VolumeError(f"none of the {len(read)} cases has {what}{shown}")
    told = list(notes)
    if yes:
        told.append(f"{YES} in the labels means yes: it is taken for label 1")
    absent = [pair.name for pair, present in read
              if not wanted & ({1} if yes and present else set(present))]  # fmt: skip
    if absent:
        which = "no label" if label is None else f"no label {label}"
        told.append(f"{len(absent)} of {len(read)} cases have {which} and are negatives: "
                    + ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else ""))  # fmt: skip
    pairs = [replace(pair, yes=yes) for pair, _ in read]
    pairs[0] = replace(pairs[0], notes=(*told, *pairs[0].notes))
    return pairs


def notes_of(pairs: Sequence[Pair]) -> list[str]:
    """What was made of the cases, each sentence once."""
    return list(dict.fromkeys(text for pair in pairs for text in pair.notes))


def parse_cases(text: str | None, option: str) -> int | tuple[int, int] | None:
    """`N`, `A-B` or nothing, as `open_cohort` takes it.

    Raises:
        FormatError: It is neither, or the range ends before it starts.
    """
    if text is None:
        return None
    parts = str(text).split("-")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise FormatError(f"{option} is {text!r}: give a number from 1 up, or a range such as 1-16")
    first, last = int(parts[0]), int(parts[-1])
    if first > last:
        raise FormatError(f"{option} is {text!r}: the range must not end before it starts")
    return first if len(parts) == 1 else (first, last)


def case_files(folder: PathLike, role: str = "image") -> dict[str, Path]:
    """File by case name in a folder of images, or of labels with the role `mask`.

    Args:
        folder: One file a case, or one folder a case with `image.*` (or `mask.*`) in it.
        role: `image` or `mask`.

    Raises:
        FormatError: There is no such folder, no case in it, or a case is there twice.
    """
    faults: list[PromptsegError] = []
    found = _files(Path(os.fspath(folder)), role, faults)
    raise_all(faults)
    if not found:
        raise FormatError(f"no case in {folder}: give files ending in {', '.join(suffixes())}")
    return found


def raise_all(faults: Sequence[PromptsegError]) -> None:
    """Raise one error that lists every fault; nothing if there is none."""
    if not faults:
        return
    kind = FormatError if any(isinstance(f, FormatError) for f in faults) else VolumeError
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    raise kind(f"{count} in the cases: " + "; ".join(str(fault) for fault in faults))


def load_cases(pairs: Sequence[Pair]) -> Iterator[Case]:
    """Read the cases one at a time."""
    for pair in pairs:
        yield pair.load()


def named_files(source: Images, role: str = "image") -> dict[str, Path | Volume]:
    """Name -> file or volume of every image, or of labels with the role `mask`.

    Raises:
        FormatError: There is no such folder, or a name is there twice.
    """
    if not isinstance(source, (str, os.PathLike)):
        return {pair.name: pair.image for pair in _listed(source, list(source))}
    faults: list[PromptsegError] = []
    found = _files(Path(os.fspath(source)), role, faults)
    raise_all(faults)
    return dict(found)


def read_image(path: Path) -> Volume:
    """Read a volume, or a picture as a volume of one slice."""
    return read(path)


def read_labels(path: Path) -> Volume:
    """Read the labels of a volume or a picture."""
    flat = path.suffix.lower() in pictures.SUFFIXES
    image = pictures.read_labels(path) if flat else read_content(path)
    try:
        return Volume(image.data, image.affine, header=image.header, source=path)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from error


def present_labels(labels: np.ndarray) -> list[int]:
    """Labels above 0 that occur, in order."""
    return [int(value) for value in np.unique(labels) if value > 0]


def _paired(images: Images, labels: Labels) -> tuple[list[Pair], list[PromptsegError], list[str]]:
    if isinstance(images, (str, os.PathLike)) != isinstance(labels, (str, os.PathLike)):
        raise FormatError("give images and labels both as folders or both as lists")
    if not isinstance(images, (str, os.PathLike)) and not isinstance(labels, (str, os.PathLike)):
        if len(images) != len(labels):
            raise FormatError(f"{len(images)} images but {len(labels)} labels: give pairs")
        return _listed(images, labels), [], []
    found = pair_folders(Path(images), Path(labels))  # type: ignore[arg-type]
    return [Pair(*pair) for pair in found.pairs], found.faults, found.notes


def _listed(
    images: Sequence[PathLike | Volume], labels: Sequence[PathLike | Volume | Segmentation]
) -> list[Pair]:
    pairs = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True), start=1):
        image = image if isinstance(image, Volume) else Path(image)
        kept = label if isinstance(label, (Volume, Segmentation)) else Path(label)
        source = image.source if isinstance(image, Volume) else image
        pairs.append(
            Pair(f"case{number}" if source is None else case_name(Path(source)), image, kept)
        )
    names = [pair.name for pair in pairs]
    if len(set(names)) == len(names):
        return pairs
    return [Pair(f"{n}_{p.name}", p.image, p.label) for n, p in enumerate(pairs, start=1)]


def _files(folder: Path, role: str, faults: list[PromptsegError]) -> dict[str, Path]:
    """Name -> file of every case in a folder of files, or of folders with `role.*`."""
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder")
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and _readable(p)]
    named = [(case_name(path), path) for path in files]
    if not files:
        inner = [p for d in sorted(folder.iterdir()) if d.is_dir() for p in sorted(d.iterdir())]
        named = [(p.parent.name, p) for p in inner if _readable(p) and case_name(p) == role]
    found: dict[str, Path] = {}
    for name, path in named:
        if name in found:
            faults.append(FormatError(f"{name} is there twice: {found[name].name} and {path.name}"))
        found[name] = path
    return found


def _readable(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.lower().endswith(suffixes())


def _chosen(pairs: list[Pair], cases: int | tuple[int, int] | None) -> list[Pair]:
    if cases is None:
        return pairs
    first, last = (1, cases) if isinstance(cases, int) else cases
    if not 1 <= first <= last:
        raise FormatError(f"cases {first} to {last}: count from 1 and end at or after the start")
    return pairs[first - 1 : last]
