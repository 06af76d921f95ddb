"""Writing a file so that a kill leaves the old one or the new one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `target`; rename it onto `target` when the block succeeds.

    The temporary name keeps every suffix of the target (`.nii.gz`), since writers choose the
    format by it. On an error the temporary file is removed and `target` is untouched.

    Args:
        target: File to write; its folder is made if it does not exist.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".promptseg-", dir=target.parent))
    temporary = folder / target.name
    try:
        yield temporary
        os.chmod(temporary, _mode_of_new_files(folder))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        folder.rmdir()


def _mode_of_new_files(folder: Path) -> int:
    """Permissions that a file made here gets; safetensors makes its own private."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode
