"""What a user points at: points, boxes, scribbles, masks, words and margin points."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, overload

import numpy as np

from promptseg.errors import FormatError, PromptError
from promptseg.io.atomic import atomic_path
from promptseg.prompts import serialization as prompt_json
from promptseg.prompts import validation as checks
from promptseg.prompts.scribble_files import read_strokes
from promptseg.volume import CoordinateFrame
from promptseg.volume.orientation import backward_axes

if TYPE_CHECKING:
    from promptseg.volume import Volume

_MAX_STROKE_POINTS = 10_000_000
# More than the voxels along the longest side of most images.
_LEAST_STROKE_POINTS = 4096
MARGIN = "margin"


@dataclass(frozen=True)
class Point:
    """A click inside (`positive`) or outside a target.

    Args:
        at: (i, j, k) voxel coordinates, centres at whole numbers, or millimetres.
        positive: False marks background.
        target: Label >= 1.
        frame: `voxel`, `ras` or `lps`.
        role: How it is answered; sessions set it. None: it says where the target is.
            `correction`: it corrects an answer and starts nothing, so the target needs another
            prompt. `refine`: 3D graph cut only, the network is not asked; `correction+refine`
            both. `margin`: one of `MarginPoints`, answered beside their box. Anything else is
            refused.

    Example:
        >>> from promptseg import Point
        >>> click = Point((70, 80, 44))
        >>> outside = Point((20, 20, 44), positive=False)
        >>> Point((-31.5, 12, 40), frame="ras", target=2).target
        2
    """

    at: tuple[float, float, float]
    positive: bool = True
    target: int = 1
    frame: CoordinateFrame = "voxel"
    role: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", checks.plain(self.at))

    def resolve(self, volume: Volume) -> Point:
        """Check against `volume` and move to voxel coordinates; PromptError if it cannot be."""
        checks.check_common(self)
        voxel = volume.to_voxels(np.array([checks.triple(self.at, "at")]), self.frame)[0]
        if self.frame != "voxel":
            voxel = checks.settled(voxel, backward_axes(volume.affine))
        i, j, k = checks.inside(voxel[None], volume)[0].tolist()
        return replace(self, at=(i, j, k), frame="voxel")


@dataclass(frozen=True)
class Box:
    """A box around a target; one slice thick along an axis makes it a 2D box.

    Args:
        lo: (i, j, k) of the first voxel.
        hi: (i, j, k) one past the last voxel, as in Python slices.
        target: Label >= 1.
        frame: `voxel`, or `ras` or `lps`: then `lo` and `hi` are the positions in millimetres
            of two opposite corners, in any order, and the box lies along the volume's own axes.
            They are places in the world: voxel n along an axis lies between n - 0.5 and n + 0.5,
            and belongs to the box if its centre does. So a box from face to face of one slice, or
            with both corners in the same slice, is a 2D box.

    Example:
        A 2D box on slice 44 along k, then one through slices 40 to 49:

        >>> from promptseg import Box
        >>> Box((60, 72, 44), (95, 110, 45)).hi
        (95, 110, 45)
        >>> solid = Box((60, 72, 40), (95, 110, 50))

        Slice 12 of voxels of 1 x 1 x 2 mm, whose first has its centre at the origin, in
        millimetres:

        >>> import numpy as np
        >>> from promptseg import Volume
        >>> volume = Volume(np.zeros((64, 64, 20)), np.diag([1, 1, 2, 1]))
        >>> Box((15.5, 15.5, 23), (47.5, 47.5, 25), frame="ras").resolve(volume)
        Box(lo=(16, 16, 12), hi=(48, 48, 13), target=1, frame='voxel')
    """

    lo: tuple[float, float, float]
    hi: tuple[float, float, float]
    target: int = 1
    frame: CoordinateFrame = "voxel"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lo", checks.plain(self.lo))
        object.__setattr__(self, "hi", checks.plain(self.hi))

    def resolve(self, volume: Volume) -> Box:
        """Check against `volume` and move to whole voxels; PromptError if it cannot be."""
        checks.check_common(self)
        corners = volume.to_voxels(
            np.array([checks.triple(self.lo, "lo"), checks.triple(self.hi, "hi")]), self.frame
        )
        if self.frame == "voxel":
            lo, hi = checks.voxel_edges(corners)
        else:
            lo, hi = checks.edges_between(corners, backward_axes(volume.affine))
        if np.any(lo < 0) or np.any(hi > np.array(volume.shape)):
            raise PromptError(
                f"reaches outside the volume: voxels {checks.show(lo)} to {checks.show(hi)}, "
                f"valid (0, 0, 0) to {checks.show(volume.shape)}"
            )
        return replace(self, lo=checks.whole(lo), hi=checks.whole(hi), frame="voxel")


@dataclass(frozen=True, eq=False, repr=False)
class Scribble:
    """A stroke inside (`positive`) or outside a target.

    Args:
        voxels: (N, 3) coordinates that the stroke passes.
        positive: False marks background.
        target: Label >= 1.
        frame: `voxel`, `ras` or `lps`.
        role: None, or `correction` for a stroke drawn on an answer; as of a point.

    Example:
        >>> from promptseg import Scribble
        >>> Scribble.polyline([(10, 12, 5), (14, 12, 5)]).voxels.tolist()
        [[10, 12, 5], [11, 12, 5], [12, 12, 5], [13, 12, 5], [14, 12, 5]]
    """

    voxels: np.ndarray
    positive: bool = True
    target: int = 1
    frame: CoordinateFrame = "voxel"
    role: str | None = None

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxels", checks.array(self.voxels))

    @classmethod
    def polyline(
        cls,
        points: Sequence[Sequence[float]] | np.ndarray,
        positive: bool = True,
        target: int = 1,
        frame: CoordinateFrame = "voxel",
        step: float = 0.25,
    ) -> Scribble:
        """Draw straight lines between (N, 3) vertices, `step` voxels or millimetres apart.

        In millimetres closer where the whole stroke is short, so that it has no gaps on an image
        of fine voxels.
        """
        vertices = checks.coordinates(checks.array(points))
        if not (math.isfinite(step) and step > 0):
            raise PromptError(f"step is {step}: use a positive number")
        lengths = np.linalg.norm(np.diff(vertices, axis=0), axis=1)
        if frame != "voxel" and lengths.sum() > 0:
            step = min(step, float(lengths.sum()) / _LEAST_STROKE_POINTS)
        if lengths.sum() / step > _MAX_STROKE_POINTS:
            raise PromptError(f"the stroke is {lengths.sum():g} long: too long for step {step:g}")
        parts = [vertices[:1]]
        for start, end, length in zip(vertices, vertices[1:], lengths, strict=False):
            along = np.linspace(0.0, 1.0, max(1, math.ceil(length / step)) + 1)[1:, None]
            parts.append(start + (end - start) * along)
        stroke = np.concatenate(parts)
        if frame == "voxel":
            stroke = np.floor(stroke + 0.5).astype(np.int64)
            stroke = stroke[np.r_[True, np.any(np.diff(stroke, axis=0) != 0, axis=1)]]
        return cls(stroke, positive, target, frame)

    @classmethod
    def from_mask(cls, mask: np.ndarray, positive: bool = True, target: int = 1) -> Scribble:
        """Take every non-zero voxel of an (I, J, K) mask on the volume's grid."""
        mask = np.asarray(mask)
        if mask.ndim != 3:
            raise PromptError(f"a scribble mask must be 3D, found shape {mask.shape}")
        return cls(np.argwhere(mask), positive, target)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        volume: Volume,
        positive: bool = True,
        target: int = 1,
        frame: CoordinateFrame = "voxel",
        blank: int | None = None,
    ) -> list[Scribble]:
        """Read the strokes of one or several targets.

        * An image on the volume's grid, or a picture of its only slice. One non-zero value: one
          stroke of `target`. Several values, or `blank`: every value is the label that its voxels
          belong to; each gives a stroke inside that target, and the strokes of all other labels
          are outside of it. With `blank`, 0 is a stroke on the background, as in ACDC.
        * `.csv` or `.txt`: one vertex `i,j,k` a line, joined by straight lines; an empty line ends
          a stroke. `.json`: a list of vertices, or a list of such lists.

        Args:
            path: The file.
            volume: The image that the strokes lie on.
            positive: False if all strokes lie outside the target.
            target: Label of the target, where the file does not say it.
            frame: What vertices are in: `voxel`, `ras` or `lps`.
            blank: Value of the voxels that nobody drew on; None means 0.

        Raises:
            FormatError: The file is missing, damaged or of an unknown format.
            PromptError: It lies on another grid, is empty, or its values make no labels.
        """
        return [
            cls.polyline(stroke.vertices, stroke.positive, stroke.target, frame)
            if stroke.mask is None
            else cls.from_mask(stroke.mask, stroke.positive, stroke.target)
            for stroke in read_strokes(path, volume, positive, target, blank)
        ]

    def resolve(self, volume: Volume) -> Scribble:
        """Check against `volume` and give distinct (N, 3) int64 voxels."""
        checks.check_common(self)
        voxels = _nearest(checks.coordinates(self.voxels), volume, self.frame)
        flat = np.unique(np.ravel_multi_index(tuple(voxels.T), volume.shape))
        distinct = np.stack(np.unravel_index(flat, volume.shape), axis=1)
        return replace(self, voxels=distinct, frame="voxel")

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    def __repr__(self) -> str:
        size = "x".join(str(side) for side in self.voxels.shape)
        return (
            f"Scribble({size} {self.frame} coordinates, positive={self.positive}, "
            f"target={self.target})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """A rough or previous mask of a target; non-zero is inside.

    Args:
        data: (I, J, K) bool or integer array on the volume's grid, or a 2D array of one slice
            with the two axes that remain in order.
        target: Label >= 1.
        axis: 0, 1 or 2 for a 2D array.
        index: Slice of a 2D array along `axis`.

    Example:
        >>> import numpy as np
        >>> from promptseg import Mask
        >>> drawn = np.zeros((64, 48), bool)
        >>> drawn[20:30, 15:25] = True
        >>> int(Mask(drawn, axis=2, index=7).dense((64, 48, 20)).sum())
        100
    """

    data: np.ndarray
    target: int = 1
    axis: int | None = None
    index: int | None = None

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", checks.array(self.data))

    def resolve(self, volume: Volume) -> Mask:
        """Check against `volume` and make the array bool."""
        checks.check_common(self)
        if self.data.dtype.kind not in "biu":
            raise PromptError(f"mask values are {self.data.dtype}: use bool or integers")
        if self.data.shape != self._expected_shape(volume.shape):
            raise PromptError(
                f"mask has shape {self.data.shape}, the volume's grid is "
                f"{self._expected_shape(volume.shape)}"
            )
        if not self.data.any():
            raise PromptError("mask is empty: no voxel is set")
        return replace(self, data=self.data != 0)

    def dense(self, shape: tuple[int, int, int]) -> np.ndarray:
        """(I, J, K) bool mask on a grid of `shape`."""
        if self.axis is None or self.index is None:
            return self.data != 0
        full = np.zeros(shape, dtype=bool)
        np.moveaxis(full, self.axis, 0)[self.index] = self.data != 0
        return full

    def _expected_shape(self, shape: tuple[int, int, int]) -> tuple[int, ...]:
        if self.axis is None and self.index is None:
            return shape
        if not checks.is_integer(self.axis) or self.axis not in (0, 1, 2):
            raise PromptError(f"axis is {self.axis!r}: a 2D mask needs axis 0, 1 or 2")
        if not checks.is_integer(self.index) or not 0 <= self.index < shape[self.axis]:  # type: ignore[operator]
            raise PromptError(f"index is {self.index!r}: valid 0 to {shape[self.axis] - 1}")
        return tuple(side for axis, side in enumerate(shape) if axis != self.axis)

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    def __repr__(self) -> str:
        size = "x".join(str(side) for side in self.data.shape)
        where = "" if self.axis is None else f", axis={self.axis}, index={self.index}"
        return f"Mask({size} voxels, target={self.target}{where})"


@dataclass(frozen=True)
class Text:
    """Words that name a target.

    Args:
        words: For example `left atrium`.
        target: Label >= 1.

    Example:
        >>> from promptseg import Text
        >>> Text("left atrium")
        Text(words='left atrium', target=1)
    """

    words: str
    target: int = 1

    def resolve(self, volume: Volume) -> Text:
        """Check that there are words."""
        checks.check_common(self)
        if not isinstance(self.words, str) or not self.words.strip():
            raise PromptError(f"words are {self.words!r}: name the target")
        return self


@dataclass(frozen=True, eq=False, repr=False)
class MarginPoints:
    """Clicks just inside the boundary of a target, so that their box, a little grown, holds it.

    In one slice at least three, best near the four extremes, and more where the shape is hard;
    across slices at least five, best near the six extremes. They become foreground points and a
    box around them. In 3D every slice, along every axis where slices are thin, is asked with the
    box that the points bound on it (`propagation.extremes`); the vote is cut anew within the box of
    all points, grown by a few voxels, with the points as certain foreground and what surrounds
    the box as background.

    Source: interior margin points of MIDeepSeg, section 3.2.1 of the thesis (METHODS A).

    Args:
        points: (N, 3) coordinates inside the target and near its boundary.
        target: Label >= 1.
        frame: `voxel`, `ras` or `lps`.

    Example:
        >>> import numpy as np
        >>> from promptseg import MarginPoints
        >>> four = MarginPoints(np.array([(9, 20, 5), (25, 20, 5), (17, 12, 5), (17, 28, 5)]))
        >>> four.points.shape
        (4, 3)
    """

    points: np.ndarray
    target: int = 1
    frame: CoordinateFrame = "voxel"

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", checks.array(self.points))

    def resolve(self, volume: Volume) -> MarginPoints:
        """Check against `volume` and give distinct (N, 3) int64 voxels in their order."""
        checks.check_common(self)
        voxels = _nearest(checks.coordinates(self.points), volume, self.frame)
        distinct = voxels[np.sort(np.unique(voxels, axis=0, return_index=True)[1])]
        checks.check_margin(distinct)
        return replace(self, points=distinct, frame="voxel")

    def parts(self, volume: Volume) -> list[Prompt]:
        """The box and the foreground points, of role `margin`, that resolved points mean."""
        lo, hi = checks.margin_box(self.points, volume.shape)
        box = Box(checks.whole(lo), checks.whole(hi), self.target)
        places = [checks.whole(at) for at in self.points]
        return [box, *(Point(at, target=self.target, role=MARGIN) for at in places)]

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    def __repr__(self) -> str:
        shown = checks.brief(self.points.tolist())
        return f"MarginPoints({shown}, target={self.target}, frame={self.frame!r})"


Prompt = Union[Point, Box, Scribble, Mask, Text, MarginPoints]  # noqa: UP007 (used at run time)
_CLASSES = (Point, Box, Scribble, Mask, Text, MarginPoints)
_TYPES: dict[str, Any] = {cls.__name__.lower(): cls for cls in _CLASSES}


@dataclass(frozen=True)
class PromptSet(Sequence[Prompt]):
    """Prompts of one or several targets, in the order they were given.

    Args:
        prompts: Any iterable of prompts.

    Example:
        >>> from promptseg import Point, PromptSet
        >>> given = PromptSet([Point((7, 8, 4)), Point((2, 2, 4), positive=False, target=3)])
        >>> given.targets
        (1, 3)
        >>> PromptSet.from_json(given.to_json()) == given
        True
    """

    prompts: tuple[Prompt, ...] = field(default=())

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        if isinstance(prompts, _CLASSES):
            prompts = (prompts,)
        if not isinstance(prompts, Iterable):
            raise PromptError(f"prompts are {checks.brief(prompts)}: give a list of prompts")
        object.__setattr__(self, "prompts", tuple(prompts))

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> PromptSet: ...
    def __getitem__(self, index: int | slice) -> Prompt | PromptSet:
        if isinstance(index, slice):
            return PromptSet(self.prompts[index])
        return self.prompts[index]

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self.prompts)

    def __add__(self, other: Iterable[Prompt]) -> PromptSet:
        return PromptSet((*self.prompts, *PromptSet(other)))

    @property
    def targets(self) -> tuple[int, ...]:
        """Distinct targets in increasing order."""
        return tuple(sorted({prompt.target for prompt in self.prompts}))

    def for_target(self, target: int) -> PromptSet:
        """The prompts of one target."""
        return PromptSet(prompt for prompt in self.prompts if prompt.target == target)

    def to_voxel(self, volume: Volume) -> PromptSet:
        """Check every prompt and bring it into voxel coordinates.

        Points keep fractions, boxes become whole half-open voxel boxes, scribbles distinct
        int64 voxels and masks bool. Margin points become what they mean: a box and points.

        Raises:
            PromptError: names the prompt, the value found and the valid range.
        """
        return PromptSet(
            part
            for number, prompt in enumerate(self.prompts, start=1)
            for part in _resolve(number, prompt, volume)
        )

    def validate(self, volume: Volume) -> None:
        """Raise PromptError, naming the prompt, if any prompt cannot be used on `volume`."""
        self.to_voxel(volume)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as they stand in the JSON file."""
        return prompt_json.encode(self.prompts)

    def to_json(self) -> str:
        """JSON text with a format name and version; masks are run-length encoded."""
        try:
            return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PromptError(f"the prompts cannot be written as JSON: {error}") from error

    @classmethod
    def from_json(cls, text: str | Mapping[str, Any], source: str = "JSON") -> PromptSet:
        """Read what `to_json` or `to_dict` made.

        Args:
            text: JSON text, or the object parsed from it.
            source: What to call it in an error, such as the file name.

        Raises:
            PromptError: the text is not JSON or not prompts; says where.
        """
        try:
            content = json.loads(text) if isinstance(text, str) else text
        except (ValueError, RecursionError) as error:
            raise PromptError(f"{source}: not JSON: {error}") from error
        return cls(prompt_json.decode(content, _TYPES, source))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file, all of it or nothing."""
        text = self.to_json()
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PromptSet:
        """Read a JSON file; FormatError if it cannot be read, PromptError if it is malformed."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise PromptError(f"{path}: not JSON: it is not UTF-8 text") from error
        return cls.from_json(text, source=str(path))


def _resolve(number: int, prompt: Prompt, volume: Volume) -> list[Prompt]:
    if not isinstance(prompt, _CLASSES):
        raise PromptError(
            f"prompt {number} is {checks.brief(prompt)}: use Point, Box, Scribble, Mask or Text, "
            "or MarginPoints"
        )
    try:
        resolved = prompt.resolve(volume)
        return resolved.parts(volume) if isinstance(resolved, MarginPoints) else [resolved]
    except PromptError as error:
        raise PromptError(f"prompt {number}, {checks.brief(prompt)}: {error}") from error


def _nearest(places: np.ndarray, volume: Volume, frame: CoordinateFrame) -> np.ndarray:
    """(N, 3) int64 voxels of coordinates in a frame, all inside the volume."""
    voxels = checks.inside(volume.to_voxels(places, frame), volume)
    backwards = np.zeros(3, bool) if frame == "voxel" else backward_axes(volume.affine)
    return checks.nearest(voxels, backwards)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and all(
        np.array_equal(getattr(one, item.name), getattr(other, item.name)) for item in fields(one)
    )
