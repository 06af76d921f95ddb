"""What euclid, lambda and sigma of `graph_cut_refine` correct best, on training cases.

    OMP_NUM_THREADS=1 python benchmarks/refine_choices.py [--cases N] [--only acdc_2d ...]

A true mask is degraded (its boundary wanders, a bite is taken out of it and a blob is added),
and a simulated user clicks five times by the rule of the interactive segmentation challenge.
One number is varied at a time; `start 1` counts the deepest place on the slice of the largest
area as a first foreground click, `start 2` also the frame of a box there as background, as the
first prompt of a volume would tell it. ACDC patients
1-70 (left ventricle, slices and volumes), hippocampus cases 1-160 (whole, volumes) and left
atrium cases 1-56 (volumes).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from promptseg.datasets.simulation.clicks import bounding_slices, corrective_click
from promptseg.refine import graph_cut_refine, plain_graph_cut

DATA = Path(
    os.environ.get("PROMPTSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
THESIS = {"euclid": 0.0, "lam": 5.0, "sigma": 0.1}
VARIED = {
    "euclid": (0.03, 0.1, 0.3),
    "lam": (1.0, 2.5, 10.0),
    "sigma": (0.05, 0.2, 0.4),
    "start": (1.0, 2.0),
}
SETS = {
    "acdc_2d": ("acdc", 3, 140),
    "acdc_3d": ("acdc", 3, 140),
    "hippocampus_3d": ("hippocampus", None, 160),
    "left_atrium_3d": ("left_atrium", None, 56),
}
CLICKS = 5
Scene = tuple[np.ndarray, np.ndarray, tuple[float, ...]]


def scenes(name: str, count: int) -> Iterator[Scene]:
    """Image in [0, 1], truth and spacing of `count` training cases, cropped around the target."""
    folder, label, last = SETS[name]
    paths = sorted((DATA / folder / "images").glob("*.nii.gz"))[:last]
    for number in np.linspace(0, len(paths) - 1, count).astype(int):
        file = nib.load(paths[number])
        image = np.asarray(file.dataobj, np.float32) / 255
        drawn = np.asarray(
            nib.load(paths[number].parents[1] / "labels" / paths[number].name).dataobj
        )
        truth = drawn > 0 if label is None else drawn == label
        spacing = tuple(float(s) for s in file.header.get_zooms()[:3])
        if name.startswith("left_atrium"):  # every second voxel along each axis, for speed
            image = ndimage.gaussian_filter(image, 0.7)[::2, ::2, ::2]
            truth, spacing = truth[::2, ::2, ::2], tuple(2 * s for s in spacing)
        if name.endswith("2d"):
            index = int(truth.sum((0, 1)).argmax())
            image, truth, spacing = image[..., index], truth[..., index], spacing[:2]
        box = tuple(
            slice(max(0, side.start - 24), side.stop + 24) for side in bounding_slices(truth) or ()
        )
        yield np.ascontiguousarray(image[box]), truth[box], spacing


def degraded(truth: np.ndarray, spacing: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """A probability whose boundary wanders, with a part missing and a part too much."""
    fine = min(spacing)
    signed = (
        ndimage.distance_transform_edt(truth, spacing)
        - ndimage.distance_transform_edt(~truth, spacing)
    ) / fine
    radius = float(signed.max())
    widths = [max(1.0, radius / 2) * fine / s for s in spacing]
    field = ndimage.gaussian_filter(rng.normal(size=truth.shape), widths)
    signed = signed + 0.35 * radius * field / field.std()
    rim = np.argwhere(np.abs(signed) < 1.5)
    for sign in (-1, 1):
        offset = (np.indices(truth.shape).T - rng.choice(rim)).T
        far = np.sqrt(sum((o * s / fine) ** 2 for o, s in zip(offset, spacing, strict=True)))
        signed = signed + sign * np.maximum(0, 0.7 * radius - far)
    return (1 / (1 + np.exp(-signed / max(1.0, radius / 8)))).astype(np.float32)


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum()))


def deepest_start(mask: np.ndarray) -> list[tuple[int, ...]]:
    """The deepest place on the slice of the largest area, for the first prompt of a volume."""
    if mask.ndim == 2:
        return [np.unravel_index(ndimage.distance_transform_edt(mask).argmax(), mask.shape)]
    k = int(mask.sum((0, 1)).argmax())
    depth = ndimage.distance_transform_edt(mask[..., k])
    return [(*np.unravel_index(depth.argmax(), depth.shape), k)]


def frame_around(truth: np.ndarray) -> list[tuple[int, ...]]:
    """The frame of a box around the target on the slice of the largest area, grown by a tenth."""
    k = int(truth.sum((0, 1)).argmax()) if truth.ndim == 3 else 0
    plane = truth[..., k] if truth.ndim == 3 else truth
    found = np.argwhere(plane)
    grow = 2 + np.ceil(0.1 * np.ptp(found, axis=0)).astype(int)
    low = np.maximum(found.min(0) - grow, 0)
    high = np.minimum(found.max(0) + 1 + grow, plane.shape)
    frame = np.zeros(plane.shape, bool)
    frame[low[0] : high[0], low[1] : high[1]] = True
    frame[low[0] + 1 : high[0] - 1, low[1] + 1 : high[1] - 1] = False
    places = np.argwhere(frame & ~plane)
    return [(*map(int, at), k)[: truth.ndim] for at in places]


def played(scene: Scene, probability: np.ndarray, settings: dict[str, float]) -> list[float]:
    """Dice before and after each of five clicks."""
    settings = dict(settings)
    image, truth, spacing = scene
    cut = graph_cut_refine if "euclid" in settings else plain_graph_cut
    rng, mask = np.random.default_rng(0), probability > 0.5
    told = settings.pop("start", 0)
    start = deepest_start(mask) if told else []
    frame = frame_around(truth) if told > 1 else []
    clicks: dict[bool, list[tuple[int, ...]]] = {True: start, False: frame}
    scores = [dice(mask, truth)]
    for _ in range(CLICKS):
        click = corrective_click(mask, truth, spacing, rng)
        if click is not None:
            clicks[click[1]].append(click[0])
            mask = cut(probability, image, clicks[True], clicks[False], spacing, **settings)
        scores.append(dice(mask, truth))
    return scores


def choices(names: list[str], base: dict[str, float]) -> dict[str, dict[str, float]]:
    """The thesis's numbers, those of `names` varied around `base`, and the plain graph cut."""
    plain = {name: THESIS[name] for name in ("lam", "sigma")}
    found = {"plain graph cut": plain, "thesis": THESIS}
    if base != THESIS:
        found["base"] = base
    for name in names:
        found |= {f"{name} {value:g}": {**base, name: value} for value in VARIED[name]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--only", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--vary", nargs="*", choices=VARIED, default=list(VARIED))
    parser.add_argument("--base", nargs="*", default=[], metavar="NAME=VALUE")
    chosen = parser.parse_args()
    given = (pair.split("=") for pair in chosen.base)
    base = {**THESIS, **{name: float(value) for name, value in given}}
    ways = choices(chosen.vary, base)
    for name in chosen.only:
        table: dict[str, list[list[float]]] = {choice: [] for choice in ways}
        for number, scene in enumerate(scenes(name, chosen.cases)):
            probability = degraded(scene[1], scene[2], np.random.default_rng(number))
            for choice, settings in ways.items():
                table[choice].append(played(scene, probability, settings))
        print(f"\n{name}, {chosen.cases} training cases: mean Dice by click, mean of clicks 1-5")
        thesis = np.array(table["thesis"])[:, 1:].mean(1)
        for choice, rows in table.items():
            scores = np.array(rows)
            gain = scores[:, 1:].mean(1) - thesis
            error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
            print(
                f"  {choice:16}" + " ".join(f"{s:.3f}" for s in scores.mean(0))
                + f"   {scores[:, 1:].mean():.4f}   against the thesis {gain.mean():+.4f} "
                f"(standard error {error:.4f})",
                flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
