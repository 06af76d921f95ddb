"""Packages of an extra, asked for by name where they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from promptseg.errors import FormatError


def needed(module: str, what: str, extra: str = "dicom") -> ModuleType:
    """Import a module that an extra provides, or that needs what it provides.

    Raises:
        FormatError: It is not installed; says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing == "promptseg":
            raise
        raise FormatError(
            f"{what} needs {missing}, which is not installed: pip install 'promptseg[{extra}]'"
        ) from error
