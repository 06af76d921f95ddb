"""What ships with the package: its version, and where its files are."""

from __future__ import annotations

from pathlib import Path

VERSION = "0.1.0"


def asset_dir(name: str) -> Path:
    """Folder of shipped files: inside an installed wheel, else at the top of the repository.

    Args:
        name: `weights`, `adapters` or `demos`.
    """
    packaged = Path(__file__).parent / "_assets" / name
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / name
