"""Writing a file so that a kill leaves the old one or the new one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `target`; rename it onto `target` when the block succeeds.

    The temporary name keeps every suffix of the target (`.nii.gz`), since writers choose the
    format by it. On an error the temporary file is removed and `target` is untouched. A symbolic
    link stays one: the file that it leads to is replaced. What is no regular file, such as
    /dev/stdout, is written to.

    Args:
        target: File to write; its folder is made if it does not exist.
    """
    real = Path(os.path.realpath(target))
    device = os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target)
    if not device:
        real.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".promptseg-", dir=None if device else real.parent))
    temporary = folder / Path(target).name
    try:
        yield temporary
        if device:
            _pour(temporary, Path(target))
        else:
            os.chmod(temporary, _mode_of_new_files(folder))
            os.replace(temporary, real)
    finally:
        temporary.unlink(missing_ok=True)
        folder.rmdir()


def _pour(source: Path, device: Path) -> None:
    with source.open("rb") as held, device.open("wb") as sink:
        shutil.copyfileobj(held, sink)


def _mode_of_new_files(folder: Path) -> int:
    """Permissions that a file made here gets; safetensors makes its own private."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode
