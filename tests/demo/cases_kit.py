"""A project of bright discs with predictions that are a little too small, behind the demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from active_kit import write_place
from demo_kit import BrightModels, BrightServer
from support import segmenter

from promptseg.active.loop.making import make_project
from promptseg.active.loop.project import Project
from promptseg.adapters import read_adapter
from promptseg.demo.cases.projects import Projects
from promptseg.demo.keeping import Keeper
from promptseg.session import Segmenter
from promptseg.volume import Segmentation, Volume, read

SECRET, OTHER = "0123456789abcdef", "fedcba9876543210"


class ProjectModels(BrightModels):
    """Offers the project's model, which answers as the bright one does."""

    def __init__(self, model: str) -> None:
        super().__init__("cpu", "fp32", (model,))

    def names(self) -> list[str]:
        return [*self.extra, "default"]

    def _open(self, model: str, adapter: str | None) -> Segmenter:
        return segmenter()


def make_cases(folder: Path, cases: int = 4, predicted: bool = True, **options: object) -> Path:
    """The folder of a project `loop`; its version 0 has predicted every case."""
    write_place(folder, cases)
    project = make_project(
        folder / "loop", folder / "images", "disc", "init",
        model=str(folder / "tiny.safetensors"),
        adapter=read_adapter(folder / "source") if predicted else None, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    for number in range(cases if predicted else 0):
        _predict(project, f"case{number}", 0.95 - 0.1 * number)
    project.store.close()
    return folder / "loop"


def _predict(project: Project, name: str, score: float) -> None:
    volume = project.volume(name)
    labels = truth(project.folder, name).copy()
    labels[..., -2:] = 0
    path = Path("predictions") / "0000" / f"{name}.nii.gz"
    Segmentation.from_volume(volume, labels).save(project.folder / path)
    with project.store.change():
        project.store.run(
            "INSERT INTO predictions VALUES (?, 0, ?, ?, 2, 3, 'it differs from its neighbours')",
            (name, str(path), score),
        )


def truth(project: Path, name: str) -> np.ndarray:
    """The known mask of a case."""
    return np.asarray(read(project.parent / "labels" / f"{name}.nii.gz").data)


def case_server(project: Path, files: Path, **options: object) -> BrightServer:
    """A server that offers the project."""
    model = str(project.parent / "tiny.safetensors")
    options = {"keeper": Keeper(files.parent / "works"), **options}
    return BrightServer(
        models=ProjectModels(model), folder=files, projects=Projects([project]), **options  # type: ignore[arg-type]
    )  # fmt: skip


def visitor(server: BrightServer, key: str, who: str, secret: str = SECRET) -> object:
    """The visit of somebody who gave a name."""
    visit = server.visits.begin(key, (secret,))
    visit.loop.who = who
    return visit


def missed(volume: Volume, project: Path, name: str) -> tuple[int, int, int]:
    """A voxel of the disc that the prediction has not."""
    known = truth(project, name)
    slices = [k for k in range(known.shape[2] - 2, known.shape[2]) if known[..., k].any()]
    place = np.argwhere(known[..., slices[0]]).mean(0).round().astype(int)
    return int(place[0]), int(place[1]), slices[0]
