"""What every training shares: its rate over time, its moving average, its loop and its log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from pretraining.processes import agreed_seconds, place

# Share of a training at whose end the rate falls to nothing.
DECAY = 0.25
Learned = dict[str, float]


class Training(Protocol):
    """What runs to its end: it counts its steps and the seconds of its processor."""

    step: int
    seconds: float

    @property
    def progress(self) -> float:
        """Share of its time that has passed, at most 1."""
        ...

    def save(self) -> None:
        """Write what a later call goes on from."""
        ...


def rate_share(training: Training, warm: int) -> float:
    """Share of the highest rate: a warm-up, long constant (a run may be cut), then a fall."""
    left = min(1.0, (1 - training.progress) / DECAY)
    return min(1.0, (training.step + 1) / warm) * max(left, 0.02)


@torch.no_grad()
def follow(average: torch.nn.Module, network: torch.nn.Module, step: int) -> None:
    """Move a moving average after its network."""
    decay = min(0.998, (step + 1) / (step + 10))
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def run_to_end(
    training: Training,
    learn: Callable[[], Learned],
    report: Callable[[Learned], None],
    every: int = 50,
    save_every: float = 300.0,
) -> None:
    """Learn until the time is over.

    Args:
        training: Goes on from where it stands; the first process saves it.
        learn: One step; says what it measured.
        report: Gets the means of `every` steps, in the first process.
        every: Steps between two reports.
        save_every: Seconds between two checkpoints.
    """
    rows: list[Learned] = []
    saved, began = time.time(), time.process_time()
    chief = place()[0] == 0
    while training.progress < 1:
        rows.append(learn())
        # Time of the processor, not of the wall: the run may have to wait for other work.
        training.seconds += agreed_seconds(time.process_time() - began)
        began = time.process_time()
        if training.step % every == 0:
            if chief:
                report({k: float(np.nanmean([row[k] for row in rows])) for k in rows[0]})
            rows = []
        if chief and time.time() - saved > save_every:
            training.save()
            saved = time.time()
    if chief:
        training.save()


def log(out: Path, row: dict[str, float | int]) -> None:
    """One line to the log and to the screen."""
    with open(out / "log.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    print(
        " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()),
        flush=True,
    )
