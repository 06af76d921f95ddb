"""Files that ship with the package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def asset_dir(name: str) -> Path:
    """Folder of shipped files: inside an installed wheel, else at the top of the repository.

    Args:
        name: `weights`, `adapters` or `demos`.
    """
    packaged = _PACKAGE / "_assets" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
