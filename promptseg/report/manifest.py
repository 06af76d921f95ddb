"""The run manifest: what was run, with what, and what came of it."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import FormatError

if TYPE_CHECKING:
    from promptseg.prompts.types import PromptSet
    from promptseg.session import Segmenter
    from promptseg.volume import Segmentation, Volume

FORMAT = "promptseg-run"
VERSION = 1
PACKAGES = ("promptseg", "torch", "transformers", "peft", "segment-anything", "numpy", "nibabel")
_NEEDED = ("device", "input", "model", "outputs", "precision", "prompts", "result", "settings")


def run_manifest(
    segmenter: Segmenter,
    volume: Volume,
    prompts: PromptSet,
    result: Segmentation,
    *,
    settings: Mapping[str, Any],
    timings: Mapping[str, float],
    adapters: Mapping[str, str | None] | None = None,
    outputs: Mapping[str, Mapping[str, Any]] | None = None,
    created: datetime | None = None,
) -> dict[str, Any]:
    """Describe one run, enough to run it again and get the same mask.

    Args:
        segmenter: What ran; gives device, precision and the model's name and digest.
        volume: The image.
        prompts: As the user gave them, in their own frames.
        result: The labels; its own report is kept whole.
        settings: `axis`, `window` and `propagate` as they were resolved.
        timings: Seconds by stage, beyond those in the result's report.
        adapters: SHA-256 by name or path.
        outputs: For each file written, by role: `path` and `sha256`.
        created: Time of the run; now if None.

    Returns:
        A dict of plain JSON values.
    """
    return _plain(
        {
            "format": FORMAT,
            "version": VERSION,
            "created": (created or datetime.now(timezone.utc)).isoformat(timespec="seconds"),
            "versions": versions(),
            "device": str(segmenter.device),
            "precision": segmenter.precision,
            "model": _model(segmenter),
            "adapters": [{"name": name, "sha256": sha} for name, sha in (adapters or {}).items()],
            "input": _input(volume),
            "prompts": prompts.to_dict(),
            "settings": dict(settings),
            "result": _result(result),
            "notes": [*volume.notes, *result.report.get("notes", ())],
            "timings_s": {**result.report.get("timings", {}), **timings},
            "outputs": dict(outputs or {}),
        }
    )


def versions() -> dict[str, str | None]:
    """Versions of Python, the system and the packages that a result depends on."""
    named = {name: package_version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "system": platform.platform(), **named}


def package_version(name: str) -> str | None:
    """Installed version of a distribution, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def save_manifest(manifest: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a manifest as JSON, all of it or nothing.

    Raises:
        FormatError: The file cannot be written.
    """
    from promptseg.io.atomic import atomic_path

    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with atomic_path(path) as temporary:
            # A file name that is not UTF-8 holds lone surrogates; escaped they are valid JSON.
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        FormatError: The file is missing, not JSON, or not a manifest of a known version.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{path}: not a run manifest: expected one written with --report")
    if content.get("version") != VERSION:
        raise FormatError(
            f"{path}: manifest version {content.get('version')!r}, this promptseg reads {VERSION}"
        )
    missing = [key for key in _NEEDED if key not in content]
    if missing:
        raise FormatError(f"{path}: the manifest lacks {', '.join(missing)}")
    return content


def _model(segmenter: Segmenter) -> dict[str, Any]:
    spec = segmenter.backbone.spec
    keys = ("name", "family", "sha256", "licence", "input_size")
    return {key: getattr(spec, key) for key in keys}


def _input(volume: Volume) -> dict[str, Any]:
    from promptseg.volume.orientation import axis_codes

    source, series = volume.source, None
    if isinstance(source, Path):
        source, series = str(source.resolve()), getattr(volume.header, "series", None)
    return {
        "path": source,
        "series": series,
        "sha256": volume.sha256,
        "shape": volume.shape,
        "spacing_mm": volume.spacing.tolist(),
        "modality": volume.levels.modality,
        "modality_belief": volume.levels.belief,
        "modality_reason": volume.levels.reason,
        "orientation": axis_codes(volume.affine),
        "notes": volume.notes,
    }


def _result(result: Segmentation) -> dict[str, Any]:
    targets = {
        str(target): {
            "voxels": int(result.mask(target).sum()),
            "ml": result.volume_ml(target),
            "score": result.score.get(target),
        }
        for target in result.targets
    }
    return {"sha256": result.sha256, "targets": targets, "report": result.report}


def _plain(value: Any) -> Any:
    """Lists, dicts and numbers that JSON knows; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
