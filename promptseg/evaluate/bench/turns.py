"""Turns of every contender, and what came of them row by row."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from promptseg.evaluate.bench.contenders import Contender, Outcome
from promptseg.evaluate.bench.scenes import mean_overlap
from promptseg.evaluate.bench.timed import forget_peak, memory_mb


@dataclass(frozen=True)
class Result:
    """One contender.

    Args:
        key: Short name.
        group: Contenders of one group are compared with each other.
        name: What it did.
        seconds: Best time of the rounds for all targets of the volume.
        rounds: Every time.
        encoded: Slices that were encoded.
        peak_mb: Peak memory of the process while it ran, MiB (of the GPU where one is used);
            networks of the other contenders are a part of it.
        grown_mb: How much of the peak it needed beyond what was held when it began.
        stages: Shares of the best time by stage; empty where they are not known.
        dice_truth: Mean Dice with the true targets.
        times: How many times as fast as its group's reference; None until that has run.
        dice_reference: Mean Dice with the reference's masks; None likewise.
    """

    key: str
    group: str
    name: str
    seconds: float
    rounds: list[float]
    encoded: int
    peak_mb: float
    grown_mb: float
    stages: dict[str, float]
    dice_truth: float
    times: float | None = None
    dice_reference: float | None = None


@dataclass
class Standing:
    """What one contender did so far."""

    contender: Contender
    rounds: list[float]
    peak_mb: float
    grown_mb: float
    best: Outcome

    def result(self, reference: Standing | None) -> Result:
        """Its row, beside the reference of its group."""
        who, seconds = self.contender, min(self.rounds)
        beside = () if reference is None else (
            min(reference.rounds) / seconds,
            mean_overlap(self.best.masks, reference.best.masks),
        )  # fmt: skip
        return Result(
            who.key, who.group, who.name, seconds, list(self.rounds), self.best.encoded,
            self.peak_mb, self.grown_mb, self.best.stages,
            mean_overlap(self.best.masks, who.scene.targets), *beside,
        )  # fmt: skip


class Turns:
    """Lets contenders take turns.

    Args:
        contenders: In order; the last of a group is its reference.
        rounds: Turns of each.
    """

    def __init__(self, contenders: Sequence[Contender], rounds: int = 1) -> None:
        self.contenders, self.rounds = tuple(contenders), rounds
        self._standings: dict[str, Standing] = {}

    def __iter__(self) -> Iterator[tuple[Contender, float]]:
        """Take the turns one by one; gives who ran and for how many seconds."""
        for _ in range(self.rounds):
            for contender in self.contenders:
                yield contender, self._take(contender)

    def masks(self, key: str) -> np.ndarray:
        """(T, I, J, K) bool of one that has run; KeyError if it has not."""
        return self._standings[key].best.masks

    def results(self) -> list[Result]:
        """Rows of those that have run, in their order."""
        last = {contender.group: contender.key for contender in self.contenders}
        return [
            standing.result(self._standings.get(last[standing.contender.group]))
            for standing in self._standings.values()
        ]

    def _take(self, contender: Contender) -> float:
        gc.collect()
        forget_peak()
        held = memory_mb("VmRSS")
        outcome, seconds = clocked(contender.turn)
        peak = memory_mb()
        known = self._standings.get(contender.key)
        if known is None:
            new = Standing(contender, [seconds], peak, peak - held, outcome)
            self._standings[contender.key] = new
            return seconds
        if seconds < min(known.rounds):
            known.best = outcome
        known.rounds.append(seconds)
        known.peak_mb = max(known.peak_mb, peak)
        known.grown_mb = max(known.grown_mb, peak - held)
        return seconds


def clocked(turn: Callable[[], Outcome]) -> tuple[Outcome, float]:
    """What a turn gave, and its seconds."""
    began = perf_counter()
    outcome = turn()
    return outcome, perf_counter() - began


def table(results: Sequence[Result]) -> str:
    """Markdown, one table a group."""
    groups = dict.fromkeys(result.group for result in results)
    return "\n\n".join(
        group_table(group, [result for result in results if result.group == group])
        for group in groups
    )


def group_table(group: str, results: Sequence[Result]) -> str:
    """Markdown of the contenders of one group; ratios are to its last."""
    rows = [
        f"{group}, ratios to the last row",
        "| contender | seconds | times as fast | slices encoded | not encoding | peak MiB | "
        "of it its own | Dice with the last | Dice with truth |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *(row(result) for result in results)])


def row(r: Result) -> str:
    """Markdown of one contender."""
    times, dice = (
        "-" if value is None else f"{value:.{digits}f}"
        for value, digits in ((r.times, 2), (r.dice_reference, 4))
    )
    rest = f"{1 - r.stages['encode']:.1%}" if r.stages else "-"
    return (
        f"| {r.name} | {r.seconds:.2f} | {times} | {r.encoded} | {rest} | {r.peak_mb:.0f} | "
        f"{r.grown_mb:.0f} | {dice} | {r.dice_truth:.4f} |"
    )
