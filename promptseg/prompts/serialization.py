"""Prompts as plain records for JSON; masks are run-length encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from promptseg.errors import PromptError
from promptseg.prompts.validation import is_integer

JSON_FORMAT = "promptseg-prompts"
JSON_VERSION = 1
_MAX_MASK_VOXELS = 2**31


def encode(prompts: Any) -> dict[str, Any]:
    """Turn prompts into `{"format":, "version":, "prompts": [{"type":, ...}]}`."""
    records = [_encode_one(prompt) for prompt in prompts]
    return {"format": JSON_FORMAT, "version": JSON_VERSION, "prompts": records}


def decode(content: Any, types: Mapping[str, Any], source: str) -> list[Any]:
    """Turn what `encode` made back into prompts.

    Args:
        content: The parsed object.
        types: Prompt classes by their name in lower case.
        source: What to call the content in an error.

    Raises:
        PromptError: says which prompt of which file, and what is wrong with it.
    """
    if not isinstance(content, Mapping) or content.get("format") != JSON_FORMAT:
        raise PromptError(f'{source}: not a prompt file: "format" must be "{JSON_FORMAT}"')
    if content.get("version") != JSON_VERSION:
        found = content.get("version")
        raise PromptError(f"{source}: version is {found!r}, this program reads {JSON_VERSION}")
    if not isinstance(content.get("prompts"), list):
        raise PromptError(f'{source}: "prompts" must be a list')
    prompts = []
    for number, record in enumerate(content["prompts"], start=1):
        try:
            prompts.append(_decode_one(record, types))
        except PromptError as error:
            raise PromptError(f"{source}: prompt {number}: {error}") from error
    return prompts


def _encode_one(prompt: Any) -> dict[str, Any]:
    record: dict[str, Any] = {"type": type(prompt).__name__.lower()}
    for item in fields(prompt):
        value = getattr(prompt, item.name)
        if item.name == "data":
            record |= {"shape": list(value.shape), "runs": _runs(value)}
        elif isinstance(value, (np.ndarray, np.generic)):
            record[item.name] = value.tolist()
        elif value is not None:
            record[item.name] = value
    return record


def _decode_one(record: Any, types: Mapping[str, Any]) -> Any:
    kind = record.get("type") if isinstance(record, Mapping) else None
    if not isinstance(kind, str) or kind not in types:
        raise PromptError(f'"type" must be one of {", ".join(types)}')
    values = {key: value for key, value in record.items() if key != "type"}
    if kind == "mask":
        values["data"] = _mask_of_runs(values.pop("shape", None), values.pop("runs", None))
    try:
        return types[kind](**values)
    except TypeError as error:
        known = ", ".join(item.name for item in fields(types[kind]))
        raise PromptError(f"found {', '.join(values)}; a {kind} has {known}") from error


def _runs(data: np.ndarray) -> list[int]:
    """Lengths of alternating runs of outside and inside in C order, outside first."""
    flat = np.concatenate([[False], data.ravel() != 0])
    changes = np.flatnonzero(np.diff(flat)).astype(np.int64)
    return np.diff(np.concatenate([[0], changes, [data.size]])).tolist()


def _mask_of_runs(shape: Any, runs: Any) -> np.ndarray:
    if not isinstance(shape, list) or not shape or not all(map(_is_count, shape)) or 0 in shape:
        raise PromptError(f"shape is {shape!r}: give the sides of the mask")
    if not isinstance(runs, list) or not all(map(_is_count, runs)):
        raise PromptError("runs must be a list of whole numbers >= 0")
    voxels = math.prod(shape)
    if voxels > _MAX_MASK_VOXELS:
        raise PromptError(f"shape is {shape}: more than {_MAX_MASK_VOXELS} voxels")
    if sum(runs) != voxels:
        raise PromptError(f"runs add up to {sum(runs)}, the shape {shape} has {voxels} voxels")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(shape)


def _is_count(value: object) -> bool:
    return is_integer(value) and value >= 0  # type: ignore[operator]
