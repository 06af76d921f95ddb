"""Training of a plain network, resumable between any two steps."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from promptseg.errors import FormatError
from promptseg.finetune.objectives.base import Batch, Objective
from promptseg.finetune.yardsticks.plain import PlainNetwork
from promptseg.io.atomic import atomic_path

CLIP = 1.0
LOG_EVERY = 50


class Sampler(Protocol):
    """Gives batches by the numbers of their samples."""

    def batch(self, numbers: range, progress: float) -> Batch:
        """Samples of some numbers."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns.

    Args:
        steps: Optimiser steps, or None.
        minutes: Of training, where there are no steps.
        batch: Samples a step.
        rate: First learning rate of AdamW; it falls along a cosine.
        seed: Of dropout and mixing.
        save_seconds: Between checkpoints.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    rate: float = 1e-3
    seed: int = 0
    save_seconds: float = 60.0


class PlainTrainer:
    """Trains a plain network by an objective.

    Args:
        network: What learns.
        objective: Of the same network.
        sampler: Gives the samples.
        schedule: How long and how fast.
        file: Checkpoint to go on from and to write; None keeps nothing.
        about: What must be the same to go on.
    """

    def __init__(
        self,
        network: PlainNetwork,
        objective: Objective,
        sampler: Sampler,
        schedule: Schedule,
        file: Path | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.network, self.objective, self.sampler = network, objective, sampler
        self.schedule, self.file = schedule, file
        self.about = {**(about or {}), **asdict(schedule)}
        self.modules = nn.ModuleList([network.body, network.branches])
        self.parameters = list(self.modules.parameters())
        self.optimiser = torch.optim.AdamW(self.parameters, schedule.rate, weight_decay=0.01)
        self.step, self.seconds = 0, 0.0
        self.log: list[dict[str, float]] = []

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        if self.schedule.steps is not None:
            return min(1.0, self.step / self.schedule.steps)
        return min(1.0, self.seconds / (60 * (self.schedule.minutes or 1)))

    def run(self, told: Callable[[dict[str, float]], None] | None = None) -> None:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            FormatError: The checkpoint is of another run.
        """
        self.restore()
        saved = time.monotonic()
        while self.progress < 1:
            began = time.monotonic()
            parts = self.update()
            self.seconds += time.monotonic() - began
            if self.step % LOG_EVERY == 0 or self.progress >= 1:
                self.log.append({"step": self.step, "seconds": round(self.seconds, 1), **parts})
                if told is not None:
                    told(self.log[-1])
            if time.monotonic() - saved > self.schedule.save_seconds:
                self.save()
                saved = time.monotonic()
        self.save()

    def update(self) -> dict[str, float]:
        """One optimiser step."""
        size = self.schedule.batch
        self.modules.train()
        falling = 0.02 + 0.49 * (1 + math.cos(math.pi * self.progress))
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate * falling
        batch = self.sampler.batch(range(self.step * size, (self.step + 1) * size), self.progress)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.schedule.seed << 32) + self.step)
            loss, parts = self.objective(batch)
            self.optimiser.zero_grad()
            (loss / size).backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimiser.step()
        self.step += 1
        self.objective.stepped(self.step)
        return {**parts, "loss": float(loss.detach()) / size}

    def save(self) -> None:
        """Write a checkpoint; a kill leaves the one before."""
        if self.file is None:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "about": json.dumps(self.about),
                "step": self.step,
                "seconds": self.seconds,
                "weights": self.modules.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "objective": dict(self.objective.state),
                "log": self.log,
            },
            buffer,
        )
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.file) as temporary:
            temporary.write_bytes(buffer.getvalue())

    def restore(self) -> bool:
        """Go to the checkpoint; False if there is none.

        Raises:
            FormatError: It is of another run.
        """
        if self.file is None or not self.file.is_file():
            return False
        content = torch.load(self.file, weights_only=True)
        known, now = json.loads(content["about"]), json.loads(json.dumps(self.about))
        differing = [key for key in sorted({*known, *now}) if known.get(key) != now.get(key)]
        if differing:
            key = differing[0]
            raise FormatError(f"{self.file} is of another run: {key} was {known.get(key)!r} and "
                              f"is now {now.get(key)!r}")  # fmt: skip
        self.modules.load_state_dict(content["weights"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.objective.restore(content["objective"])
        self.step, self.seconds, self.log = content["step"], content["seconds"], content["log"]
        return True
