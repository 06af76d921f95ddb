"""What the subcommands share in reading the command line."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from promptseg.errors import PromptsegError

_NEGATIVE = re.compile(r"-(?:\d|\.\d|nan|inf)", re.IGNORECASE)


class UsageError(PromptsegError, ValueError):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, raised rather than printed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def join_negatives(arguments: Sequence[str]) -> list[str]:
    """Bind values such as `-1,2,3` to the option before them, as in `--point=-1,2,3`.

    Without this argparse takes the value for an option of its own.
    """
    joined: list[str] = []
    for argument in arguments:
        option = joined[-1] if joined else ""
        if _NEGATIVE.match(argument) and option.startswith("--") and "=" not in option:
            joined[-1] = f"{option}={argument}"
        else:
            joined.append(argument)
    return joined


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def print_json(content: Any) -> None:
    """Print one JSON object on stdout, with escapes where the console lacks the letters."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(content, allow_nan=False)
    print(text)


def note(message: str) -> None:
    """Print one line for a person on stderr."""
    print(f"promptseg: {message}", file=sys.stderr)
