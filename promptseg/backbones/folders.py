"""Models of the transformers library: which are known, loading their folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers

from promptseg.backbones.transformers import (
    TransformersBackbone,
    TransformersSam,
    TransformersSam2,
    TransformersSamHQ,
)
from promptseg.errors import WeightsError

# model_type of config.json: class of the library, its first version.
FAMILIES = {
    "sam": ("SamModel", "4.29"),
    "sam_hq": ("SamHQModel", "4.53"),
    "sam2": ("Sam2Model", "4.56"),
    "sam2_video": ("Sam2VideoModel", "4.56"),
    "edgetam": ("EdgeTamModel", "4.57"),
    "edgetam_video": ("EdgeTamModel", "4.57"),
}


def wrap(module: transformers.PreTrainedModel, **options: Any) -> TransformersBackbone:
    """Wrap a model of the library; options are those of `TransformersBackbone`.

    Raises:
        WeightsError: If the model is of no family that promptseg knows.
    """
    kind = module.config.model_type
    if kind not in FAMILIES:
        raise WeightsError(f"{kind!r} is no promptable model; known: {', '.join(FAMILIES)}")
    if kind == "sam":
        return TransformersSam(module, **options)
    if kind == "sam2_video":
        from promptseg.backbones.sam2_video import TransformersSam2Video

        return TransformersSam2Video(module, **options)
    return (TransformersSamHQ if kind == "sam_hq" else TransformersSam2)(module, **options)


def model_class(kind: str) -> type[transformers.PreTrainedModel]:
    """Class of the library for the `model_type` of a config.json.

    Raises:
        WeightsError: If promptseg does not know it, or the installed version lacks it.
    """
    if kind not in FAMILIES:
        raise WeightsError(f"model_type {kind!r} is not known; known: {', '.join(FAMILIES)}")
    name, version = FAMILIES[kind]
    found = getattr(transformers, name, None)
    if found is None:
        raise WeightsError(
            f"{name} needs transformers {version} or later; installed is "
            f"{transformers.__version__}: pip install -U transformers"
        )
    return found


def load_folder(folder: Path, kind: str, attention: str = "sdpa") -> transformers.PreTrainedModel:
    """Load a folder that `save_pretrained` wrote; nothing is fetched and no code of it runs.

    Args:
        folder: Folder with config.json and weights.
        kind: `model_type` of its config.json.
        attention: `sdpa` or `eager`.

    Raises:
        WeightsError: If weights are missing, corrupt or do not fit.
    """
    built: Any = model_class(kind)
    try:
        with _without_bars():
            module, report = built.from_pretrained(
                folder,
                attn_implementation=attention,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # the library and its readers raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"cannot load the model in {folder}: {reason}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise WeightsError(
            f"the weights in {folder} are incomplete: {len(missing)} are missing, the first is "
            f"{missing[0]}"
        )
    return module


@contextmanager
def _without_bars() -> Iterator[None]:
    """The library draws progress bars wherever stderr leads."""
    log = transformers.utils.logging
    shown = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            log.enable_progress_bar()
