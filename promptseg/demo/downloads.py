"""Files that a visitor takes home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptseg.demo.finishing import finished
from promptseg.demo.stroke_advice import stroke_advice
from promptseg.demo.visit import Visit
from promptseg.demo.work_file import SUFFIX, work_of, write_work
from promptseg.errors import PromptError, PromptsegError
from promptseg.io import FORMATS
from promptseg.predictor.lessons import LEARNED
from promptseg.prompts.types import PromptSet
from promptseg.report import run_manifest, save_manifest
from promptseg.volume import Segmentation

NAMES = {
    "prompts": "prompts.json",
    "report": "report.json",
    "review": "report.html",
    "session": f"work{SUFFIX}",
}
MASKS = {
    ".nii.gz": "mask.nii.gz",
    ".nrrd": "mask.nrrd",
    ".seg.nrrd": "mask.seg.nrrd",
    "rtstruct": "rtstruct.dcm",
    "seg": "seg.dcm",
}
ON_SERIES = ("rtstruct", "seg")
"""Formats by name, of the others by suffix, that belong to a DICOM series."""


def segmentation(visit: Visit) -> Segmentation:
    """The masks with the names of their targets.

    Raises:
        PromptError: There are none yet.
    """
    if visit.session is None or visit.labels is None or visit.session.result is None:
        raise PromptError(visit.say("no_mask"))
    names = {label: target.name for label, target in visit.targets.items()}
    found = finished(visit, visit.session.result)
    return replace(found, labels={t: names[t] for t in found.targets if t in names})


def answered_prompts(visit: Visit) -> PromptSet:
    """The prompts that the masks stand for, without corrections that wait for `Refine`."""
    return visit.prompts[: visit.answered]


def mask_formats(visit: Visit) -> dict[str, str]:
    """File name by format of what masks can be downloaded as.

    RTSTRUCT and DICOM-SEG refer to the slices of the image, and need it to be a DICOM series.
    """
    from promptseg.io.dicom.source import DicomSource

    source = None if visit.volume is None else visit.volume.header
    dicom = isinstance(source, DicomSource) and not source.mosaic
    suffixes = {suffix for entry in FORMATS.values() if entry.writes for suffix in entry.suffixes}
    return {
        format: name
        for format, name in MASKS.items()
        if (dicom and format in FORMATS if format in ON_SERIES else format in suffixes)
    }


def write_download(visit: Visit, kind: str, folder: Path, format: str = "") -> Path:
    """Write one file; what they are is said in `NAMES`.

    Args:
        visit: Whose.
        kind: `mask`, `prompts`, `report`, `review` or `session`.
        folder: Where.
        format: Of the mask, one of `mask_formats`; the first if empty.

    Raises:
        PromptsegError: There is no mask yet, or it cannot be written so.
    """
    writers: dict[str, Callable[[Visit, Path], None]] = {
        "prompts": _write_prompts,
        "report": _write_report,
        "review": _write_review,
        "session": lambda one, path: write_work(work_of(one), path),
    }
    if kind == "mask":
        path = _write_mask(visit, folder, format)
    elif kind in writers:
        path = folder / NAMES[kind]
        writers[kind](visit, path)
    else:
        raise PromptsegError(f"download {kind!r} is unknown: use mask, {', '.join(writers)}")
    whole = kind == "session" or not visit.pending
    if kind in ("mask", "session") and whole:
        visit.unsaved = False
    visit.tell("saved" if whole else "saved_pending", name=path.name, count=visit.pending)
    if kind == "prompts":
        advice = stroke_advice(visit, answered_prompts(visit))
        visit.message = visit.message[0], " ".join([visit.message[1], *advice])
    return path


def _write_mask(visit: Visit, folder: Path, format: str) -> Path:
    able = mask_formats(visit)
    chosen = format or next(iter(able))
    if chosen not in able:
        raise PromptsegError(
            f"masks of this image cannot be had as {chosen!r}: use one of {', '.join(able)}"
        )
    path = folder / able[chosen]
    segmentation(visit).save(path, chosen if chosen in ON_SERIES else None)
    return path


def _write_prompts(visit: Visit, path: Path) -> None:
    if not visit.answered:
        raise PromptError(visit.say("prompt_first"))
    answered_prompts(visit).save(path)


def _write_report(visit: Visit, path: Path) -> None:
    save_manifest(_manifest(visit), path)


def _write_review(visit: Visit, path: Path) -> None:
    from promptseg.report.quality import review, write_page

    reviewed = review(visit.opened(), segmentation(visit), answered_prompts(visit))
    write_page(reviewed, _manifest(visit), path, visit.language)


def _manifest(visit: Visit) -> dict[str, Any]:
    found = segmentation(visit)
    if visit.segmenter is None:
        raise PromptError(visit.say("no_mask"))
    manifest = run_manifest(
        visit.segmenter,
        visit.opened(),
        answered_prompts(visit),
        found,
        settings={
            "axis": visit.session_axis,
            "window": visit.model_window,
            "propagate": visit.propagated,
            "postprocess": list(visit.post),
        },
        timings={},
        adapters=_adapters(visit),
    )
    manifest["input"]["path"] = visit.name
    return manifest


def _adapters(visit: Visit) -> dict[str, str | None]:
    if visit.adapter is None:
        return {}
    if visit.adapter == LEARNED:
        return {visit.adapter: None}
    from promptseg.adapters import adapter_digest

    return {visit.adapter: adapter_digest(visit.adapter)}
