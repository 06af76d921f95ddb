"""A recipe: everything a fine-tuning run needs, as a frozen dataclass and as TOML."""

from __future__ import annotations

import json
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from promptseg.backbones.crop_factor import LEAST_FACTOR, MOST_FACTOR
from promptseg.errors import FormatError
from promptseg.finetune.objectives import OBJECTIVES
from promptseg.io.atomic import atomic_path
from promptseg.io.toml_text import parse_toml

TARGETS = ("attention", "attention_all", "mlp", "convolutions")
DECODERS = ("frozen", "lora", "full")
ENCODERS = ("lora", "frozen", "full")
PRECISIONS = ("auto", "fp32", "bf16")
OPTIMISERS = ("auto", "muon", "adamw")


def option(default: Any, text: str) -> Any:
    """A field with its explanation, which the recipe shows."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class FinetuneConfig:
    """What to train on what, and how.

    Raises:
        FormatError: A value cannot be; says which, and what is possible.
    """

    organ: str = option("", "what the adapter segments, in words")
    images: str | None = option(None, "folder of images; $VARIABLES and ~ are filled in")
    labels: str | None = option(None, "folder of labels, matched by file name")
    scribbles: str | None = option(None, "folder of strokes in place of labels; labels then are "
                                   "those of validation cases alone")  # fmt: skip
    ignore: int | None = option(None, "value of the voxels of scribbles that nobody drew on")
    trust_voxels: bool = option(False, "match labels by their place in the array, whatever the "
                                "affines say")  # fmt: skip
    unlabelled: str | None = option(None, "folder of images without labels")
    start: str | None = option(
        None, "adapter to go on from, of the same base, rank and labels; empty begins at the base"
    )
    synonyms: tuple[str, ...] = option((), "other words for the organ")
    label_names: dict[int, str] = field(
        default_factory=dict, metadata={"help": "name by label; empty takes every label found"}
    )
    annotated: dict[str, tuple[int, ...]] = field(
        default_factory=dict,
        metadata={"help": "of cases whose names match: the labels annotated there; empty: all"},
    )
    cases: str | None = option(None, "training cases, N or A-B in sorted order; empty takes all")
    validation_cases: str | None = option(None, "validation cases, A-B; empty sets some aside")
    unlabelled_cases: str | None = option(None, "of `unlabelled`, N or A-B; empty takes all")
    validation_share: float = option(0.2, "share set aside where validation_cases is empty")
    group: str = option("", "regular expression; cases with equal matches are never split")
    modality: str | None = option(None, "CT or MR; empty goes by the files")
    window: str = option("auto", "intensity window, as in `promptseg segment --window`")
    axis: str = option("auto", "slice axis, as in `promptseg segment --axis`")
    licence: str = option("research use only: ask who made the labels", "terms of the adapter")
    backbone: str = option("default", "registry name, checkpoint or folder of the base")
    input_size: int | None = option(None, "side of the square input; empty for the network's own")
    objective: str = option("supervised", ", ".join(OBJECTIVES))
    encoder: str = option("lora", "lora, frozen (embeddings are cached) or full")
    decoder: str = option("full", "full, lora or frozen")
    targets: str = option("attention", f"layers for LoRA, joined by +: {', '.join(TARGETS)}")
    rank: int = option(8, "rank of the low-rank matrices")
    alpha: float = option(16.0, "the update is scaled by alpha / rank")
    dropout: float = option(0.0, "of LoRA's input")
    dora: bool = option(False, "weight-decomposed LoRA")
    rslora: bool = option(False, "scale by alpha / sqrt(rank)")
    loss: str = option("dice+3*cross_entropy", "names joined by +, each with a factor if wanted")
    unprompted: float = option(0.5, "weight of segmenting with no prompt, 0 to 1")
    dense: float = option(0.0, "weight of telling labels apart, in the answers and the encoder")
    prompts: int = option(2, "simulated interactions on each slice")
    absent: float = option(0.15, "share of slices without the target")
    whole: float = option(0.25, "share of slices seen whole rather than around the target")
    crop_factor: float | None = option(
        None,
        "side of a view over that of the target's box, kept with the adapter and used at "
        "every prompt; empty for the model's own",
    )
    half: float = option(0.6, "share of the training at half the input size; default model only")
    three_d: bool = option(False, "teach the coarse 3D view too, at the end")
    single_slice: bool = option(False, "for images of one slice: words on volumes do not choose it")
    flips: bool = option(False, "swap left and right; only for organs without a side")
    steps: int | None = option(None, "optimiser steps; give this or minutes")
    minutes: float | None = option(None, "training time; give this or steps")
    batch: int = option(4, "slices a step")
    micro_batch: int | None = option(None, "slices at once; empty starts with all, halves on need")
    optimiser: str = option(
        "auto",
        "of parts that are trained whole: muon or adamw; auto is muon where the default model "
        "learns whole labels",
    )
    rate: float = option(6e-4, "learning rate; runs of less than 200 steps take a gentler one")
    token_rate: float = option(1.0, "rate of tokens and words, in multiples of `rate`")
    spread: float = option(0.02, "how unlike the labels' tokens start; 0.5 tells many labels apart")
    weight_decay: float = option(0.01, "of AdamW")
    warmup: int = option(20, "steps until the full rate")
    average: float = option(0.98, "decay of the moving average that is kept, 0 for none")
    precision: str = option("auto", "auto, fp32 or bf16")
    checkpointing: bool = option(False, "recompute blocks to save memory")
    views: int = option(512, "fixed views whose embeddings a frozen encoder keeps")
    workers: int = option(0, "processes that prepare slices")
    device: str = option("auto", "auto, cpu or cuda")
    seed: int = option(0, "decides every random choice")
    validate_every: int = option(200, "steps between validations")
    validation_slices: int = option(16, "slices of each validation")
    final_slices: int = option(8, "slices a case of the final box score; 0 skips the final scores")
    checkpoint_seconds: float = option(60.0, "between checkpoints")
    checkpoint_steps: int | None = option(None, "between checkpoints; wins over the seconds")

    def __post_init__(self) -> None:
        names = {int(label): str(name) for label, name in self.label_names.items()}
        object.__setattr__(self, "label_names", names)
        object.__setattr__(self, "synonyms", tuple(self.synonyms))
        given = {pattern: tuple(labels) for pattern, labels in self.annotated.items()}
        object.__setattr__(self, "annotated", given)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise FormatError(f"{name} is {getattr(self, name)!r}: use {' or '.join(allowed)}")
        if self.modality not in ("CT", "MR", None):
            raise FormatError(f"modality is {self.modality!r}: use CT or MR")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise FormatError(f"{name} is {value}: give a number from {low} to {high}")
        self._check_targets()
        if self.steps is not None and self.minutes is not None:
            raise FormatError("steps and minutes are both given: give one")
        if self.objective != "supervised" and self.unprompted == 0:
            raise FormatError(f"objective {self.objective} learns without a prompt: give "
                              "unprompted above 0")  # fmt: skip
        if any(label < 1 for label in names):
            raise FormatError(f"label_names has {sorted(names)}: labels count from 1")
        for name, pattern in [("group", self.group), *(("annotated", p) for p in self.annotated)]:
            try:
                re.compile(pattern)
            except re.error as error:
                raise FormatError(
                    f"{name} is {pattern!r}, no regular expression: {error}"
                ) from error
        if self.annotated and (self.objective != "supervised" or self.scribbles is not None):
            raise FormatError(f"annotated is for whole labels and objective supervised; this is "
                              f"objective {self.objective}")  # fmt: skip

    def _check_targets(self) -> None:
        named = [name.strip() for name in self.targets.split("+")]
        if any(name not in TARGETS for name in named):
            raise FormatError(f"targets is {self.targets!r}: join {', '.join(TARGETS)} by +")
        if self.encoder == "frozen" and self.decoder == "frozen" and self.unprompted == 0:
            raise FormatError("encoder and decoder are frozen and no token is learned: nothing is")

    def annotated_in(self, case: str) -> tuple[int, ...] | None:
        """Labels annotated in a case, by the first pattern that its name matches; None for all."""
        return next((v for k, v in self.annotated.items() if re.search(k, case)), None)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Layers that get low-rank matrices: those of the encoder in `targets`, the decoder's."""
        named = [name.strip() for name in self.targets.split("+") if name.strip()]
        kept = [name for name in named if name != "decoder" and self.encoder == "lora"]
        return (*kept, *(["decoder"] if self.decoder == "lora" else []))

    @property
    def folders(self) -> tuple[str | None, str | None]:
        """Images and labels with their variables filled in."""
        return _filled(self.images), _filled(self.labels)

    @property
    def sparse_folders(self) -> tuple[str | None, str | None]:
        """Scribbles and unlabelled images with their variables filled in."""
        return _filled(self.scribbles), _filled(self.unlabelled)

    @property
    def start_folder(self) -> str | None:
        """The adapter to go on from, with its variables filled in."""
        return _filled(self.start)

    @property
    def uses_lora(self) -> bool:
        """True if any layer gets low-rank matrices."""
        return self.encoder == "lora" or self.decoder == "lora"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a recipe with every option explained.

        Raises:
            FormatError: It cannot be written.
        """
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(to_toml(self), encoding="utf-8")
        except OSError as error:
            raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


FOLDERS = ("images", "labels", "scribbles", "unlabelled", "start")
_CHOICES = {
    "objective": tuple(OBJECTIVES),
    "encoder": ENCODERS,
    "decoder": DECODERS,
    "precision": PRECISIONS,
    "optimiser": OPTIMISERS,
}
_RANGES: dict[str, tuple[float, float]] = {
    "rank": (1, 512),
    "alpha": (1e-3, 4096),
    "dropout": (0, 0.9),
    "validation_share": (0, 0.9),
    "unprompted": (0, 1),
    "dense": (0, 100),
    "prompts": (1, 16),
    "absent": (0, 0.9),
    "whole": (0, 1),
    "crop_factor": (LEAST_FACTOR, MOST_FACTOR),
    "half": (0, 1),
    "steps": (1, 10**9),
    "minutes": (1e-3, 10**6),
    "batch": (1, 4096),
    "micro_batch": (1, 4096),
    "rate": (1e-9, 1),
    "token_rate": (1e-3, 1e3),
    "spread": (1e-6, 10),
    "weight_decay": (0, 1),
    "warmup": (0, 10**6),
    "average": (0, 0.99999),
    "views": (1, 10**6),
    "workers": (0, 256),
    "seed": (0, 2**31 - 1),
    "validate_every": (1, 10**9),
    "validation_slices": (0, 10**6),
    "final_slices": (0, 10**6),
    "checkpoint_seconds": (0, 10**6),
    "checkpoint_steps": (1, 10**9),
}


def load_recipe(path: str | os.PathLike[str], **overrides: Any) -> FinetuneConfig:
    """Read a recipe; its folders are relative to where it lies.

    Those that begin with a $VARIABLE or ~ stay as they are: a copy of the recipe then works on
    another machine too. `FinetuneConfig.folders` fills them in.

    Args:
        path: TOML with any of the fields of `FinetuneConfig`.
        overrides: Fields that win over the file.

    Raises:
        FormatError: It is missing, no TOML, or has an unknown or impossible value.
    """
    path = Path(path)
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise FormatError(f"{path}: not TOML: {error}") from error
    known = {item.name for item in fields(FinetuneConfig)}
    unknown = sorted(set(content) - known)
    if unknown:
        raise FormatError(f"{path}: {unknown[0]!r} is no option of a recipe")
    for name in FOLDERS:
        if isinstance(content.get(name), str):
            content[name] = _located(content[name], path, name, name in overrides)
    content.update(overrides)
    if "steps" in overrides:
        content.pop("minutes", None)
    if "minutes" in overrides:
        content.pop("steps", None)
    return checked(content, str(path))


def checked(content: Mapping[str, Any], source: str) -> FinetuneConfig:
    """A config from plain values, each of the type its field has.

    Raises:
        FormatError: A value has another type or cannot be.
    """
    hints = typing.get_type_hints(FinetuneConfig)
    for name, value in content.items():
        if name not in hints:
            raise FormatError(f"{source}: {name!r} is no option of a recipe")
        if not _is_a(value, hints[name]):
            raise FormatError(f"{source}: {name} is {value!r}: expected {_named(hints[name])}")
    try:
        return FinetuneConfig(**content)
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from error
    except (TypeError, ValueError) as error:
        raise FormatError(f"{source}: {error}") from error


def fitting_objective(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the objective that strokes or unlabelled images are meant for, if none is.

    The default network answers strokes better than it learns from them (docs/few_labels.md); how
    well another one does was not measured.
    """
    if given.get("objective") is not None:
        return dict(given)
    further = given.get("unlabelled") is not None
    if given.get("scribbles") is not None:
        answers = given.get("backbone") in (None, "default") and not further
        return {**given, "objective": "prompted" if answers else "scribble"}
    return {**given, "objective": "semi"} if further else dict(given)


def to_toml(config: FinetuneConfig) -> str:
    """A recipe with every option explained; those without a value are commented out."""
    lines: list[str] = []
    table: list[str] = []
    for item in fields(config):
        value = getattr(config, item.name)
        lines.append(f"# {item.metadata['help']}")
        if isinstance(value, Mapping):
            # A table runs to the end of the file, so it comes last.
            table += ["", lines.pop(), f"[{item.name}]"]
            table += [f"{_key(k)} = {json.dumps(v, ensure_ascii=False)}" for k, v in value.items()]
        elif value is None:
            lines.append(f"# {item.name} =")
        else:
            lines.append(f"{item.name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join([*lines, *table]) + "\n"


def _key(name: object) -> str:
    return json.dumps(name, ensure_ascii=False) if isinstance(name, str) else str(name)


def _filled(text: str | None) -> str | None:
    return None if text is None else filled(text)


def filled(text: str) -> str:
    """A path with its variables and ~."""
    return os.path.expanduser(os.path.expandvars(text))


def _located(text: str, recipe: Path, name: str, overridden: bool) -> str:
    """A path as given; a plain relative one starts at the recipe."""
    if "$" in filled(text) and not overridden:
        raise FormatError(
            f"{recipe}: {name} is {text!r} and that variable is not set: set it, or give --{name}"
        )
    return text if text.startswith(("$", "~")) else str((recipe.parent / filled(text)).resolve())


def _is_a(value: Any, hint: Any) -> bool:
    kind = typing.get_origin(hint)
    if kind in (typing.Union, types.UnionType):
        return any(_is_a(value, part) for part in typing.get_args(hint))
    if kind is tuple:
        part = typing.get_args(hint)[0]
        return isinstance(value, (list, tuple)) and all(_is_a(v, part) for v in value)
    if kind is dict:
        keys, values = typing.get_args(hint)
        if not isinstance(value, Mapping):
            return False
        if keys is int:
            return all(str(k).isdecimal() for k in value)
        return all(_is_a(k, keys) and _is_a(v, values) for k, v in value.items())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _named(hint: Any) -> str:
    parts = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)
    shown = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return " or ".join(shown.get(p, "a list" if typing.get_origin(p) is tuple else "a table")
                       for p in parts if p is not type(None))  # fmt: skip
