"""Which image belongs to which labels, in folders as people and other tools lay them out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from promptseg.errors import FormatError, PromptsegError
from promptseg.io import FORMATS, holds_dicom

_LABEL_WORDS = r"(?:seg|segmentation|mask|masks|labels?|gt|groundtruth|manual|annotation|roi)"
_IMAGE_WORDS = r"(?:image|img|ct|mri?|scan|volume|vol|orig)"
_LABEL_END = re.compile(rf"[-_. ]{_LABEL_WORDS}$", re.IGNORECASE)
_LABEL_START = re.compile(rf"^{_LABEL_WORDS}(?:[-_. ]|(?=\d))", re.IGNORECASE)
_LABEL_ALONE = re.compile(rf"^{_LABEL_WORDS}$", re.IGNORECASE)
_IMAGE_END = re.compile(rf"[-_. ]{_IMAGE_WORDS}$", re.IGNORECASE)
_IMAGE_START = re.compile(rf"^{_IMAGE_WORDS}(?:[-_. ]|(?=\d))", re.IGNORECASE)
# nnU-Net numbers the channels of an image with four digits.
_CHANNEL = re.compile(r"_\d{4}$")
_MOST_JSON = 1 << 24


@dataclass
class Found:
    """Pairs of files, and what was made of their names.

    Args:
        pairs: Name, image and labels of each case, in order.
        notes: What was matched how, each a sentence.
        faults: What stands alone or is there twice.
    """

    pairs: list[tuple[str, Path, Path]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[PromptsegError] = field(default_factory=list)


def pair_folders(images: Path, labels: Path) -> Found:
    """Match images and labels by name.

    Files of the same name; names that differ by an ending such as `_seg`, `_mask` or `-label`, or
    by nnU-Net's `_0000`; `imagesTr` and `labelsTr` in one folder; or one folder a patient with an
    image and its labels in it.

    Args:
        images: Folder.
        labels: Folder, which may be the same one.

    Raises:
        FormatError: There is no such folder.
    """
    images, labels = _inner(images, "imagesTr"), _inner(labels, "labelsTr")
    for folder in (images, labels):
        if not folder.is_dir():
            raise FormatError(f"{folder}: no such folder")
    held, series = _files(images), _series(images)
    apart = images.resolve() != labels.resolve()
    if not held and series and apart and (_files(labels) or _series(labels)):
        held = series
    if not held and _folders(images):
        return _by_patient(images, labels)
    found = Found()
    known = _files(labels) or _series(labels)
    if images.resolve() == labels.resolve():
        known = [path for path in held if is_label(path)]
        held = [path for path in held if not is_label(path)]
    _match(found, _by_name(held, found), _by_name(known, found), images, labels)
    return found


def label_names(labels: Path) -> dict[int, str]:
    """Names by label of the dataset.json beside or in a folder of labels; none without one."""
    for folder in (labels, labels.parent):
        path = folder / "dataset.json"
        try:
            if path.is_file() and path.stat().st_size < _MOST_JSON:
                return dict(_named(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, RecursionError):
            continue
    return {}


def _named(content: object) -> Iterator[tuple[int, str]]:
    """Both ways round: {"1": "spleen"} of the Decathlon, {"spleen": 1} of nnU-Net."""
    told = content.get("labels") if isinstance(content, dict) else None
    for key, value in told.items() if isinstance(told, dict) else ():
        number, name = (key, value) if isinstance(value, str) else (value, key)
        if str(number).isdecimal() and int(number) > 0:
            yield int(number), str(name)


def is_label(path: Path) -> bool:
    """True if a file's name says that it holds labels."""
    name = stem(path)
    patterns = (_LABEL_END, _LABEL_START, _LABEL_ALONE)
    return any(pattern.search(name) for pattern in patterns)


def stem(path: Path) -> str:
    """File name without the suffix of its format."""
    for suffix in sorted(suffixes(), key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def suffixes() -> tuple[str, ...]:
    """Endings of the files that can be read."""
    return tuple(s for entry in FORMATS.values() if entry.reads for s in entry.suffixes)


def _inner(folder: Path, name: str) -> Path:
    inside = folder / name
    return inside if folder.is_dir() and inside.is_dir() and not _files(folder) else folder


def _files(folder: Path) -> list[Path]:
    """Readable files of a folder in order, one half of each .hdr and .img pair."""
    ends = suffixes()
    found = [
        path for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(ends)
    ]  # fmt: skip
    headers = {stem(path) for path in found if ".hdr" in path.name.lower()}
    return [p for p in found if not (".img" in p.name.lower() and stem(p) in headers)]


def _series(folder: Path) -> list[Path]:
    """Folders in a folder that hold DICOM files: each a series, or labels."""
    return [one for one in _folders(folder) if holds_dicom(one)]


def _folders(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def _by_name(files: Iterable[Path], found: Found) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in files:
        name = stem(path)
        if name in named:
            both = f"{named[name].name} and {path.name}"
            found.faults.append(FormatError(f"{name} is there twice: {both}"))
        named[name] = path
    return named


def _match(
    found: Found, images: dict[str, Path], labels: dict[str, Path], here: Path, there: Path
) -> None:
    """Pairs of the same name, then of the same name but for what tells image from labels."""
    same = images.keys() & labels.keys()
    pairs = {name: (images[name], labels[name]) for name in same}
    left = {name: path for name, path in images.items() if name not in same}
    rest = {name: path for name, path in labels.items() if name not in same}
    bare_images, bare_labels = _bare(left, _image_keys), _bare(rest, _label_keys)
    used: set[Path] = set()
    for key in sorted(bare_images.keys() & bare_labels.keys()):
        pictures = [path for path in bare_images[key] if path not in used]
        masks = [path for path in bare_labels[key] if path not in used]
        if not pictures or len(masks) != 1 or not _channels(pictures):
            continue
        used |= {*pictures, *masks}
        pairs[key] = (pictures[0], masks[0])
        if len(pictures) > 1:
            others = ", ".join(path.name for path in pictures[1:])
            found.notes.append(f"{key}: {pictures[0].name} is taken, {others} left out")
    _say_renamed(found, pairs)
    for name, path in sorted({**left, **rest}.items()):
        if path not in used:
            lacks, where = ("labels", there) if name in left else ("image", here)
            found.faults.append(FormatError(f"{name} has no {lacks} in {where}"))
    found.pairs = [(name, *pairs[name]) for name in sorted(pairs)]


def _say_renamed(found: Found, pairs: dict[str, tuple[Path, Path]]) -> None:
    renamed = [(a, b) for a, b in pairs.values() if stem(a) != stem(b)]
    if renamed:
        image, mask = renamed[0]
        found.notes.append(f"{len(renamed)} cases matched by what their names share, such as "
                           f"{image.name} with {mask.name}")  # fmt: skip


def _channels(paths: list[Path]) -> bool:
    """True for one image, or for the channels of one."""
    return len(paths) == 1 or all(_CHANNEL.search(stem(path)) for path in paths)


def _bare(named: dict[str, Path], keys: Callable[[str], Iterator[str]]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for name in sorted(named):
        for key in dict.fromkeys(keys(name)):
            found.setdefault(key, []).append(named[name])
    return found


def _image_keys(name: str) -> Iterator[str]:
    yield name
    for pattern in (_CHANNEL, _IMAGE_END, _IMAGE_START):
        yield pattern.sub("", name)


def _label_keys(name: str) -> Iterator[str]:
    yield name
    for pattern in (_LABEL_END, _LABEL_START):
        yield pattern.sub("", name)


def _by_patient(images: Path, labels: Path) -> Found:
    """One folder a patient, with image and labels in it or in two folders of its name."""
    found = Found()
    for folder in _folders(images):
        other = labels / folder.name
        masks = [p for p in _held(other) if is_label(p)] if other.is_dir() else []
        apart = images.resolve() != labels.resolve()
        masks = masks or (_held(other) if apart and other.is_dir() else [])
        pictures = [path for path in _held(folder) if not is_label(path)]
        if not pictures and not masks:
            continue
        image = _one(folder, pictures, "image", found)
        mask = _one(other, masks, "mask", found)
        if image is not None and mask is not None:
            found.pairs.append((folder.name, image, mask))
    return found


def _held(folder: Path) -> list[Path]:
    """Files and DICOM series of one patient."""
    return _files(folder) + _series(folder)


def _one(folder: Path, files: list[Path], role: str, found: Found) -> Path | None:
    """The file of a role: the only one, the one named so, or all slices of a DICOM series."""
    named = [path for path in files if stem(path).lower() in (role, folder.name.lower())]
    if len(files) == 1 or named:
        return (named or files)[0]
    if role == "image" and files and all(path.suffix.lower() == ".dcm" for path in files):
        return folder
    what = "image" if role == "image" else "labels"
    if not files:
        found.faults.append(FormatError(f"{folder.name} has no {what} in {folder}"))
    else:
        shown = ", ".join(path.name for path in files[:4])
        found.faults.append(FormatError(
            f"{folder.name} has {len(files)} files that may be its {what} ({shown}): name one "
            f"{role}, or give lists of files"
        ))  # fmt: skip
    return None
