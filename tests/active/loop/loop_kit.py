"""Loop projects of tiny cases, and a way to die at any statement or file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from active_kit import write_place

from promptseg.active.loop import store
from promptseg.active.loop.making import make_project
from promptseg.active.loop.project import Project
from promptseg.adapters import read_adapter
from promptseg.io import atomic

DIED = 9


def place_and_project(
    folder: Path, cases: int = 4, adapter: bool = True, **options: object
) -> Path:
    """The folder of a project named `loop` beside the tiny place."""
    write_place(folder, cases)
    given = read_adapter(folder / "source") if adapter else None
    project = make_project(
        folder / "loop",
        folder / "images",
        "disc",
        "ann",
        model=str(folder / "tiny.safetensors"),
        adapter=given,
        **options,  # type: ignore[arg-type]
    )
    project.store.close()
    return folder / "loop"


def truth(project: Path, name: str) -> Path:
    """The known mask of a case."""
    return project.parent / "labels" / f"{name}.nii.gz"


def dies_at(step: int, work: Callable[[], object]) -> bool:
    """Do some work in another process that dies at its n-th statement or renamed file.

    Returns:
        True if it died, False if it came to its end before.
    """
    child = os.fork()
    if child == 0:
        _mine(step)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, state = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(state)
    assert code in (0, DIED), code
    return code == DIED


def _mine(step: int) -> None:
    left = [step]
    run, rename = store.Store.run, os.replace

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os._exit(DIED)

    def counted_run(self: store.Store, statement: str, values: object = ()) -> object:
        count()
        return run(self, statement, values)  # type: ignore[arg-type]

    def counted_rename(*places: object) -> None:
        count()
        rename(*places)  # type: ignore[arg-type]

    store.Store.run = counted_run  # type: ignore[method-assign, assignment]
    atomic.os.replace = counted_rename  # type: ignore[assignment]


def reopened(folder: Path, who: str = "ann") -> Project:
    """The project as a new program finds it; its database is whole."""
    project = Project(folder, who)
    assert project.store.run("PRAGMA integrity_check")[0][0] == "ok"
    return project
