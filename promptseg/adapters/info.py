"""promptseg.json: what an adapter is, for whom, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from promptseg.backbones.crop_factor import crop_factor_fault
from promptseg.errors import AdapterError, VolumeError
from promptseg.volume.orientation import CANONICAL, check_codes

FORMAT, VERSION = "promptseg-adapter", 1
MAX_JSON_BYTES = 1 << 20
Method = Literal["lora", "dora", "none"]


@dataclass(frozen=True)
class AdapterInfo:
    """Everything about an adapter but its weights.

    Args:
        organ: What it segments, in words.
        labels: Name by label; each label has a token in `heads.safetensors`.
        backbone: Registry name or path of the base.
        family: Family of the base, as in `BackboneSpec`.
        base_sha256: Digest of the base's weights.
        method: `lora`, `dora`, or `none` where only the heads were trained.
        rank: Rank of the low-rank matrices, 0 without.
        alpha: LoRA's alpha; the update is scaled by alpha / rank.
        rslora: True if scaled by alpha / sqrt(rank) instead.
        targets: Which layers were adapted: `attention`, `mlp`, `decoder` and so on.
        decoder: `frozen`, `lora` or `full`.
        synonyms: Other words for the organ.
        label_words: By label, the words that a text prompt may use for it.
        text_sha256: Digest of the text tower that the projection was learned on, empty without.
        modality: `CT`, `MR` or None.
        window: Intensity window to use where the user names none.
        axis: Slice axis it was trained along.
        orientation: Where the axes of the volumes ran to that it was trained on, such as `RAS`;
            empty where it was trained on files as they lay.
        input_size: Side of the input it was trained at.
        crop_factor: Side of the views that it was trained on, and is asked in, over that of the
            target's box; None where it does not say.
        objective: Name, such as `supervised`, `scribble` or `semi`.
        annotation: `labels` or `scribbles`, of the training cases.
        training_cases: Names.
        unlabelled_cases: Names of further images it learned from.
        validation_cases: Names.
        steps: Optimiser steps.
        scores: Measured on the validation cases.
        settings: The whole recipe.
        licence: Terms of the adapter.
        versions: Of the packages that made it.
        created: Time, ISO 8601.
        coarse_sha256: Digest of the coarse 3D view that it taught too, empty where it did not.
        sections: By label, its largest cross-section in the training cases along their slice
            axis, in cm²; labels of which only strokes were known have none.
        single_slice: True if it is for images of one slice: of volumes it would draw beyond
            an organ's ends.
        files: SHA-256 of the other files of the folder.

    Raises:
        AdapterError: A value cannot be.
    """

    organ: str
    labels: Mapping[int, str]
    backbone: str
    family: str
    base_sha256: str
    method: Method = "lora"
    rank: int = 8
    alpha: float = 16.0
    rslora: bool = False
    targets: tuple[str, ...] = ("attention",)
    decoder: str = "full"
    synonyms: tuple[str, ...] = ()
    label_words: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    text_sha256: str = ""
    modality: str | None = None
    window: str = "auto"
    axis: str = "auto"
    orientation: str = ""
    input_size: int | None = None
    objective: str = "supervised"
    annotation: str = "labels"
    training_cases: tuple[str, ...] = ()
    unlabelled_cases: tuple[str, ...] = ()
    validation_cases: tuple[str, ...] = ()
    steps: int = 0
    scores: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "unknown"
    versions: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    crop_factor: float | None = None
    coarse_sha256: str = ""
    sections: Mapping[int, float] = field(default_factory=dict)
    single_slice: bool = False

    def __post_init__(self) -> None:
        for name in ("targets", "synonyms", "training_cases", "validation_cases",
                     "unlabelled_cases"):  # fmt: skip
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "labels", {int(k): str(v) for k, v in self.labels.items()})
        named = {int(k): tuple(map(str, v)) for k, v in self.label_words.items()}
        object.__setattr__(self, "label_words", named)
        sections = {int(k): float(v) for k, v in self.sections.items()}
        object.__setattr__(self, "sections", sections)
        if not self.organ.strip():
            raise AdapterError("organ is empty: name what the adapter segments")
        if not self.labels or min(self.labels) < 1:
            raise AdapterError(f"labels are {dict(self.labels)}: give names by label from 1 up")
        if self.method not in ("lora", "dora", "none"):
            raise AdapterError(f"method is {self.method!r}: expected lora, dora or none")
        if (self.rank > 0) == (self.method == "none") or self.rank < 0:
            raise AdapterError(f"rank is {self.rank} with method {self.method!r}")
        if fault := crop_factor_fault(self.crop_factor):
            raise AdapterError(fault)
        if self.orientation:
            _check_orientation(self.orientation)

    @property
    def seen_as(self) -> str:
        """Where the axes run to of a volume that it is shown."""
        return self.orientation or CANONICAL

    @property
    def words(self) -> tuple[str, ...]:
        """Organ, synonyms and label names, in lower case."""
        named = (self.organ, *self.synonyms, *self.labels.values())
        return tuple(dict.fromkeys(word.strip().lower() for word in named))

    @property
    def vocabulary(self) -> dict[int, tuple[str, ...]]:
        """Words by label, its name first."""
        only = (self.organ, *self.synonyms) if len(self.labels) == 1 else ()
        words = {k: (name, *only, *self.label_words.get(k, ())) for k, name in self.labels.items()}
        return {label: tuple(dict.fromkeys(named)) for label, named in words.items()}

    def to_json(self) -> str:
        """Text of promptseg.json."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _check_orientation(codes: str) -> None:
    try:
        check_codes(codes)
    except VolumeError as error:
        raise AdapterError(str(error)) from error


def read_info(path: Path) -> AdapterInfo:
    """Read promptseg.json.

    Raises:
        AdapterError: It is missing, too large, not JSON, of another version or lacks a value.
    """
    return info_of(read_json(path), str(path))


def info_of(content: Mapping[str, Any], source: str) -> AdapterInfo:
    """What promptseg.json says, from its values.

    Args:
        content: Of the file, or as another site sent it.
        source: Named in errors.

    Raises:
        AdapterError: It is of another version or lacks a value.
    """
    if content.get("format") != FORMAT:
        raise AdapterError(f"{source} is not an adapter's: expected format {FORMAT!r}")
    if content.get("version") != VERSION:
        raise AdapterError(
            f"{source} has version {content.get('version')!r}, this promptseg reads {VERSION}: "
            "update promptseg or train the adapter again"
        )
    known = {item.name: content[item.name] for item in fields(AdapterInfo) if item.name in content}
    try:
        return AdapterInfo(**known)
    except AdapterError as error:
        raise AdapterError(f"{source}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise AdapterError(f"{source} is incomplete or malformed: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object.

    Raises:
        AdapterError: It is missing, larger than `MAX_JSON_BYTES` or no JSON object.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise AdapterError(f"{path} has {size} bytes, more than the {MAX_JSON_BYTES} allowed")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{path.parent} is no adapter: it has no {path.name}") from None
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path} holds {type(content).__name__}, not a JSON object")
    return content
