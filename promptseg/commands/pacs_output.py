"""`segment -o dicomweb://...`: the mask as a DICOM object, stored in a PACS."""

from __future__ import annotations

import argparse
import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from promptseg.commands.parsing import UsageError, note
from promptseg.errors import FormatError

DICOM_OBJECTS = ("seg", "rtstruct", "labelmap")


def to_pacs(arguments: argparse.Namespace, run: Callable[[argparse.Namespace], int]) -> int:
    """Run with a file as the output, and send it.

    A result that the PACS refuses is kept in the working folder: minutes of work are in it.

    Args:
        arguments: Whose `output` is an address.
        run: The command with a file for an output.

    Raises:
        UsageError: The format is no DICOM object.
        FormatError: The PACS cannot be reached, or refuses the result.
    """
    from promptseg.io.pacs import parse_address
    from promptseg.io.pacs.exchange import connect, store_files

    if arguments.format not in (None, *DICOM_OBJECTS):
        raise UsageError(f"--format is {arguments.format}: a PACS takes {', '.join(DICOM_OBJECTS)}")
    address = parse_address(arguments.output)
    pacs = connect(address)
    # Asked before the work, so that a wrong address or password costs no minutes.
    pacs.find({"SeriesInstanceUID": "1.2.3"})
    local = copy.copy(arguments)
    local.format = arguments.format or "seg"
    with tempfile.TemporaryDirectory(prefix="promptseg-pacs-") as folder:
        local.output = Path(folder) / f"{local.format}.dcm"
        status = run(local)
        if status != 0:
            return status
        try:
            store_files(pacs, address, [local.output])
        except FormatError as error:
            kept = _kept(local.output)
            raise FormatError(f"{error}; the result is kept in {kept}") from error
    note(f"stored in {address}")
    return 0


def _kept(path: Path) -> Path:
    """A copy in the working folder, over nothing that is there."""
    number = 1
    while (target := Path(f"unsent-{number}-{path.name}")).exists():
        number += 1
    shutil.copy(path, target)
    return target.resolve()
