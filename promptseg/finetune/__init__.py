"""Teaching a backbone a new organ from a few labelled cases.

This module can be called: `promptseg.finetune(images, labels, organ="left atrium")` is
`promptseg.finetune.finetune`, since the package and its main function share their name.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptseg.adapters import Adapter
    from promptseg.backbones.base import Backbone
    from promptseg.datasets.cohort import Images, Labels
    from promptseg.finetune.config import FinetuneConfig

__all__ = ["finetune"]


def finetune(
    images: Images,
    labels: Labels | None,
    organ: str,
    backbone: str | Backbone = "default",
    rank: int = 8,
    *,
    scribbles: Labels | None = None,
    unlabelled: Images | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Adapter:
    """Train a LoRA adapter for an organ.

    All pairs are checked before anything is trained. Without validation cases in the options
    a fifth of the cases is set aside, by case.

    Args:
        images: Folder, or list of files or volumes.
        labels: The same for the labels; pairs are matched by file name. With scribbles they are
            those of validation cases alone, or None.
        organ: What the adapter segments, in words.
        backbone: Registry name, checkpoint, folder or a loaded backbone.
        rank: Rank of the low-rank matrices.
        scribbles: Strokes in place of labels; the objective is then `prompted` with the default
            model, `scribble` with others and with unlabelled images, unless it is named, and
            `ignore` the value of the voxels that nobody drew on.
        unlabelled: Further images without labels; the objective is `semi` unless it is named.
        out: Adapter folder; `runs/<organ>` by default.
        resume: Go on from the last checkpoint in that folder.
        progress: Called with stage, done, total.
        options: Any other field of `promptseg.finetune.config.FinetuneConfig`, such as
            `steps=500`, `cases="1-8"`, `label_names={1: "left atrium"}` or `loss="dice+focal"`.

    Returns:
        The adapter; give it to `Segmenter.from_pretrained(adapter=...)`.

    Raises:
        FormatError: Files or options cannot be used; every fault of the files is listed.
        VolumeError: Grids differ or a label is absent; every fault is listed.
        AdapterError: The folder is taken or holds another run.
        WeightsError: The backbone cannot be loaded.
    """
    from promptseg.finetune.running import train_adapter

    loaded = None if isinstance(backbone, (str, os.PathLike)) else backbone
    name = os.fspath(backbone) if loaded is None else loaded.spec.name  # type: ignore[arg-type]
    return train_adapter(
        _config({"organ": organ, "backbone": name, "rank": rank, **options}, scribbles, unlabelled),
        images,
        labels,
        default_folder(organ) if out is None else Path(out),
        scribbles=scribbles,
        unlabelled=unlabelled,
        resume=resume,
        backbone=loaded,
        progress=progress,
    )


def _config(
    given: dict[str, Any], scribbles: Labels | None, unlabelled: Images | None
) -> FinetuneConfig:
    from promptseg.finetune.config import checked, fitting_objective

    fitting = fitting_objective({"scribbles": scribbles, "unlabelled": unlabelled, **given})
    del fitting["scribbles"], fitting["unlabelled"]
    return checked(fitting, "finetune")


def default_folder(organ: str) -> Path:
    """`runs/<organ>` with the organ as a file name."""
    words = "".join(c if c.isalnum() else " " for c in organ.lower()).split()
    return Path("runs") / ("_".join(words) or "adapter")


class _CallableModule(ModuleType):
    """The import system sets `promptseg.finetune` to this module; so the module is callable."""

    def __call__(self, *args: Any, **options: Any) -> Adapter:
        return finetune(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(finetune)


sys.modules[__name__].__class__ = _CallableModule
