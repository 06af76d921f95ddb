"""Times and errors of the geodesic distance and the graph cut, as a table.

    python benchmarks/refine.py [--repeat N] [--first]

Uses a left atrium from ../shared/data or $PROMPTSEG_DATA, and a phantom where it is absent.
Prints the best of N runs after a warm-up: wall time, which is what the targets mean, and CPU time,
which other work on the machine hardly lengthens; and how many processes wanted a core meanwhile.
Where those are more than the cores, the wall time says nothing and the CPU time is its upper
bound on a quiet machine. `--first` also times the first click of a fresh process, with the
compiled code in numba's cache and without.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from promptseg.refine import egd, geodesic_distance, graph_cut_refine, plain_graph_cut

DATA = Path(
    os.environ.get("PROMPTSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


def phantom(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    grid = np.indices(shape) - np.array(shape).reshape(-1, *(1,) * len(shape)) / 2
    truth = np.linalg.norm(grid, axis=0) < min(shape) / 3
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 1)
    return (0.3 + 0.3 * truth + 0.2 * noise).clip(0, 1).astype(np.float32), truth


def left_atrium() -> tuple[np.ndarray, np.ndarray]:
    """A 64 x 96 x 96 crop around the target."""
    path = sorted((DATA / "left_atrium" / "images").glob("*.nii.gz"))[57]
    image = np.asarray(nib.load(path).dataobj, np.float32).transpose(2, 0, 1) / 255
    label = np.asarray(nib.load(path.parents[1] / "labels" / path.name).dataobj)
    truth = label.transpose(2, 0, 1) > 0
    centre = np.argwhere(truth).mean(0).astype(int)
    low = np.clip(centre - (32, 48, 48), 0, np.array(image.shape) - (64, 96, 96))
    box = tuple(slice(a, a + n) for a, n in zip(low, (64, 96, 96), strict=True))
    return np.ascontiguousarray(image[box]), truth[box]


def flat_image(volume: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle slice, enlarged to 256 x 256."""
    half = volume.shape[0] // 2
    factors = [256 / n for n in volume.shape[1:]]
    image = ndimage.zoom(volume[half], factors, order=1).astype(np.float32)
    return image, ndimage.zoom(truth[half].astype(np.uint8), factors, order=0) > 0


def degraded(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """A network-like probability whose boundary wanders by some elements."""
    signed = ndimage.distance_transform_edt(truth) - ndimage.distance_transform_edt(~truth)
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=truth.shape), 8)
    return (1 / (1 + np.exp(-(signed + 4 * field / field.std()) / 3))).astype(np.float32)


def clicks(probability: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The deepest missed and the deepest wrong element."""
    pred = probability > 0.5
    found = [
        ndimage.distance_transform_edt(np.pad(e, 1))[(slice(1, -1),) * e.ndim]
        for e in (truth & ~pred, pred & ~truth)
    ]
    first, second = (np.array([np.unravel_index(d.argmax(), d.shape)]) for d in found)
    return first, second


def reference(image: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """scipy's Dijkstra on the same graph."""
    number = np.arange(image.size).reshape(image.shape)
    rows, columns, costs = [], [], []
    for move in product((-1, 0, 1), repeat=image.ndim):
        if move <= (0,) * image.ndim:
            continue
        a = tuple(slice(max(0, -m), n - max(0, m)) for m, n in zip(move, image.shape, strict=True))
        b = tuple(slice(max(0, m), n - max(0, -m)) for m, n in zip(move, image.shape, strict=True))
        rows.append(number[a].ravel())
        columns.append(number[b].ravel())
        costs.append(np.maximum(np.abs(image[a].astype(float) - image[b]), 1e-12).ravel())
    parts = np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))
    graph = coo_matrix(parts, (image.size, image.size)).tocsr()
    return dijkstra(graph, False, np.flatnonzero(seeds), min_only=True).reshape(image.shape)


def best(work: Callable[[], object], repeat: int) -> tuple[float, float]:
    work()
    wall, cpu = [], []
    for _ in range(repeat):
        start, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
    return 1e3 * min(wall), 1e3 * min(cpu)


FIRST_CLICK = """
import time
import numpy as np
from promptseg.refine import graph_cut_refine
image = np.random.default_rng(0).random((24, 24, 24), np.float32)
wall, cpu = time.perf_counter(), time.process_time()
graph_cut_refine(image, image, [[3, 3, 3]], [[9, 9, 9]])
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def first_clicks() -> None:
    """Print what the first click of a process costs, compiled before and not."""
    with tempfile.TemporaryDirectory() as folder:
        for what in ("compiles", "finds compiled code"):
            done = subprocess.run(
                [sys.executable, "-c", FIRST_CLICK],
                env={**os.environ, "NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            )
            wall, cpu = (1e3 * float(value) for value in done.stdout.split())
            print(f"first click that {what:21}{'':>7}{wall:10.1f}{cpu:10.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--first", action="store_true", help="time first clicks too")
    chosen = parser.parse_args()
    repeat = chosen.repeat
    volume, truth = left_atrium() if DATA.is_dir() else phantom((64, 96, 96))
    print(f"{'what':24}{'size':>14}{'wall ms':>10}{'cpu ms':>10}{'target':>8}   note")
    for image, target, limits in (
        (*flat_image(volume, truth), (50, 15)),
        (volume, truth, (250, 500)),
    ):
        probability = degraded(target)
        inside, outside = clicks(probability, target)
        seeds = np.zeros(target.shape, bool)
        seeds[tuple(inside.T)] = True
        expected = reference(image, seeds)
        error = np.abs(geodesic_distance(image, seeds) - expected).max() / expected.max()
        size = "x".join(map(str, image.shape))

        def line(what: str, work: Callable[[], object], limit: int, note: str, size=size) -> None:
            wall, cpu = best(work, repeat)
            print(f"{what:24}{size:>14}{wall:10.1f}{cpu:10.1f}{limit:8}   {note}", flush=True)

        def refined(cut, p=probability, i=image, f=inside, b=outside):  # type: ignore[no-untyped-def]
            return cut(p, i, f, b)

        def after(cut, t=target, p=probability) -> str:  # type: ignore[no-untyped-def]
            mask, start = refined(cut), p > 0.5
            scores = [2 * (m & t).sum() / (m.sum() + t.sum()) for m in (start, mask)]
            return "Dice {:.3f} -> {:.3f} with two clicks".format(*scores)

        line("EGD", lambda i=image, s=seeds: egd(i, s), limits[0], f"relative error {error:.1e}")
        line(
            "IF-GC, all steps",
            lambda r=refined: r(graph_cut_refine),
            limits[1],
            after(graph_cut_refine),
        )
        line(
            "plain graph cut",
            lambda r=refined: r(plain_graph_cut),
            limits[1],
            after(plain_graph_cut),
        )
    if chosen.first:
        first_clicks()
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    note = "wall times mean nothing" if load > cores + 0.5 else "quiet"
    print(f"load {load:.1f} on {cores} cores: {note}")


if __name__ == "__main__":
    main()
