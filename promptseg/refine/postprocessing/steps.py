"""A post-processing step as text and as an object: `margin:1,mm=5,to=2,not_into=3`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from promptseg.errors import PromptError
from promptseg.volume import Volume


@dataclass(frozen=True)
class Step:
    """One operation on some targets.

    Args:
        name: As registered in `OPERATIONS`.
        targets: Which; none means every target.
        options: Of the operation, and for all of them `to` (the target that takes the result, if
            not the first of `targets`) and `name` (what that target is called).

    Example:
        >>> str(Step.parse("margin:1,mm=5,to=2"))
        'margin:1,mm=5,to=2'
    """

    name: str
    targets: tuple[int, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        where = f":{'+'.join(map(str, self.targets))}" if self.targets else ""
        told = (f"{key}={_shown(value)}" for key, value in self.options.items())
        return ",".join([f"{self.name}{where}", *told])

    @classmethod
    def parse(cls, text: str) -> Step:
        """Read `NAME[:TARGETS][,option=value]...`; targets are joined by `+`.

        Raises:
            PromptError: The text is of another form. Names and values are checked when it runs.
        """
        head, *rest = (part.strip() for part in text.split(","))
        name, colon, places = head.partition(":")
        targets = parse_targets(text, places) if colon and places != "all" else ()
        options: dict[str, Any] = {}
        for part in rest:
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not (key and equals and value):
                raise PromptError(f"step {text!r}: {part!r} is no option=value")
            if key in options:
                raise PromptError(f"step {text!r}: {key} is given twice")
            options[key] = value
        return cls(name.strip(), targets, options)


@dataclass(frozen=True)
class Grid:
    """What an operation may look at besides the mask it changes.

    Args:
        affine: (4, 4) voxel to RAS+ millimetres.
        masks: (I, J, K) bool by target, as the steps before left them.
        volume: The image, None where there is none.
        axis: Slice axis of the segmentation, None where it is unknown.
    """

    affine: np.ndarray
    masks: Mapping[int, np.ndarray]
    volume: Volume | None = None
    axis: int | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres along i, j, k."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def voxel_ml(self) -> float:
        """Millilitres of one voxel."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def image(self, why: str) -> Volume:
        """The image.

        Raises:
            PromptError: There is none.
        """
        if self.volume is None:
            raise PromptError(f"{why} needs the image: give postprocess(..., volume=volume)")
        return self.volume


Made = tuple[np.ndarray, list[str]]
"""A new mask and remarks for the report."""


@dataclass(frozen=True)
class Operation:
    """A registered operation.

    Args:
        run: Called with the masks of the step's targets, the grid and the options.
        summary: One line for `--help` and the page.
        options: What reads each option's value.
        joins: True if it takes several targets at once, the first of which it changes.
        overlaps: True if what it adds may lie in other targets; else those keep their voxels.
    """

    run: Callable[..., Made]
    summary: str
    options: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    joins: bool = False
    overlaps: bool = False

    def values(self, step: Step) -> dict[str, Any]:
        """The step's own options, read.

        Raises:
            PromptError: An option is unknown or its value cannot be read.
        """
        found = {}
        for key, value in step.options.items():
            if key in ("to", "name"):
                continue
            if key not in self.options:
                raise PromptError(f"step {step}: {unknown('option', key, self.options)}")
            try:
                found[key] = self.options[key](value)
            except (TypeError, ValueError) as error:
                raise PromptError(f"step {step}: {key} is {value!r}: {error}") from error
        return found


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that nobody knows."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    advice = f"did you mean {near[0]}?" if near else f"use one of {', '.join(names) or 'none'}"
    return f"{kind} {name!r} is unknown: {advice}"


def parse_targets(step: str, text: str) -> tuple[int, ...]:
    """Read `1+2+3`.

    Raises:
        PromptError: These are no targets.
    """
    try:
        return targets(text)
    except (TypeError, ValueError) as error:
        raise PromptError(f"step {step!r}: targets are {text!r}: {error}") from error


def number(value: Any) -> float:
    """A finite number."""
    found = float(value)
    if not np.isfinite(found):
        raise ValueError("give a finite number")
    return found


def positive(value: Any) -> float:
    """A finite number above 0."""
    found = number(value)
    if found <= 0:
        raise ValueError("give a number above 0")
    return found


def not_negative(value: Any) -> float:
    """A finite number from 0 up."""
    found = number(value)
    if found < 0:
        raise ValueError("give a number from 0 up")
    return found


def count(value: Any) -> int:
    """A whole number from 1 up."""
    found = number(value)
    if found < 1 or found != int(found):
        raise ValueError("give a whole number from 1 up")
    return int(found)


def targets(value: Any) -> tuple[int, ...]:
    """Targets joined by `+`, one number, or several."""
    parts = value.split("+") if isinstance(value, str) else value
    return tuple(count(part) for part in ([parts] if np.isscalar(parts) else parts))


def one_of(*names: str) -> Callable[[Any], str]:
    """Reads one of some words."""

    def read(value: Any) -> str:
        if str(value) not in names:
            raise ValueError(f"use one of {', '.join(names)}")
        return str(value)

    return read


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
