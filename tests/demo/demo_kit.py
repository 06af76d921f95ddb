"""A running demo over a network that knows one right answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from support import bright_volume, discs, segmenter

from promptseg.demo.models import Models
from promptseg.demo.server import Server
from promptseg.session import Segmenter
from promptseg.volume import Volume


class BrightModels(Models):
    """Offers one network without weights: what is bright and connected to the prompts."""

    def names(self) -> list[str]:
        return ["default"]

    def adapters(self, model: str) -> list[str]:
        return []

    def _open(self, model: str, adapter: str | None) -> Segmenter:
        return segmenter()


@dataclass
class BrightServer(Server):
    """Its sample is two bright tubes along the last axis."""

    def sample(self) -> Volume:
        return tubes()


def tubes() -> Volume:
    """40 x 48 x 12 voxels: one bright disc of radius 7 and one of radius 5 on every slice."""
    first = dict.fromkeys(range(1, 11), (14.0, 16.0, 7.0))
    second = dict.fromkeys(range(2, 9), (28.0, 34.0, 5.0))
    shape = (40, 48, 12)
    mask = discs(shape, 2, first) | discs(shape, 2, second)
    return bright_volume(mask, spacing=(1.0, 1.0, 3.0))


def bright_server(folder: Path, **options: object) -> BrightServer:
    """A server whose files lie in `folder`."""
    return BrightServer(models=BrightModels("cpu", "fp32"), folder=folder, **options)  # type: ignore[arg-type]


def masks_equal(one: np.ndarray, other: np.ndarray) -> bool:
    """True if two label arrays agree in every voxel."""
    return one.shape == other.shape and bool(np.array_equal(one, other))


def running(server: Server, **options: object) -> tuple[object, str]:
    """The app of a server on a free port, and its address."""
    from promptseg.demo.launch import serve

    return serve(server, port=0, block=False, **options)  # type: ignore[arg-type]
