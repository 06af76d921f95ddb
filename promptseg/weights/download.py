"""Downloading one file: resumable, checked, and under its name only when whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from promptseg.errors import WeightsError
from promptseg.weights.checkpoint import sha256_file

BLOCK = 1 << 20
TIMEOUT_S = 30.0


def download(
    url: str, target: Path, size: int | None, sha256: str | None, progress: bool = True
) -> str:
    """Fetch `url` into `target` and return its SHA-256.

    What has arrived waits in `target` + `.part`; a later call asks the server for the rest.

    Args:
        url: Address of the file.
        target: File to write; its folder is made if it does not exist.
        size: Bytes expected, None if not known.
        sha256: Digest expected, None if not known.
        progress: Show a bar if stderr is a terminal.

    Raises:
        WeightsError: If there is no network, the server refuses, or the file is not the one
            expected.
    """
    from filelock import FileLock

    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock"):
            if not target.is_file():
                _fetch(url, part, size, progress)
                digest = _checked(url, part, size, sha256)
                os.replace(part, target)
                return digest
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise WeightsError(_advice(url, target, error)) from error
    return _checked(url, target, size, sha256)


def _advice(url: str, target: Path, error: Exception) -> str:
    return (
        f"cannot download {target.name} from {url}: {error}; run the command again to resume, "
        f"or fetch the file elsewhere and put it at {target} or in the folder that "
        "$PROMPTSEG_WEIGHTS names"
    )


def _fetch(url: str, part: Path, size: int | None, progress: bool) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if size is not None and have > size:
        have = 0
    if have and have == size:
        return
    try:
        response = _open(url, have)
    except HTTPError as error:
        if error.code != 416:  # the part does not fit the file any more: begin again
            raise
        have, response = 0, _open(url, 0)
    with response:
        if response.status != 206:
            have = 0
        _copy(response, part, have, progress)


def _open(url: str, start: int) -> Any:
    headers = {"User-Agent": "promptseg"} | ({"Range": f"bytes={start}-"} if start else {})
    return urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)


def _copy(response: Any, part: Path, have: int, progress: bool) -> None:
    from tqdm import tqdm

    rest = int(response.headers.get("Content-Length") or 0)
    bar = tqdm(
        total=have + rest or None,
        initial=have,
        unit="B",
        unit_scale=True,
        desc=part.stem,
        disable=not (progress and sys.stderr.isatty()),
    )
    got = 0
    with open(part, "ab" if have else "wb") as stream, bar:
        while block := response.read(BLOCK):
            stream.write(block)
            bar.update(len(block))
            got += len(block)
    if rest and got < rest:
        raise OSError(f"the connection closed after {have + got} of {have + rest} bytes")


def _checked(url: str, path: Path, size: int | None, sha256: str | None) -> str:
    digest, found = sha256_file(path), path.stat().st_size
    if (size is None or found == size) and (sha256 is None or digest == sha256):
        return digest
    path.unlink()
    raise WeightsError(
        f"{url} gave {found} bytes with sha256 {digest}, not {size} bytes with sha256 {sha256}; "
        "the file was discarded: try again, and if it repeats do not trust that source"
    )
