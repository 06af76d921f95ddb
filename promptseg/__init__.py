"""Prompts to 3D masks of CT and MRI: points, boxes, scribbles, masks, on SAM-family networks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptseg.errors import (
        AdapterError,
        FormatError,
        PromptError,
        PromptsegError,
        VolumeError,
        WeightsError,
    )
    from promptseg.evaluate import evaluate
    from promptseg.io.provenance import read_provenance
    from promptseg.io.version import __version__
    from promptseg.prompts.types import Box, MarginPoints, Mask, Point, PromptSet, Scribble, Text
    from promptseg.refine.postprocessing import postprocess
    from promptseg.report.measurements import measure
    from promptseg.report.quality import review
    from promptseg.session import Segmenter, Session
    from promptseg.session.timeseries import read_phases, segment_phases
    from promptseg.volume import Segmentation, Volume, read, read_labels, write

_PLACES = {
    "__version__": "io.version",
    "AdapterError": "errors",
    "FormatError": "errors",
    "PromptError": "errors",
    "PromptsegError": "errors",
    "VolumeError": "errors",
    "WeightsError": "errors",
    "evaluate": "evaluate",
    "finetune": "finetune",
    "measure": "report.measurements",
    "postprocess": "refine.postprocessing",
    "read": "volume",
    "read_phases": "session.timeseries",
    "read_provenance": "io.provenance",
    "review": "report.quality",
    "segment_phases": "session.timeseries",
    "read_labels": "volume",
    "write": "volume",
    "Box": "prompts.types",
    "MarginPoints": "prompts.types",
    "Mask": "prompts.types",
    "Point": "prompts.types",
    "PromptSet": "prompts.types",
    "Scribble": "prompts.types",
    "Text": "prompts.types",
    "Segmenter": "session",
    "Session": "session",
    "Segmentation": "volume",
    "Volume": "volume",
}

__all__ = [
    "AdapterError",
    "Box",
    "FormatError",
    "MarginPoints",
    "Mask",
    "Point",
    "PromptError",
    "PromptSet",
    "PromptsegError",
    "Scribble",
    "Segmentation",
    "Segmenter",
    "Session",
    "Text",
    "Volume",
    "VolumeError",
    "WeightsError",
    "__version__",
    "evaluate",
    "finetune",
    "measure",
    "postprocess",
    "read",
    "read_labels",
    "read_phases",
    "read_provenance",
    "review",
    "segment_phases",
    "write",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `promptseg --help` stays quick."""
    if name not in _PLACES:
        raise AttributeError(f"module 'promptseg' has no attribute {name!r}")
    return getattr(import_module(f"promptseg.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
