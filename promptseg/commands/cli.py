"""The command line: one entry point, one lazily imported module a subcommand."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from promptseg.commands.parsing import Parser, join_negatives, note
from promptseg.errors import PromptsegError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

COMMANDS = {
    "segment": "a 3D mask from points, boxes, scribbles or words",
    "cine": "every phase of a time series, with volumes and ejection fraction",
    "rerun": "run a manifest again and say whether the mask is the same",
    "evaluate": "simulated users on images with known labels: tables and figures",
    "finetune": "a LoRA adapter for an organ, from images and labels or a recipe",
    "select": "which cases are worth annotating",
    "pacs": "list, fetch and store series of a PACS, over DICOMweb or DIMSE",
    "audit": "check an audit log, or say what made a mask",
    "federated": "adapters of several sites become one",
    "loop": "a project that learns from corrections",
    "adapt": "an adapter for another site, from the cases annotated there",
    "adapters": "list, describe and merge adapters",
    "demo": "a web page to segment by clicking",
    "weights": "list, fetch, check and convert model weights",
    "bench": "speed against the usual way of using SAM",
    "doctor": "what is installed, which device, where weights are found",
}
"""Subcommands and their help; `promptseg.commands.<name>` holds the code of each."""

_DICOM = ("SimpleITK", "pydicom", "highdicom", "nrrd", "slicerio")
_PACS = ("dicomweb_client", "pynetdicom", "requests")
EXTRAS = {
    "gradio": "demo",
    "flwr": "federated",
    "opacus": "federated",
    **dict.fromkeys(_DICOM, "dicom"),
    **dict.fromkeys(_PACS, "pacs"),
}
"""Modules that come with another extra than `train`."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; None takes them from the process.

    Returns:
        0 done; 1 the work failed; 2 bad input, with one line on stderr; 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _spell_out_what_the_console_cannot_show()
    try:
        with _quiet():
            return _run(arguments)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or DONE)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except PromptsegError as error:
        return _fail(str(error), FAILED if _disk_failed(error) else BAD_INPUT)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(str(error.name).partition(".")[0], "train")
        return _fail(f"{error.name} is not installed: pip install 'promptseg[{extra}]'", BAD_INPUT)
    except MemoryError:
        return _fail("out of memory: crop the image or close other programs", FAILED)
    except Exception as error:  # anything else is a failure of ours: one line, not a traceback
        return _fail(f"failed with {type(error).__name__}: {error}{_debug_hint()}", FAILED)


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments and arguments[0] in COMMANDS else None
    chosen: Any = import_module(f"promptseg.commands.{name}") if name else None
    parser = Parser(prog="promptseg", description="Prompts to 3D masks of CT and MRI.")
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command, summary in COMMANDS.items():
        described = f"{summary[0].upper()}{summary[1:]}."
        sub = commands.add_parser(command, help=summary, description=described)
        if command == name:
            chosen.add_arguments(sub)
    options = parser.parse_args(join_negatives(arguments))
    return int(chosen.run(options))


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and stop")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from promptseg.report import package_version

        print(f"promptseg {package_version('promptseg')}")
        parser.exit()


def _spell_out_what_the_console_cannot_show() -> None:
    """Letters outside the console's encoding are escaped, since a print must never fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings of libraries off the screen; they are meant for programmers."""
    with warnings.catch_warnings():
        if not _debug():
            warnings.simplefilter("ignore")
        yield


def _disk_failed(error: PromptsegError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL


def _debug() -> bool:
    return os.environ.get("PROMPTSEG_DEBUG", "0") not in ("", "0")


def _debug_hint() -> str:
    return "" if _debug() else " (set PROMPTSEG_DEBUG=1 for the traceback)"


def _fail(message: str, status: int) -> int:
    if _debug():
        traceback.print_exc()
    note(" ".join(message.split()))
    return status
