"""The volumes in the frames of one series: by plane, then by what differs at a position."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydicom.dataset import Dataset

from promptseg.io.dicom.frames import KEYS, Frame
from promptseg.io.dicom.geometry import Grid, NoGrid, by_position, grid_of, same_plane
from promptseg.io.dicom.headers import number, read_whole, text

_T = TypeVar("_T")
# A key tells volumes apart if each of them then covers the positions; below this it tells slices.
_COVERED = 0.75


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices that may be one volume.

    Args:
        frames: The slices.
        grid: Where they lie; None if they make no volume.
        problem: Why they make none; empty if they do.
        what: What tells it from the other stacks of its series, such as `EchoTime 30`.
        notes: What was repaired.
    """

    frames: tuple[Frame, ...]
    grid: Grid | None
    problem: str = ""
    what: str = ""
    notes: tuple[str, ...] = ()


def stacks_of(frames: Sequence[Frame]) -> list[Stack]:
    """The stacks of one series, those of one plane and scan after each other."""
    frames, dropped = _without_copies(frames)
    planes = _by_plane(frames)
    found: list[Stack] = []
    for plane in planes:
        what = _plane_words(plane[0]) if len(planes) > 1 else ""
        found += _split(plane, what)
    return [Stack(s.frames, s.grid, s.problem, s.what, (*dropped, *s.notes)) for s in found]


def _plane_words(frame: Frame) -> str:
    normal = abs(frame.normal)
    name = ("sagittal", "coronal", "axial")[int(normal.argmax())]
    return f"{'oblique ' if normal.max() < 0.99 else ''}{name}"


def _without_copies(frames: Sequence[Frame]) -> tuple[list[Frame], tuple[str, ...]]:
    """The frames without files that are there twice."""
    seen: dict[Hashable, Frame] = {}
    kept: list[Frame] = []
    copies: set[str] = set()
    for frame in frames:
        uid = text(frame.header, "SOPInstanceUID")
        key = (uid, frame.index, frame.tile)
        if uid and key in seen and _content(seen[key]) == _content(frame):
            copies.add(frame.entry.name)
            continue
        seen.setdefault(key, frame)
        kept.append(frame)
    notes = (f"{_count(len(copies), 'file')} there twice, read once",) if copies else ()
    return kept, notes


def _by_plane(frames: Sequence[Frame]) -> list[list[Frame]]:
    planes: list[list[Frame]] = []
    groups: dict[Hashable, list[list[Frame]]] = {}
    for frame in frames:
        known = groups.setdefault(_scan(frame.header), [])
        for plane in known:
            if same_plane(plane[0], frame):
                plane.append(frame)
                break
        else:
            known.append([frame])
            planes.append(known[-1])
    return planes


def _scan(header: Dataset) -> Hashable:
    """What slices of one volume agree in, whatever the series says."""
    names = ("PatientID", "Modality", "FrameOfReferenceUID", "SeriesNumber")
    return tuple(text(header, name) for name in names)


def _split(frames: Sequence[Frame], what: str) -> list[Stack]:
    """Stacks with one slice a position; what cannot be told apart is one stack with a problem."""
    places = by_position(frames)
    if len(places) == len(frames):
        return [_single([place[0] for place in places], what)]
    if len(places) == 1 and len(frames) > 1:
        same = f"all {len(frames)} slices are at one position (a dynamic scan, or copies)"
        return [Stack(tuple(frames), None, f"{same}: not a 3D volume", what)]
    parts = _by_key(frames, len(places)) or _by_order(places)
    if parts is not None:
        return [stack for name, part in parts for stack in _split(part, _joined(what, name))]
    distinct = [_distinct(place) for place in places]
    if all(len(place) == 1 for place in distinct):
        stack = _single([place[0] for place in distinct], what)
        copies = len(frames) - len(places)
        note = f"{_count(copies, 'slice')} there twice with equal pixels, read once"
        return [Stack(stack.frames, stack.grid, stack.problem, what, (*stack.notes, note))]
    shared = sum(len(place) > 1 for place in places)
    problem = (
        f"{len(frames)} slices at {len(places)} positions: {shared} positions have several and "
        "nothing in the files tells which belong together"
    )
    return [Stack(tuple(frames), None, problem, what)]


def _single(frames: list[Frame], what: str) -> Stack:
    try:
        grid = grid_of(frames)
    except NoGrid as reason:
        return Stack(tuple(frames), None, str(reason), what)
    return Stack(tuple(frames), grid, "", what, grid.notes)


def _by_key(frames: Sequence[Frame], places: int) -> list[tuple[str, list[Frame]]] | None:
    """Parts by the first key that tells volumes apart: each part covers most positions."""
    more = sorted({name for frame in frames for name in frame.keys if name.startswith("dimension")})
    names = dict.fromkeys([name for name, _ in KEYS] + more)
    for name in names:
        parts = _grouped(frames, lambda frame: frame.keys.get(name, ""))  # noqa: B023
        if len(parts) < 2:
            continue
        covered = [len(by_position(part)) for part in parts.values()]
        if min(covered) >= _COVERED * places:
            ordered = sorted(parts.items(), key=lambda item: _order(item[0]))
            return [(f"{name} {value}".strip(), part) for value, part in ordered]
    return None


def _by_order(places: Sequence[Sequence[Frame]]) -> list[tuple[str, list[Frame]]] | None:
    """Parts by instance number, where every position has as many slices as the others."""
    count = len(places[0])
    if any(len(place) != count for place in places):
        return None
    ordered = [sorted(place, key=_instance) for place in places]
    numbers = [[_instance(frame) for frame in place] for place in ordered]
    # The slices of a time point were taken together: its numbers lie apart from the next one's.
    firsts = [max(place[turn] for place in numbers) for turn in range(count - 1)]
    nexts = [min(place[turn + 1] for place in numbers) for turn in range(count - 1)]
    if any(first >= following for first, following in zip(firsts, nexts, strict=True)):
        return None
    return [(f"time point {turn + 1}", [place[turn] for place in ordered]) for turn in range(count)]


def _instance(frame: Frame) -> tuple[float, int]:
    return (number(frame.header, "InstanceNumber") or 0.0, frame.index)


def _order(value: object) -> tuple[float, str]:
    try:
        return float(str(value)), ""
    except ValueError:
        return float("inf"), str(value)


def _grouped(items: Iterable[_T], key: Callable[[_T], Hashable]) -> dict[Hashable, list[_T]]:
    found: dict[Hashable, list[_T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _distinct(place: Sequence[Frame]) -> list[Frame]:
    """One of each content; slices are compared byte by byte."""
    return list({_content(frame): frame for frame in reversed(place)}.values())


def _content(frame: Frame) -> Hashable:
    pixels = read_whole(frame.entry).get("PixelData") or b""
    return (frame.index, frame.tile, frame.slope, frame.intercept, hashlib.sha256(pixels).digest())


def _joined(what: str, name: str) -> str:
    return ", ".join(one for one in (what, name) if one)


def _count(number_of: int, noun: str) -> str:
    return f"1 {noun} is" if number_of == 1 else f"{number_of} {noun}s are"


def kinds_in_words(kinds: Iterable[str]) -> str:
    """`2 RT Structure Set, 1 Basic Text SR`."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items()))
