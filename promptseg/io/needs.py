"""Packages of an extra, asked for by name where they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from promptseg.errors import FormatError


def needed(module: str, what: str, extra: str = "dicom") -> ModuleType:
    """Import a module of an extra.

    Raises:
        FormatError: It is not installed; says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != module.partition(".")[0]:
            raise
        raise FormatError(
            f"{what} needs {module}, which is not installed: pip install 'promptseg[{extra}]'"
        ) from error
