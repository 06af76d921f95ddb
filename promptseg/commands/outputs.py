"""Output files of one run: all of them or none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from promptseg.commands.parsing import UsageError
from promptseg.errors import FormatError


def place(text: str) -> Path | str:
    """A file, or as text what names a place in a PACS."""
    from promptseg.io.pacs.address import is_address

    return text if is_address(text) else Path(text)


def check_outputs(paths: Mapping[str, Path], image: Path | str | None = None) -> None:
    """Refuse, before any work, files that cannot be written where they are wanted.

    Args:
        paths: Files to write, by role.
        image: The input, which no output may replace.

    Raises:
        UsageError: Two outputs or the image share a path, or a folder cannot be written to.
    """
    taken = {image.resolve(): "the image"} if isinstance(image, Path) else {}
    for role, path in paths.items():
        other = taken.setdefault(path.resolve(), role)
        if other != role:
            raise UsageError(f"{path} is both {other} and {role}: give another path")
        if path.is_dir():
            raise UsageError(f"{path} is a folder: give a file name for {role}")
        _check_folder(path)


def check_mask_format(path: Path, format: str | None, shared: bool = False) -> None:
    """Refuse a mask file whose format is unknown or cannot hold the masks.

    Args:
        path: File to write.
        format: Name in `FORMATS`; None goes by the suffix.
        shared: True if targets will share voxels.

    Raises:
        UsageError: It cannot be written so.
    """
    from promptseg.io import FORMATS, writable

    try:
        chosen = writable(path, format)
    except FormatError as error:
        raise UsageError(str(error)) from error
    if shared and not chosen.overlaps:
        able = ", ".join(
            entry.name for entry in FORMATS.values() if entry.overlaps and entry.writes
        )
        raise UsageError(
            f"{path}: a target made with to= shares voxels with its source and {chosen.name} holds "
            f"one label a voxel: {f'use --format {able}, or ' if able else ''}cut one out of the "
            "other with --post subtract:2+1"
        )


def check_mask_shape(path: Path, format: str | None, shape: tuple[int, int, int]) -> None:
    """Refuse, before any work, a picture for a mask of several slices."""
    from promptseg.io import writable

    if writable(path, format).name == "picture" and 1 not in shape:
        raise UsageError(
            f"{path} is a picture and holds one slice, the image has shape {shape}: end it in "
            ".nii.gz"
        )


@contextmanager
def staged(paths: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Give a temporary path for each file; all are renamed into place when the block succeeds.

    Args:
        paths: Files to write, by role.

    Raises:
        FormatError: A file cannot be written; none is left behind.
    """
    from promptseg.io.atomic import atomic_path

    temporary: dict[str, Path] = {}
    try:
        with ExitStack() as stack:
            for role, path in paths.items():
                temporary[role] = stack.enter_context(atomic_path(path))
            yield temporary
    except FormatError as error:
        raise FormatError(_with_final_names(str(error), temporary, paths)) from error.__cause__
    except OSError as error:
        named = _with_final_names(str(error.filename or "output"), temporary, paths)
        raise FormatError(f"{named}: cannot be written: {error.strerror or error}") from error


def describe(paths: Mapping[str, Path], temporary: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Final path and SHA-256 of each file written, for the manifest."""
    from promptseg.weights.registry import sha256_file

    return {
        role: {"path": str(paths[role].resolve()), "sha256": sha256_file(path)}
        for role, path in temporary.items()
        if path.is_file()
    }


def _check_folder(path: Path) -> None:
    folder = next(folder for folder in path.resolve().parents if folder.exists())
    if not folder.is_dir():
        raise UsageError(f"{path} cannot be written: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{path} cannot be written: no permission to write in {folder}")


def _with_final_names(text: str, temporary: Mapping[str, Path], paths: Mapping[str, Path]) -> str:
    for role, path in temporary.items():
        text = text.replace(str(path), str(paths[role]))
    return text
