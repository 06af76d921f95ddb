"""Where a training stands, on disk: enough to go on as if nothing had happened."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptseg.errors import AdapterError, FormatError
from promptseg.finetune.config import FinetuneConfig
from promptseg.io.atomic import atomic_path

FOLDER, FILE, LOG = "training", "last.pt", "log.jsonl"
# Options that do not change what a step computes.
FREE = ("device", "workers", "checkpoint_seconds", "checkpoint_steps", "images", "labels",
        "scribbles", "unlabelled", "start")  # fmt: skip
# What runs did before there was an option for it, where the option's default is something else.
BEFORE = {"optimiser": "adamw"}


@dataclass
class State:
    """Progress of a training.

    Args:
        step: Optimiser steps done.
        seconds: Time spent in them.
        micro: Views at once.
        parameters: What learns, by name.
        average: Its moving average, by name; empty without one.
        optimiser: State of the optimiser.
        objective: What the objective keeps, by name.
    """

    step: int
    seconds: float
    micro: int
    parameters: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    objective: Mapping[str, Tensor] = field(default_factory=dict)


def save_state(folder: Path, state: State, about: Mapping[str, Any]) -> None:
    """Write a checkpoint; a kill or a full disk leaves the one before.

    Args:
        folder: Of the adapter.
        state: Progress.
        about: What must be the same to go on.

    Raises:
        AdapterError: It cannot be written.
    """
    path = folder / FOLDER / FILE
    buffer = io.BytesIO()
    torch.save({**vars(state), "about": json.dumps(about)}, buffer)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
    except OSError as error:
        raise AdapterError(
            f"checkpoint {path} cannot be written: {error.strerror or error}; the one before is "
            "kept: make room and go on with --resume"
        ) from error


def load_state(folder: Path, about: Mapping[str, Any]) -> State | None:
    """Read a checkpoint, None if there is none.

    Raises:
        AdapterError: It is damaged, or of another recipe, model or cases; names the first
            difference.
    """
    path = folder / FOLDER / FILE
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        known = json.loads(content.pop("about"))
        state = State(**content)
    except Exception as error:  # a damaged archive fails in as many ways as there are readers
        raise AdapterError(f"{path} is damaged ({error}): delete {path.parent} and train "
                           "again") from error  # fmt: skip
    now = json.loads(json.dumps(about))
    # A run that an earlier version began knows nothing of options that came later.
    known = {**{k: v for k, v in {**_defaults(), **BEFORE}.items() if k in now}, **known}
    for key in sorted(set(known) | set(now)):
        if known.get(key) != now.get(key):
            raise AdapterError(
                f"cannot resume {folder}: {key} was {known.get(key)!r} and is now "
                f"{now.get(key)!r}; give what it was, or another folder"
            )
    return state


def _defaults() -> dict[str, Any]:
    """What every option is where nobody names it, as JSON has it."""
    plain: dict[str, Any] = json.loads(json.dumps(FinetuneConfig().to_dict()))
    return plain


def about(config: Mapping[str, Any], **further: Any) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    kept = {name: value for name, value in config.items() if name not in FREE}
    return {**kept, **further}


class Log:
    """One JSON object a line, and TensorBoard where it is installed.

    Args:
        folder: Of the adapter.
        step: Lines after this step, of a run that was killed, are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / FOLDER / LOG
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._forget(step)
        self._board = _board(self.path.parent, step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; it has a `step`.

        Raises:
            FormatError: It cannot be written.
        """
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be written: {error.strerror}") from error
        for name, value in row.items():
            if self._board is not None and name != "step" and isinstance(value, (int, float)):
                self._board.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Finish the TensorBoard file."""
        if self._board is not None:
            self._board.close()

    def _forget(self, step: int) -> None:
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that a kill cut off
        return float("inf")


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
