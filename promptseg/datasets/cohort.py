"""Cases of a cohort: images and labels paired by file name, checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from promptseg.errors import FormatError, PromptsegError, VolumeError
from promptseg.io import FORMATS, pictures
from promptseg.io import read_image as read_content
from promptseg.volume import Segmentation, Volume, read

PathLike: TypeAlias = "str | os.PathLike[str]"
Images: TypeAlias = "PathLike | Sequence[PathLike | Volume]"
Labels: TypeAlias = "PathLike | Sequence[PathLike | Volume | Segmentation]"

_AFFINE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """One image with its known labels.

    Args:
        name: File name without its suffix.
        volume: The image.
        labels: (I, J, K) integers on its grid.
    """

    name: str
    volume: Volume
    labels: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Where one case comes from.

    Args:
        name: File name without its suffix.
        image: File, or a volume in memory.
        label: File, or labels in memory.
    """

    name: str
    image: Path | Volume
    label: Path | Volume | Segmentation

    def load(self) -> Case:
        """Read both; the first fault found is raised."""
        volume = self.image if isinstance(self.image, Volume) else read_image(self.image)
        known = self.label if not isinstance(self.label, Path) else read_labels(self.label)
        if known.data.shape != volume.shape:
            raise VolumeError(
                f"{self.name}: the labels have shape {known.data.shape}, the image {volume.shape}"
            )
        if not np.allclose(known.affine, volume.affine, atol=_AFFINE_TOLERANCE):
            raise VolumeError(f"{self.name}: the affines of image and labels differ")
        return Case(self.name, volume, whole_labels(known.data, self.name))


def open_cohort(
    images: Images,
    labels: Labels,
    label: int | None = None,
    cases: int | tuple[int, int] | None = None,
) -> list[Pair]:
    """Pair images and labels and check every chosen pair.

    Args:
        images: Folder, or a list of files or volumes. A folder holds one file a case, or one
            folder a case with `image.*` in it.
        labels: The same for the labels; in a folder a case they are `mask.*`.
        label: Label that every case must have; None asks for any label.
        cases: Only the first N cases in sorted order, or the cases from first to last, counted
            from 1.

    Raises:
        FormatError: Files are missing, unmatched or cannot be read; every fault is listed.
        VolumeError: Grids differ or a label is absent; every fault is listed.
    """
    pairs, faults = _paired(images, labels)
    chosen = _chosen(pairs, cases)
    faults += [fault for pair in chosen if (fault := _fault(pair, label)) is not None]
    raise_all(faults)
    if not chosen:
        raise FormatError(f"no case in {images}: give images ending in {', '.join(_suffixes())}")
    return chosen


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
        raise FormatError(f"no case in {folder}: give files ending in {', '.join(_suffixes())}")
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


def whole_labels(data: np.ndarray, name: str) -> np.ndarray:
    """Labels as integers.

    Raises:
        VolumeError: A value is negative or no whole number.
    """
    if data.dtype.kind == "b":
        return data.astype(np.uint8)
    bad = data[(data < 0) | (data != np.floor(data))] if data.dtype.kind == "f" else data[data < 0]
    if bad.size:
        raise VolumeError(
            f"{name}: {bad.size} label voxels such as {bad.flat[0]:g} are not whole numbers >= 0"
        )
    return data.astype(np.int32) if data.dtype.kind == "f" else data


def present_labels(labels: np.ndarray) -> list[int]:
    """Labels above 0 that occur, in order."""
    return [int(value) for value in np.unique(labels) if value > 0]


def case_name(path: Path) -> str:
    """File name without the suffix of its format."""
    for suffix in sorted(_suffixes(), key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def _suffixes() -> tuple[str, ...]:
    volumes = [suffix for entry in FORMATS.values() if entry.reads for suffix in entry.suffixes]
    return tuple(volumes)


def _paired(images: Images, labels: Labels) -> tuple[list[Pair], list[PromptsegError]]:
    if isinstance(images, (str, os.PathLike)) != isinstance(labels, (str, os.PathLike)):
        raise FormatError("give images and labels both as folders or both as lists")
    if not isinstance(images, (str, os.PathLike)) and not isinstance(labels, (str, os.PathLike)):
        if len(images) != len(labels):
            raise FormatError(f"{len(images)} images but {len(labels)} labels: give pairs")
        return _listed(images, labels), []
    folders = Path(os.fspath(images)), Path(os.fspath(labels))  # type: ignore[arg-type]
    faults: list[PromptsegError] = []
    found = [_files(f, role, faults) for f, role in zip(folders, ("image", "mask"), strict=True)]
    for name in sorted(found[0].keys() ^ found[1].keys()):
        lacks = "labels" if name in found[0] else "image"
        where = folders[1] if name in found[0] else folders[0]
        faults.append(FormatError(f"{name} has no {lacks} in {where}"))
    both = sorted(found[0].keys() & found[1].keys())
    return [Pair(name, found[0][name], found[1][name]) for name in both], faults


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
    return not path.name.startswith(".") and path.name.lower().endswith(_suffixes())


def _chosen(pairs: list[Pair], cases: int | tuple[int, int] | None) -> list[Pair]:
    if cases is None:
        return pairs
    first, last = (1, cases) if isinstance(cases, int) else cases
    if not 1 <= first <= last:
        raise FormatError(f"cases {first} to {last}: count from 1 and end at or after the start")
    return pairs[first - 1 : last]


def _fault(pair: Pair, label: int | None) -> PromptsegError | None:
    try:
        labels = present_labels(pair.load().labels)
    except (FormatError, VolumeError) as error:
        return error
    if label is None and not labels:
        return VolumeError(f"{pair.name}: no label, every voxel is 0")
    if label is not None and label not in labels:
        return VolumeError(f"{pair.name}: label {label} is absent, present {labels}")
    return None
