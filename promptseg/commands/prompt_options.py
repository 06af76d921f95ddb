"""Prompts on the command line, in the order they were given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.parsing import UsageError

if TYPE_CHECKING:
    from promptseg.prompts.types import Prompt, PromptSet
    from promptseg.volume import Volume


class _Given(argparse.Action):
    """Append (option, value, target) to the prompts given so far."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        given = [*(namespace.given or []), (option, values, namespace.target)]
        namespace.given = given


def add_prompts(parser: argparse.ArgumentParser) -> None:
    """Declare the options that make prompts."""
    group = parser.add_argument_group("prompts (each may be repeated)")
    group.set_defaults(given=None)

    def prompt(option: str, metavar: str, summary: str) -> None:
        group.add_argument(option, action=_Given, dest="given", metavar=metavar, help=summary)

    prompt("--box", "i0,j0,k0,i1,j1,k1", "first voxel and one past the last; one slice thick = 2D")
    prompt("--point", "i,j,k[,-]", "a click inside, or outside with a final minus")
    prompt("--margin", "i,j,k;i,j,k;...", "clicks just inside the boundary, near its extremes")
    prompt(
        "--scribble",
        "FILE[,-][,blank=N]",
        "strokes: an image or labels on the same grid, or vertices in .csv or .json; with a final "
        "minus outside the target; N marks what nobody drew on",
    )
    prompt("--text", "WORDS", "name the target")
    prompt("--prompts", "JSON", "a file of prompts, each with its own target and frame")
    add_text_model(group)
    group.add_argument(
        "--target",
        type=_target,
        default=1,
        metavar="N",
        help="label of the prompts that come after it on the command line (default 1)",
    )
    group.add_argument(
        "--frame",
        choices=("voxel", "ras", "lps"),
        default="voxel",
        help="what --box, --point, --margin and vertices are in: voxels, or millimetres "
        "(default voxel)",
    )


def add_text_model(group: argparse._ArgumentGroup) -> None:
    """Declare the option that names an image-text model."""
    group.add_argument(
        "--text-model",
        metavar="PATH|hf-hub:NAME",
        help="image-text model for words that no adapter knows: a folder in open_clip's format, "
        "such as BiomedCLIP's",
    )


def _target(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"target is {text!r}: give a whole number from 1 up")
    return int(text)


def build_prompts(given: list[tuple[str, str, int]], frame: Any, volume: Volume) -> PromptSet:
    """Make the prompts of the command line and check them against the volume.

    Args:
        given: (option, value, target) in the order of the command line.
        frame: `voxel`, `ras` or `lps`.
        volume: The image; scribble files must be on its grid.

    Raises:
        UsageError: A value cannot be read.
        PromptError: A prompt cannot be used on the volume.
    """
    from promptseg.prompts.types import PromptSet

    prompts: list[Prompt] = []
    for option, value, target in given:
        prompts += _MAKERS[option](value, target, frame, volume)
    chosen = PromptSet(prompts)
    chosen.validate(volume)
    return chosen


def _numbers(option: str, text: str, form: str) -> list[float]:
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != len(form.split(",")):
        raise UsageError(f"{option} is {text!r}: give numbers as {form}, without spaces")
    return [int(number) if number.is_integer() else number for number in numbers]


def _box(text: str, target: int, frame: Any, _: Volume) -> list[Prompt]:
    from promptseg.prompts.types import Box

    i0, j0, k0, i1, j1, k1 = _numbers("--box", text, "i0,j0,k0,i1,j1,k1")
    return [Box((i0, j0, k0), (i1, j1, k1), target, frame)]


def _point(text: str, target: int, frame: Any, _: Volume) -> list[Prompt]:
    from promptseg.prompts.types import Point

    text, positive = _sign(text)
    i, j, k = _numbers("--point", text, "i,j,k")
    return [Point((i, j, k), positive, target, frame)]


def _margin(text: str, target: int, frame: Any, _: Volume) -> list[Prompt]:
    from promptseg.prompts.types import MarginPoints

    given = [part for part in text.split(";") if part.strip()]
    points = [_numbers("--margin", part, "i,j,k") for part in given]
    return [MarginPoints(points, target, frame)]  # type: ignore[arg-type]


def _scribble(text: str, target: int, frame: Any, volume: Volume) -> list[Prompt]:
    from promptseg.prompts.types import Scribble

    path, blank = _blank(text)
    path, positive = _sign(path)
    return list(Scribble.from_file(path, volume, positive, target, frame, blank))


def _blank(text: str) -> tuple[str, int | None]:
    path, found, value = text.rpartition(",blank=")
    if not found:
        return text, None
    if not value.isdecimal():
        raise UsageError(f"--scribble is {text!r}: blank is a whole number, such as blank=4")
    return path, int(value)


def _text(text: str, target: int, _: Any, __: Volume) -> list[Prompt]:
    from promptseg.prompts.types import Text

    return [Text(text, target)]


def _file(text: str, *_: Any) -> list[Prompt]:
    from promptseg.prompts.types import PromptSet

    return list(PromptSet.load(Path(text)))


def _sign(text: str) -> tuple[str, bool]:
    for sign, positive in ((",-", False), (",+", True)):
        if text.endswith(sign):
            return text.removesuffix(sign), positive
    return text, True


_MAKERS: dict[str, Callable[[str, int, Any, Any], list[Any]]] = {
    "--box": _box,
    "--point": _point,
    "--margin": _margin,
    "--scribble": _scribble,
    "--text": _text,
    "--prompts": _file,
}
