"""Files that a visitor takes home."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.demo.visit import Visit
from promptseg.errors import PromptError, PromptsegError
from promptseg.prompts.types import PromptSet
from promptseg.report import run_manifest, save_manifest
from promptseg.volume import Segmentation

if TYPE_CHECKING:
    pass

NAMES = {"mask": "mask.nii.gz", "prompts": "prompts.json", "report": "report.json"}


def segmentation(visit: Visit) -> Segmentation:
    """The masks with the names of their targets.

    Raises:
        PromptError: There are none yet.
    """
    if visit.session is None or visit.labels is None or visit.session.result is None:
        raise PromptError(visit.say("no_mask"))
    names = {label: target.name for label, target in visit.targets.items()}
    found = visit.session.result
    return replace(found, labels={t: names[t] for t in found.targets if t in names})


def answered_prompts(visit: Visit) -> PromptSet:
    """The prompts that the masks stand for, without corrections that wait for `Refine`."""
    return visit.prompts[: visit.answered]


def write_download(visit: Visit, kind: str, folder: Path) -> Path:
    """Write one file; what they are is said in `NAMES`.

    Args:
        visit: Whose.
        kind: `mask`, `prompts` or `report`.
        folder: Where.

    Raises:
        PromptError: There is no mask yet.
    """
    writers: dict[str, Callable[[Visit, Path], None]] = {
        "mask": lambda one, path: segmentation(one).save(path),
        "prompts": _write_prompts,
        "report": _write_report,
    }
    if kind not in writers:
        raise PromptsegError(f"download {kind!r} is unknown: use {', '.join(writers)}")
    path = folder / NAMES[kind]
    writers[kind](visit, path)
    key = "saved_pending" if visit.pending else "saved"
    if kind == "mask" and not visit.pending:
        visit.unsaved = False
    visit.tell(key, name=path.name, count=visit.pending)
    return path


def _write_prompts(visit: Visit, path: Path) -> None:
    if not visit.answered:
        raise PromptError(visit.say("prompt_first"))
    answered_prompts(visit).save(path)


def _write_report(visit: Visit, path: Path) -> None:
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
        },
        timings={},
        adapters=_adapters(visit),
    )
    manifest["input"]["path"] = visit.name
    save_manifest(manifest, path)


def _adapters(visit: Visit) -> dict[str, str | None]:
    if visit.adapter is None:
        return {}
    from promptseg.adapters import adapter_digest

    return {visit.adapter: adapter_digest(visit.adapter)}
