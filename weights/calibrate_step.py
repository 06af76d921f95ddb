"""How much the presence that the slice step predicts is worth, on targets of its training.

    OMP_NUM_THREADS=1 python weights/calibrate_step.py --targets 60 --out runs/step/seen.jsonl

Boxes on the largest slice of training targets are followed until nothing is seen. For every answer:
what the step and the decoder predict, and whether at least `RIGHT` of the mask lies in the target,
below which a slice costs more 3D Dice than it brings. Prints the area under the curve of each
prediction, and the share of right masks by presence. Nothing that is held back is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import promptseg as ps
from promptseg.datasets.simulation.users import jittered_box
from promptseg.inference.decoder import SliceMask
from promptseg.prompts.types import Box
from promptseg.propagation import steps
from promptseg.propagation.slice_step import together
from promptseg.propagation.track import TrackState
from promptseg.session import Segmenter
from promptseg.volume.slicing import in_plane, take_slice
from sources import NamedCase, load_cases
from train_default import Draw

RIGHT = 0.4
LEAST_SLICES, LEAST_VOXELS = 8, 200
LENIENT = {"presence": 0.2, "quality": 0.1, "patience": 4}
EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Watch:
    """Keeps what is predicted of each answer along a track, and whether it is right."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.truth = np.zeros((1, 1, 1), bool)
        self.axis = 2
        self._both: list[tuple[SliceMask, SliceMask]] = []

    def start(self) -> None:
        """From now on every track is watched."""
        steps.together = self._together
        plain = steps.TrackSteps._answers

        def answers(own: steps.TrackSteps, embedding: Any, active: Sequence[TrackState]) -> Any:
            self._both.clear()
            found = plain(own, embedding, active)
            for state, mask, (stepped, decoded) in zip(active, found, self._both, strict=True):
                self._note(own, state, mask, stepped, decoded)
            return found

        steps.TrackSteps._answers = answers  # type: ignore[method-assign]

    def _together(self, stepped: SliceMask, decoded: SliceMask) -> SliceMask:
        self._both.append((stepped, decoded))
        return together(stepped, decoded)

    def _note(
        self,
        own: steps.TrackSteps,
        state: TrackState,
        mask: SliceMask,
        stepped: SliceMask,
        decoded: SliceMask,
    ) -> None:
        if not mask.area:
            return
        frame = own.frame
        plane = take_slice(self.truth, self.axis, state.index)
        image, within = frame.paste_slices()
        found = np.zeros(plane.shape, bool)
        found[image] = (frame.restore(mask.logits[None])[0].numpy() > 0)[within]
        if found.any():
            self.rows.append({
                "step": stepped.presence, "step quality": stepped.quality,
                "decoder": decoded.presence, "decoder quality": decoded.quality,
                "right": float((found & plane).sum() / found.sum() >= RIGHT),
            })  # fmt: skip


def drawn(draw: Draw, rng: np.random.Generator) -> tuple[NamedCase, np.ndarray, int]:
    """A volume, one of its targets, and a slice axis."""
    while True:
        case = draw._case(draw.deep, rng)
        axis = int(rng.choice(case.axes))
        if not case.extents[axis] or case.image.shape[axis] < LEAST_SLICES:
            continue
        truth = case.labels == int(rng.choice(list(case.extents[axis])))
        if truth.sum() >= LEAST_VOXELS and truth.any(in_plane(axis)).sum() > 3:
            return case, truth, axis


def box_on(truth: np.ndarray, axis: int, rng: np.random.Generator) -> Box:
    """A jittered box on the largest slice."""
    index = int(truth.sum(in_plane(axis)).argmax())
    plane = take_slice(truth, axis, index)
    x0, y0, x1, y1 = np.floor(jittered_box(plane, rng, 0.05) + 0.5).astype(int).tolist()
    low, high = [max(y0, 0), max(x0, 0)], [max(y1, y0 + 1), max(x1, x0 + 1)]
    low.insert(axis, index)
    high.insert(axis, index + 1)
    return Box(tuple(low), tuple(min(h, n) for h, n in zip(high, truth.shape, strict=True)))


def under_curve(values: np.ndarray, right: np.ndarray) -> float:
    """Area under the receiver operating characteristic."""
    ranks = np.argsort(np.argsort(values))
    good = right > 0.5
    return float((ranks[good].mean() - (good.sum() - 1) / 2) / max((~good).sum(), 1))


def table(rows: Sequence[dict[str, float]]) -> str:
    """Lines that say what each prediction is worth."""
    right = np.array([row["right"] for row in rows])
    lines = [
        f"{name}: area {under_curve(np.array([row[name] for row in rows]), right):.3f}"
        for name in ("step", "step quality", "decoder", "decoder quality")
    ]
    seen = np.array([row["step"] for row in rows])
    for low, high in pairwise(EDGES):
        inside = (seen >= low) & (seen <= high)
        share = f"{right[inside].mean():.2f}" if inside.any() else "-"
        lines.append(f"presence {low} to {high}: {inside.sum()} slices, right {share}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--step", default="auto")
    parser.add_argument("--targets", type=int, default=60)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path("runs/step/seen.jsonl"))
    chosen = parser.parse_args()
    segmenter = Segmenter.from_pretrained("default", coarse=None, step=chosen.step)
    if segmenter.runtime.step is None:
        parser.error(f"{chosen.step} does not belong to the default model")
    watch, rng = Watch(), np.random.default_rng(chosen.seed)
    watch.start()
    draw = Draw(load_cases(chosen.data, held_back=False), [], chosen.seed)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(chosen.targets):
        case, truth, axis = drawn(draw, rng)
        volume = ps.Volume(case.image, np.diag([*case.spacing, 1.0]), case.modality)
        watch.truth, watch.axis = truth, axis
        segmenter.segment(volume, [box_on(truth, axis, rng)], axis=axis, stop=LENIENT)
    with open(chosen.out, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in watch.rows)
    print(f"{len(watch.rows)} slices of {chosen.targets} targets")
    print(table(watch.rows))


if __name__ == "__main__":
    main()
