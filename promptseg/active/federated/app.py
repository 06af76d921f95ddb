"""The folder that `flwr run` sends to the server: nothing but names and settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from promptseg.errors import FormatError
from promptseg.io.atomic import atomic_path

DEFAULTS: dict[str, Any] = {
    "rounds": 5,
    "min-sites": 2,
    "steps": 100,
    "batch": 8,
    "rate": 3e-4,
    "timeout": 7200.0,
    "wait": 600.0,
    "max-norm": 0.0,
}
TEMPLATE = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "promptseg-federated"
version = "1.0.0"
description = "Federated averaging of a promptseg adapter"
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "promptseg"

[tool.flwr.app.components]
serverapp = "promptseg.active.federated.server:app"
clientapp = "promptseg.active.federated.client:app"

[tool.flwr.app.config]
"""


def write_app(folder: Path, adapter: Path, output: Path, **settings: Any) -> Path:
    """Write the app's pyproject.toml.

    Args:
        folder: Of the app.
        adapter: Folder of the adapter to begin with, on the server.
        output: Where the server writes every round's adapter.
        settings: Of `DEFAULTS`, with `-` written `_`.

    Returns:
        The file.

    Raises:
        FormatError: A setting is unknown, or the folder cannot be written.
    """
    given = {name.replace("_", "-"): value for name, value in settings.items()}
    unknown = sorted(set(given) - set(DEFAULTS) - {"half", "precision"})
    if unknown:
        raise FormatError(f"{unknown[0]!r} is no setting: use {', '.join(DEFAULTS)}")
    config = {"adapter": str(adapter.resolve()), "output": str(output.resolve()), **DEFAULTS}
    config |= given
    lines = [f"{name} = {json.dumps(value)}" for name, value in config.items()]
    path = folder / "pyproject.toml"
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(TEMPLATE + "\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path
