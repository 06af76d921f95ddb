"""The series of a folder: listed, numbered, and one of them chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID

from promptseg.errors import FormatError, VolumeError
from promptseg.io.dicom.entries import Entry, entries_of, siblings_of
from promptseg.io.dicom.frames import Frame, NoSlice, check_pixels, is_mosaic, whole_frames
from promptseg.io.dicom.headers import kind_of, read_header, text
from promptseg.io.dicom.mosaic import tiles_of
from promptseg.io.dicom.stacks import Stack, kinds_in_words, stacks_of

# Objects that have pixels and are no image of a patient.
_NO_IMAGES = ("Segmentation", "Label Map Segmentation", "RT Dose", "Parametric Map")
_NO_IMAGE_MODALITIES = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "DOC")
_SHOWN = 5


class SeriesChoice(FormatError):
    """Several volumes and none chosen.

    Args:
        message: What to do.
        series: What there is.
    """

    def __init__(self, message: str, series: Sequence[Series] = ()) -> None:
        super().__init__(message)
        self.series = tuple(series)


@dataclass(frozen=True, eq=False)
class Series:
    """One series of images.

    Args:
        number: To choose it by, from 1.
        uid: SeriesInstanceUID.
        modality: DICOM's word.
        description: SeriesDescription.
        slices: How many frames it has.
        stacks: Its volumes.
        problem: Why it has no stack; empty if it has.
    """

    number: int
    uid: str
    modality: str
    description: str
    slices: int
    stacks: tuple[Stack, ...]
    problem: str = ""

    def lines(self) -> list[str]:
        """One line for a person, and one for each of several volumes."""
        named = f" {self.description!r}" if self.description else ""
        head = f"{self.number}: {self.modality or 'unknown modality'}{named}, {self.slices} slices"
        if self.problem:
            return [f"{head}, no volume: it {self.problem}"]
        if len(self.stacks) == 1:
            return [head + _fault(self.stacks[0])]
        return [f"{head}, {len(self.stacks)} volumes"] + [
            f"{self.number}.{place}: {len(stack.frames)} slices"
            f"{f', {stack.what}' if stack.what else ''}{_fault(stack)}"
            for place, stack in enumerate(self.stacks, start=1)
        ]


@dataclass(frozen=True, eq=False)
class Found:
    """What a folder, zip file or file holds.

    Args:
        path: Where it was looked for.
        series: Series of images.
        others: Kind of every other DICOM object, by file.
        damaged: Why a DICOM file cannot be read, by file.
        foreign: Files that are not DICOM.
    """

    path: Path
    series: tuple[Series, ...]
    others: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, in words."""
        said = []
        if self.others:
            said.append(f"passed over: {kinds_in_words(self.others.values())}")
        if self.damaged:
            said.append(f"passed over as damaged: {_named(list(self.damaged))}")
        if self.foreign:
            said.append(f"passed over, not DICOM: {_named(list(self.foreign))}")
        return tuple(said)


def find_series(path: Path, max_bytes: int, uid: str | None = None) -> Found:
    """Read every header and sort the slices into series and volumes.

    Args:
        path: Folder, zip file or one file, which stands for its series in its folder.
        max_bytes: Most that a zip file may unpack to.
        uid: Only this SeriesInstanceUID.

    Raises:
        FormatError: There is no DICOM file, or the zip file is unsafe.
    """
    entries = entries_of(path, max_bytes)
    if len(entries) == 1 and entries[0].member is None and not path.is_dir():
        entries, uid = _around(entries[0])
    others: dict[str, str] = {}
    damaged: dict[str, str] = {}
    foreign: list[str] = []
    images: dict[tuple[str, str], list[tuple[Entry, Dataset]]] = {}
    for entry in entries:
        try:
            header = read_header(entry)
        except FormatError as error:
            damaged[entry.name] = str(error)
            continue
        if header is None:
            foreign.append(entry.name)
        elif not text(header, "SOPClassUID") and not text(header, "Modality"):
            damaged[entry.name] = f"{entry.name}: says neither what it is nor what it shows"
        elif not is_image(header):
            others[entry.name] = kind_of(header)
        else:
            images.setdefault(_identity(header), []).append((entry, header))
    chosen = {key: held for key, held in images.items() if uid in (None, key[0])}
    series = _numbered(chosen)
    found = Found(path, series, others, damaged, tuple(foreign))
    if not series:
        raise FormatError(_nothing(found))
    return found if uid is None else Found(path, series)


def is_image(header: Dataset) -> bool:
    """True for an image of a patient, also one that lacks what makes it readable."""
    uid, modality = text(header, "SOPClassUID"), text(header, "Modality")
    name = UID(uid).name if uid else ""
    if any(name.startswith(one) for one in _NO_IMAGES) or modality in _NO_IMAGE_MODALITIES:
        return False
    return "Rows" in header or "Image Storage" in name


def choose(found: Found, series: int | str | None) -> tuple[Series, Stack]:
    """The stack that was asked for, or the only one.

    Args:
        found: What there is.
        series: Number, `number.volume`, SeriesInstanceUID or None.

    Raises:
        SeriesChoice: There are several and none was asked for, or what was is not there.
        VolumeError: What was chosen is no volume.
    """
    able = [(one, stack) for one in found.series for stack in one.stacks or (None,)]
    if series is not None:
        able = [pair for pair in able if _meant(pair, str(series).strip())]
        if not able:
            raise SeriesChoice(
                f"{found.path}: has no series {series}: {_listing(found.series)}", found.series
            )
    if len(able) > 1:
        raise SeriesChoice(
            f"{found.path}: holds several volumes: choose one with --series (series=), by its "
            f"number: {_listing(sorted({one for one, _ in able}, key=lambda one: one.number))}",
            found.series,
        )
    one, stack = able[0]
    if stack is None or stack.problem:
        reason = one.problem if stack is None else stack.problem
        named = one.modality or "image"
        raise VolumeError(f"{found.path}: the {named} series {_joint(reason, stack is None)}")
    return one, stack


def _joint(reason: str, whole: bool) -> str:
    return reason if whole else f"is no volume: {reason}"


def _around(entry: Entry) -> tuple[list[Entry], str | None]:
    """The files that may be of the same series as one, and its UID; alone where it has all."""
    header = read_header(entry)
    if header is None:
        raise FormatError(f"{entry.path}: not a DICOM file")
    if text(header, "MediaStorageDirectory") or "DirectoryRecordSequence" in header:
        return entries_of(entry.path.parent, 0), None
    if not is_image(header) or "PerFrameFunctionalGroupsSequence" in header or is_mosaic(header):
        return [entry], None
    uid = text(header, "SeriesInstanceUID")
    return ([entry], None) if not uid else (siblings_of(entry.path), uid)


def _identity(header: Dataset) -> tuple[str, str]:
    """What slices of one series share: its UID, or without one what comes nearest to it.

    Some writers give every file a study of its own, so the study says nothing.
    """
    uid = text(header, "SeriesInstanceUID")
    names = ("StudyInstanceUID", "SeriesNumber", "SeriesDescription", "Modality")
    return (uid, "") if uid else ("", "|".join(text(header, name) for name in names))


def _numbered(
    images: dict[tuple[str, str], list[tuple[Entry, Dataset]]],
) -> tuple[Series, ...]:
    ordered = sorted(images.items(), key=lambda item: _order(item[0], item[1][0][1]))
    return tuple(
        _series(number, key[0], held) for number, (key, held) in enumerate(ordered, start=1)
    )


def _order(key: tuple[str, str], header: Dataset) -> tuple[str, str, float, str]:
    """By date, study and number, as a scanner lists them."""
    number = text(header, "SeriesNumber")
    counted = float(number) if number.lstrip("-").isdecimal() else float("inf")
    return text(header, "StudyDate"), text(header, "StudyInstanceUID"), counted, "|".join(key)


def _series(number: int, uid: str, held: list[tuple[Entry, Dataset]]) -> Series:
    frames: list[Frame] = []
    reasons: dict[str, int] = {}
    localisers: list[Frame] = []
    for entry, header in held:
        try:
            found = frames_of(entry, header)
        except NoSlice as reason:
            reasons[str(reason)] = reasons.get(str(reason), 0) + 1
            continue
        scout = "LOCALIZER" in text(header, "ImageType").upper().split("\\")
        (localisers if scout else frames).extend(found)
    stacks = stacks_of(frames or localisers) if frames or localisers else []
    notes = _left_out(reasons, len(localisers) if frames else 0)
    stacks = [Stack(s.frames, s.grid, s.problem, s.what, (*s.notes, *notes)) for s in stacks]
    first = held[0][1]
    problem = "" if stacks else _reason(reasons, len(held))
    return Series(
        number,
        uid,
        text(first, "Modality"),
        text(first, "SeriesDescription"),
        len(frames or localisers) or len(held),
        tuple(stacks),
        problem,
    )


def frames_of(entry: Entry, header: Dataset) -> list[Frame]:
    """The slices of one file.

    Raises:
        NoSlice: It has none that lie in space.
    """
    check_pixels(header)
    return tiles_of(entry, header) if is_mosaic(header) else whole_frames(entry, header)


def _left_out(reasons: dict[str, int], localisers: int) -> list[str]:
    said = [f"{count} files passed over: each {reason}" for reason, count in reasons.items()]
    if localisers:
        said.append(f"{localisers} localiser slices of the same series passed over")
    return said


def _reason(reasons: dict[str, int], count: int) -> str:
    most = max(reasons, key=lambda reason: reasons[reason])
    return most if count == 1 else f"has {count} files, of which each {most}"


def _meant(pair: tuple[Series, Stack | None], wanted: str) -> bool:
    one, stack = pair
    if wanted in (str(one.number), one.uid):
        return True
    return stack is not None and wanted == f"{one.number}.{one.stacks.index(stack) + 1}"


def _listing(series: Sequence[Series]) -> str:
    return "; ".join(line for one in series for line in one.lines())


def _fault(stack: Stack) -> str:
    return f", no volume: {stack.problem}" if stack.problem else ""


def _nothing(found: Found) -> str:
    if found.damaged:
        return f"{found.path}: {next(iter(found.damaged.values()))}"
    if found.others:
        kinds = kinds_in_words(found.others.values())
        return f"{found.path}: holds no image ({kinds}): give the series that it belongs to"
    what = "is no DICOM file" if found.path.is_file() and len(found.foreign) == 1 else "holds none"
    return f"{found.path}: no DICOM image: it {what}"


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{more})"
