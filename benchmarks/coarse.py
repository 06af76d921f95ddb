"""Print what the coarse 3D view finds from one box, alone and with the slices asked again.

    python benchmarks/coarse.py --weights runs/coarse/last.pt --half development

Targets and boxes are those of benchmarks/targets.py. `coarse` is the view's own answer from the
mask of the boxed slice; `slices` the default model asked on every slice the view marks, with the
box of what it marks there; `ellipsoid` is drawn from the same box.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from targets import HALVES, Target, box_on, ellipsoid, targets

from promptseg.evaluate.metrics import dice
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task, volume_task
from promptseg.prompts.types import Box
from promptseg.propagation.coarse import CoarseAnswer, CoarseView, Told, load_coarse
from promptseg.propagation.coarse_inputs import CHANNELS
from promptseg.propagation.coarse_network import CoarseNetwork
from promptseg.session import Segmenter
from promptseg.volume.intensity import choose_window, normalise
from promptseg.volume.slicing import take_slice


def read_view(path: Path) -> CoarseView:
    """A file of weights, or the moving average of a checkpoint of train_coarse.py."""
    if path.suffix == ".safetensors":
        return load_coarse(path)
    network = CoarseNetwork(CHANNELS)
    network.load_state_dict(torch.load(path, weights_only=True)["average"])
    return CoarseView(network)


def box_around(plane: np.ndarray, axis: int, index: int) -> Box:
    """The box of a mask on a slice."""
    cells = np.argwhere(plane)
    low, high = (np.insert(edge, axis, n) for edge, n in
                 ((cells.min(0), index), (cells.max(0) + 1, index + 1)))  # fmt: skip
    return Box(tuple(int(x) for x in low), tuple(int(x) for x in high))


def asked_again(segmenter: Segmenter, task: Task, box: Box, found: np.ndarray) -> np.ndarray:
    """The default model on every slice that `found` marks; the user's own box where it is."""
    key = int(box.lo[task.axis])
    others = tuple(a for a in range(3) if a != task.axis)
    marked = [int(n) for n in np.flatnonzero(found.sum(others) >= 4) if n != key]
    boxes = [box, *(box_around(take_slice(found, task.axis, n), task.axis, n) for n in marked)]
    session = segmenter.session(task.volume, task.axis, task.window)
    session.add(*boxes)
    return session.segment().data == 1


def trial(segmenter: Segmenter, view: CoarseView, one: Target) -> dict[str, Any]:
    """One target from one box."""
    task = volume_task(one.case, 1, Settings(protocol="box", label=1))
    rng = np.random.default_rng(task.seed)
    index = int(task.truth.sum(tuple(a for a in range(3) if a != task.axis)).argmax())
    box = box_on(task, index, rng)
    session = segmenter.session(task.volume, task.axis, task.window)
    session.add(box)
    plane = take_slice(session.segment().data == 1, task.axis, index)
    row: dict[str, Any] = {"target": one.name, "kind": one.kind}
    row["ellipsoid"] = float(dice(ellipsoid(task, box), task.truth))
    if not plane.any():
        return {**row, "coarse": 0.0, "slices": 0.0, "expected": 0.0, "seconds": 0.0}
    image = normalise(task.volume.data, choose_window(task.volume, task.window))
    corners = (tuple(int(x) for x in box.lo), tuple(int(x) for x in box.hi))
    began = time.perf_counter()
    told = Told(task.axis, {index: plane}, corners)
    answer: CoarseAnswer = view.answer(image, task.volume.spacing, told)
    found = answer.mask(task.truth.shape)
    row["seconds"] = time.perf_counter() - began
    row["coarse"], row["expected"] = float(dice(found, task.truth)), answer.quality
    again = asked_again(segmenter, task, box, found)
    return {**row, "slices": float(dice(again, task.truth))}


def main() -> None:
    data = os.environ.get("PROMPTSEG_DATA", "../shared/data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--half", choices=HALVES, default=HALVES[0])
    parser.add_argument("--kinds", nargs="+", metavar="START", help="starts of kinds of target")
    chosen = parser.parse_args()
    segmenter, view = Segmenter.from_pretrained("default"), read_view(chosen.weights)
    rows = []
    for one in targets(chosen.data, HALVES.index(chosen.half)):
        if not chosen.kinds or one.kind.startswith(tuple(chosen.kinds)):
            rows.append(trial(segmenter, view, one))
            print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()},
                  flush=True)  # fmt: skip
    columns = ("ellipsoid", "coarse", "slices", "expected", "seconds")
    for kind in [*sorted({r["kind"] for r in rows}), "all"]:
        held = [r for r in rows if kind in (r["kind"], "all")]
        means = " ".join(f"{c} {np.mean([r[c] for r in held]):.3f}" for c in columns)
        print(f"{kind} ({len(held)}): {means}")


if __name__ == "__main__":
    main()
