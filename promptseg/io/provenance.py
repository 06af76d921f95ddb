"""Which software, model and adapters made a mask: a line of JSON inside the file itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from promptseg.errors import FormatError
from promptseg.io.version import __version__

KEY = "promptseg"
"""Name of the NRRD field and key of the JSON object."""


def provenance_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of a result's report says who made it.

    Args:
        report: `Segmentation.report`.

    Returns:
        `software`, `version`, `model`, `adapters` and `postprocessing`; the last three only where
        there are any. No time and no path: equal masks give equal files.
    """
    found: dict[str, Any] = {"software": "promptseg", "version": __version__}
    if report.get("model"):
        found["model"] = dict(report["model"])
    adapters = list(_adapters(report))
    if adapters:
        found["adapters"] = adapters
    if report.get("postprocessing"):
        found["postprocessing"] = [step["step"] for step in report["postprocessing"]]
    return found


def to_text(provenance: Mapping[str, Any]) -> str:
    """One line of ASCII JSON, for a comment, a header field or a private text element."""
    return json.dumps({KEY: dict(provenance)}, sort_keys=True)


def from_text(text: str) -> dict[str, Any] | None:
    """What `to_text` wrote; None for any other text."""
    try:
        content = json.loads(text.strip("\0 \n"))
    except (ValueError, RecursionError):
        return None
    found = content.get(KEY) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else None


def in_words(provenance: Mapping[str, Any]) -> str:
    """One line for a person and for DICOM's text attributes."""
    parts = [f"{provenance.get('software', 'promptseg')} {provenance.get('version', '')}".strip()]
    model = provenance.get("model")
    if model:
        parts.append(f"model {model['name']} {str(model.get('sha256') or '')[:12]}".strip())
    for adapter in provenance.get("adapters", []):
        parts.append(f"adapter {adapter['name']} {str(adapter.get('digest') or '')[:12]}".strip())
    return ", ".join(parts)


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Which software, model and adapters made a saved mask, from the file alone.

    Args:
        path: Mask in any format that promptseg writes.

    Raises:
        FormatError: The file cannot be read, or says nothing of promptseg.
    """
    from promptseg.io import format_of

    path = Path(path)
    module = import_module(format_of(path).module)
    texts = module.provenance_texts(path) if hasattr(module, "provenance_texts") else ()
    for text in texts:
        found = from_text(text)
        if found is not None:
            return found
    raise FormatError(f"{path}: says nothing of promptseg: it was written by another program")


def _adapters(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every adapter that took part, once, in the order of use."""
    nested = report.get("adapters", {}) or {}
    seen: list[dict[str, Any]] = []
    for one in [report, *nested.values()]:
        adapter = one.get("adapter")
        if adapter and adapter not in seen:
            seen.append(dict(adapter))
            yield dict(adapter)
