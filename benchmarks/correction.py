"""Seconds that a correction takes on a 100-slice volume, and that it encodes nothing.

    python benchmarks/correction.py --slices 100 --corrections 6 --out runs/correction.json
    python benchmarks/correction.py --atria 4 --corrections 5

A tilted, narrowing tube in noise is segmented from one box; then clicks inside and outside, by
turns, correct slices spread over it, each followed by a whole answer. `--profile` says where the
time of the corrections goes. With `--atria` real left atria of 88 slices, in no training, are
corrected in the middle of their largest errors, with graph cut after the network; the first
answer of the process, in which numba may compile, is not counted.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import promptseg as ps
from promptseg.datasets.cohort import Case
from promptseg.datasets.simulation.clicks import corrective_click
from promptseg.evaluate.metrics import dice
from promptseg.evaluate.playing import Player
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import volume_task
from promptseg.io.atomic import atomic_path
from promptseg.prompts.types import Box, Point
from promptseg.session import Segmenter, Session
from promptseg.volume import Volume


def tube(side: int, slices: int, seed: int = 0) -> tuple[Volume, np.ndarray]:
    """(side, side, slices) image at 1 mm and the mask of a tube on its middle four fifths."""
    rng = np.random.default_rng(seed)
    rows, cols, places = np.indices((side, side, slices), dtype=np.float32)
    along = places / (slices - 1)
    radius = side * (0.16 - 0.08 * np.abs(along - 0.5))
    middle = side * (0.45 + 0.1 * along)
    mask = (rows - middle) ** 2 + (cols - side / 2) ** 2 <= radius**2
    mask &= (along > 0.1) & (along < 0.9)
    texture = 40 * np.sin(rows / 9) * np.cos(cols / 11)
    data = (70 + 110 * mask + texture * ~mask + rng.normal(0, 12, mask.shape)).clip(0, 255)
    return Volume(data.astype(np.uint8), np.eye(4), "MR"), mask


def box_on(mask: np.ndarray, k: int) -> Box:
    """Tight box on slice k."""
    inside = np.argwhere(mask[:, :, k])
    (i0, j0), (i1, j1) = inside.min(0).tolist(), (inside.max(0) + 1).tolist()
    return Box((i0, j0, k), (i1, j1, k + 1))


def clicks(mask: np.ndarray, count: int) -> list[Point]:
    """Clicks by turns just outside and just inside the mask's edge, on slices spread over it."""
    filled = np.flatnonzero(mask.any((0, 1)))
    made = []
    for n, k in enumerate(np.linspace(filled[4], filled[-5], count).round().astype(int).tolist()):
        inside = np.argwhere(mask[:, :, k])
        row = int(inside[:, 0].max()) + (3 if n % 2 == 0 else -2)
        col = round(float(inside[:, 1].mean()))
        made.append(Point((row, col, k), positive=n % 2 == 1))
    return made


def corrected(session: Session, click: Point) -> dict[str, Any]:
    """One correction: seconds, and what the network was asked for it."""
    before = session.result.report if session.result is not None else {}
    began, worked = time.perf_counter(), time.process_time()
    session.add(click)
    result = session.propagate()
    report = result.report
    return {
        "slice": int(click.at[2]), "positive": click.positive,
        "seconds": time.perf_counter() - began, "processor": time.process_time() - worked,
        "encoded": report["encoded_slices"] - before.get("encoded_slices", 0),
        "decoded": report["decoded_masks"] - before.get("decoded_masks", 0),
        "timings": report["timings"],
    }  # fmt: skip


def atria(segmenter: Segmenter, root: Path, count: int, clicks_each: int) -> list[float]:
    """Seconds of every corrective click on some left atria; a line an atrium is printed."""
    first = np.indices((24, 24, 12)).sum(0).astype(np.float32)
    warm = segmenter.session(Volume(first, np.eye(4), "MR"), 2)
    warm.add(Box((4, 4, 6), (20, 20, 7)))
    warm.propagate()
    warm.add(Point((12, 12, 3)))
    warm.refine("both")
    found: list[float] = []
    for path in sorted((root / "left_atrium/images").iterdir())[56 : 56 + count]:
        known = np.asarray(ps.read(root / "left_atrium/labels" / path.name).data) > 0
        case = Case(path.stem, ps.read(path), known.astype(np.uint8))
        task = volume_task(case, 1, Settings(protocol="box", label=1))
        rng, player = np.random.default_rng(task.seed), Player(segmenter, task, "both")
        index = int(known.sum((0, 1)).argmax())
        mask, boxed = player.answer([box_on(known, index)])
        own = []
        for _ in range(clicks_each):
            click = corrective_click(mask, task.truth, task.spacing, rng)
            if click is None:
                break
            mask, seconds = player.answer([Point(*click)])
            own.append(seconds)
        print(f"{path.name}: box {boxed:.1f} s, Dice {dice(mask, task.truth):.3f} after clicks of "
              f"{', '.join(f'{s:.2f}' for s in own)} s", flush=True)  # fmt: skip
        found += own
    return found


def main() -> None:
    """Segment, correct, print a line a correction."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--side", type=int, default=160, help="rows and columns (160)")
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--corrections", type=int, default=6)
    parser.add_argument("--consistency", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--atria", type=int, default=0, help="real left atria to correct instead")
    data = os.environ.get("PROMPTSEG_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    segmenter = Segmenter.from_pretrained(
        chosen.model, device=chosen.device, precision=chosen.precision
    )
    if chosen.atria:
        seconds = atria(segmenter, chosen.data, chosen.atria, chosen.corrections)
        print(f"{len(seconds)} clicks: median {np.median(seconds):.2f} s, mean "
              f"{np.mean(seconds):.2f} s, slowest {max(seconds):.2f} s, "
              f"{torch.get_num_threads()} threads, {segmenter.precision}")  # fmt: skip
        return
    volume, mask = tube(chosen.side, chosen.slices)
    session = segmenter.session(volume, 2, consistency=chosen.consistency)
    session.add(box_on(mask, chosen.slices // 2))
    began = time.perf_counter()
    first = session.propagate()
    found = first.data > 0
    marked = int(found.any((0, 1)).sum())
    print(f"one box: {time.perf_counter() - began:.1f} s, Dice {dice(found, mask):.3f}, "
          f"{first.report['encoded_slices']} encoded, {marked} slices marked, "
          f"{torch.get_num_threads()} threads, {segmenter.precision}")  # fmt: skip
    profile = cProfile.Profile()
    results = []
    for click in clicks(mask, chosen.corrections):
        if chosen.profile:
            profile.enable()
        results.append(one := corrected(session, click))
        profile.disable()
        stages = ", ".join(f"{k} {v:.2f}" for k, v in one["timings"].items())
        print(f"click on slice {one['slice']}: {one['seconds']:.2f} s ({one['processor']:.2f} s of "
              f"processor), {one['encoded']} encoded, {one['decoded']} decoded; {stages}",
              flush=True)  # fmt: skip
    worst = max(r["seconds"] for r in results)
    print(f"slowest {worst:.2f} s; encoded in all {sum(r['encoded'] for r in results)}")
    same = np.array_equal(undone(session, len(results)), first.data)
    print(f"undo of all corrections gives the first answer again: {same}")
    if chosen.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(18)
    if chosen.out is not None:
        with atomic_path(chosen.out) as path:
            path.write_text(json.dumps({"corrections": results, "slowest": worst}, indent=1) + "\n")


def undone(session: Session, steps: int) -> np.ndarray:
    """Labels after so many undos."""
    for _ in range(steps):
        session.undo()
    return session.propagate().data


if __name__ == "__main__":
    main()
