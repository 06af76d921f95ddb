"""Print how well one prompt finds a 3D target of any kind, beside an ellipsoid from the same box.

    python benchmarks/targets.py --half development --prompts box --out runs/targets

Targets of many kinds from volumes that no training has read, in two halves by patient: weights and
constants are chosen on `development`, figures are reported on `reporting`. Prompts: `box` one
jittered box on the largest slice, `loose` the same 10 % wider to all sides, `click` one centre
click, `box3d` a jittered box around all of it, `boxes` a box every 20 slices, `clicks3` and
`clicks5` the box and corrective clicks. Trials already in the JSON file of `--out` with the same
weights are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import promptseg as ps
from promptseg.datasets.cohort import Case
from promptseg.datasets.phantom import abdomen_phantom
from promptseg.datasets.simulation.clicks import corrective_click, deepest
from promptseg.datasets.simulation.users import jittered_box
from promptseg.evaluate.metrics import dice, over_propagation
from promptseg.evaluate.playing import Player
from promptseg.evaluate.settings import Settings
from promptseg.evaluate.tasks import Task, on_slice, volume_task
from promptseg.inference.labels import score_of
from promptseg.io.atomic import atomic_path
from promptseg.predictor.expected_dice import signs
from promptseg.prompts.types import Box, Point, Prompt
from promptseg.session import Segmenter
from promptseg.volume.slicing import in_plane, take_slice

HALVES = ("development", "reporting")
PROMPTS = ("box", "loose", "click", "box3d", "boxes", "clicks3", "clicks5")
LEAST_VOXELS, LEAST_SLICES, EVERY = 150, 3, 20
JITTER, LOOSE = 0.05, 0.1
BONES = ("vertebra", "rib", "hip", "sacrum", "femur", "humerus", "scapula", "clavicula", "sternum")
VESSELS = ("aorta", "vein", "vena", "artery", "trunk")


@dataclass(frozen=True)
class Target:
    """One structure in one volume.

    Args:
        name: Unique.
        kind: For the table.
        half: 0 to choose on, 1 to report on.
        case: The volume, with the target as label 1.
    """

    name: str
    kind: str
    half: int
    case: Case


def target(name: str, kind: str, half: int, volume: ps.Volume, mask: np.ndarray) -> Target:
    """A target of a mask."""
    return Target(name, kind, half, Case(name, volume, mask.astype(np.uint8)))


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(ps.read(path).data).astype(np.int64)


def sarcomas(root: Path) -> Iterator[Target]:
    """Nine patients that nothing was trained or tuned on, and the fifth, on CT and T1."""
    folders = [root / "sarcoma/STS_005", *sorted((root / "sarcoma").glob("STS_0[1-9][0-9]"))[0:]]
    folders = [f for n, f in enumerate(folders) if n == 0 or f.name > "STS_010"]
    for n, folder in enumerate(folders):
        for image in ("ct", "mr_t1"):
            if (folder / f"{image}.nii.gz").is_file():
                mask = labels_of(folder / f"{image}_gtv.nii.gz") > 0
                volume = ps.read(folder / f"{image}.nii.gz")
                yield target(f"{folder.name}_{image}", "sarcoma", n % 2, volume, mask)


def gliomas(root: Path) -> Iterator[Target]:
    """One patient: whole tumour to choose on, its core and its enhancing part to report on."""
    folder = root / "brats/brats_2013_pat0005_1"
    known = labels_of(folder / "labels.nii.gz")
    flair, t1c = (ps.read(folder / f"{name}.nii.gz") for name in ("flair", "t1c"))
    yield target("glioma_whole", "other tumour", 0, flair, known > 0)
    yield target("glioma_core", "other tumour", 1, t1c, np.isin(known, (1, 3, 4)))
    yield target("glioma_enhancing", "other tumour", 1, t1c, known == 4)


def lesions(root: Path) -> Iterator[Target]:
    path = sorted((root / "ct_lesions").glob("*.npz"))[2]
    with np.load(path) as packed:
        image, mask, spacing = packed["imgs"], packed["gts"], packed["spacing"]
    volume = ps.Volume(image.transpose(2, 1, 0), np.diag([*spacing, 1.0]))
    yield target("ct_lesion", "other tumour", 0, volume, mask.transpose(2, 1, 0) > 0)


def organs(root: Path) -> Iterator[Target]:
    """Organs of a CT of 20 slices; every other one to choose on."""
    total = root / "totalsegmentator"
    volume = ps.read(total / "ct_dicom")
    known = ps.read(total / "ct_dicom_labels.nii.gz")
    data = aligned(known, volume)
    names = json.loads((total / "labels.json").read_text())["ct"]
    for n, label in enumerate(int(v) for v in np.unique(data) if v):
        name = names[str(label)]
        kind = "bone" if name.startswith(BONES) else "organ, CT"
        kind = "vessel" if any(word in name for word in VESSELS) else kind
        yield target(f"ct_{name}", kind, n % 2, volume, data == label)


def aligned(known: ps.Volume, volume: ps.Volume) -> np.ndarray:
    """Labels on the volume's own grid: axes flipped and swapped as the affines say."""
    here = np.linalg.inv(volume.affine) @ known.affine
    order = np.abs(here[:3, :3]).argmax(0)
    data = np.transpose(np.asarray(known.data), np.argsort(order)).astype(np.int64)
    flips = tuple(int(order[a]) for a in range(3) if here[order[a], a] < 0)
    return np.flip(data, flips)


def abdomens(root: Path) -> Iterator[Target]:
    names = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    folder = root / "breadth3d/chaos_mr"
    for half, case in enumerate(("chaos_33", "chaos_36")):
        volume = ps.read(folder / f"images/{case}.nii.gz")
        known = labels_of(folder / f"labels/{case}.nii.gz")
        for label, name in names.items():
            yield target(f"{case}_{name}", "organ, MR", half, volume, known == label)


def hearts(root: Path) -> Iterator[Target]:
    """MS-CMRSeg patients 13, 16 and 28, ACDC 71 to 80 at one phase, left atria 57 to 68."""
    names = {1: "rv", 2: "myo", 3: "lv"}
    sets = (("mscmr_bssfp", "mscmr_13", 0), ("mscmr_bssfp", "mscmr_16", 1),
            ("mscmr_lge", "mscmr_28", 0), ("mscmr_lge", "mscmr_16", 1))  # fmt: skip
    for group, case, half in sets:
        folder = root / "breadth3d" / group
        volume = ps.read(folder / f"images/{case}.nii.gz")
        known = labels_of(folder / f"labels/{case}.nii.gz")
        for label, name in names.items():
            yield target(f"{group}_{case}_{name}", "heart, thick", half, volume, known == label)
    images = sorted((root / "acdc/images").glob("patient0*"))
    held = [p for p in images if 71 <= int(p.name[7:10]) <= 80][::2]
    for path in held:
        known, half = labels_of(root / "acdc/labels" / path.name), int(path.name[7:10]) > 75
        for label in (1, 3):
            name = f"acdc_{path.name[7:10]}_{names[label]}"
            yield target(name, "heart, thick", int(half), ps.read(path), known == label)
    for n, path in enumerate(sorted((root / "left_atrium/images").iterdir())[56:68]):
        known = labels_of(root / "left_atrium/labels" / path.name)
        yield target(f"la_{57 + n}", "left atrium", int(n >= 6), ps.read(path), known > 0)


def brains(root: Path) -> Iterator[Target]:
    atlas = root / "breadth3d/thalamus_atlas"
    volume, known = ps.read(atlas / "images/mni.nii.gz"), labels_of(atlas / "labels/mni.nii.gz")
    for side, first in (("left", 1), ("right", 8)):
        whole = (known >= first) & (known < first + 7)
        yield target(f"thalamus_{side}", "brain", int(first > 1), volume, whole)
        yield target(f"pulvinar_{side}", "brain", int(first > 1), volume, known == first)
    images = sorted((root / "hippocampus/images").iterdir())[160:172]
    for n, path in enumerate(images):
        known = labels_of(root / "hippocampus/labels" / path.name)
        yield target(path.name[:-7], "brain", n % 2, ps.read(path), known > 0)


def phantoms(root: Path) -> Iterator[Target]:
    """Synthetic CTs of two seeds."""
    for half in range(2):
        volume, known, names = abdomen_phantom(seed=70 + half)
        for label in (1, 2, 3, 8, 10, 12):
            name = f"phantom{half}_{names[label]}"
            yield target(name, "synthetic CT", half, volume, known == label)


SOURCES: tuple[Callable[[Path], Iterator[Target]], ...] = (
    sarcomas, gliomas, lesions, organs, abdomens, hearts, brains, phantoms,
)  # fmt: skip


def targets(root: Path, half: int) -> Iterator[Target]:
    """All targets of one half that are large enough to draw a box on."""
    for source in SOURCES:
        for one in source(root):
            mask = one.case.labels > 0
            thick = min(np.ptp(side) + 1 for side in np.nonzero(mask)) if mask.any() else 0
            if one.half == half and mask.sum() >= LEAST_VOXELS and thick >= LEAST_SLICES:
                yield one


def box_on(task: Task, index: int, rng: np.random.Generator, loose: float = 0.0) -> Box:
    """A jittered box on one slice."""
    plane = take_slice(task.truth, task.axis, index)
    x0, y0, x1, y1 = np.floor(jittered_box(plane, rng, JITTER, loose) + 0.5).astype(int).tolist()
    height, width = plane.shape
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    x1, y1 = min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)
    return Box(on_slice((y0, x0), task.axis, index), on_slice((y1, x1), task.axis, index + 1))


def first_prompts(task: Task, kind: str, rng: np.random.Generator) -> list[Prompt]:
    """What the user gives first."""
    areas = task.truth.sum(in_plane(task.axis))
    index = int(areas.argmax())
    if kind == "click":
        plane = np.zeros_like(task.truth)
        chosen = tuple(index if a == task.axis else slice(None) for a in range(3))
        plane[chosen] = task.truth[chosen]
        return [Point(deepest(plane, task.spacing, rng))]
    if kind == "boxes":
        filled = np.flatnonzero(areas)
        start = filled[0] + min(EVERY // 2, len(filled) // 2)
        places = [int(n) for n in range(start, filled[-1] + 1, EVERY) if areas[n]]
        return [box_on(task, n, rng) for n in places]
    flat = box_on(task, index, rng, LOOSE if kind == "loose" else 0.0)
    if kind != "box3d":
        return [flat]
    low, high = list(flat.lo), list(flat.hi)
    cells = np.argwhere(task.truth)
    for a in range(3):
        extent = np.ptp(cells[:, a]) + 1
        low[a] = int(np.clip(round(cells[:, a].min() + rng.normal(0, JITTER) * extent), 0, None))
        high[a] = int(np.clip(round(cells[:, a].max() + 1 + rng.normal(0, JITTER) * extent),
                              low[a] + 1, task.truth.shape[a]))  # fmt: skip
    return [Box(tuple(low), tuple(high))]


def ellipsoid(task: Task, box: Box) -> np.ndarray:
    """As deep as the box is wide, in mm: the mean of its sides gives the third one."""
    spacing = np.array(task.volume.spacing)
    low, high = np.array(box.lo, float), np.array(box.hi, float)
    sides = list(in_plane(task.axis))
    radii = (high - low) / 2
    depth = float(((high - low) * spacing)[sides].mean())
    radii[task.axis] = depth / 2 / spacing[task.axis]
    grid = np.indices(task.truth.shape, np.float32) + 0.5
    middle = (low + high) / 2
    return sum(((grid[a] - middle[a]) / radii[a]) ** 2 for a in range(3)) <= 1


def scores(found: np.ndarray, task: Task) -> dict[str, float]:
    """Dice, voxels beyond the ends over those of the target, share of its slices missed there."""
    filled = task.truth.any(in_plane(task.axis))
    hit = np.flatnonzero((found & task.truth).any(in_plane(task.axis)))
    slices = np.flatnonzero(filled)
    early = 1.0 if not len(hit) else float((slices < hit[0]).sum() + (slices > hit[-1]).sum())
    early = early if not len(hit) else early / len(slices)
    return {"dice": float(dice(found, task.truth)), "early": early,
            "beyond": over_propagation(found, task.truth, task.axis)}  # fmt: skip


def said(player: Player) -> dict[str, Any]:
    """What the latest answer says of itself: its signs, None if nothing was found, and a score."""
    answered = player.session.asker.interaction.answered
    masks = [m for g in answered for m in g.answers.get(1, {}).values() if m.area]
    return {"signs": signs(masks).tolist() if masks else None, "before": score_of(answered, 1)}


def trial(segmenter: Segmenter, one: Target, kind: str) -> dict[str, Any]:
    """One target and kind of prompt."""
    task = volume_task(one.case, 1, Settings(protocol="box", label=1))
    rng = np.random.default_rng(task.seed)
    prompts = first_prompts(task, "box" if kind.startswith("clicks") else kind, rng)
    player = Player(segmenter, task, "both")
    began = time.perf_counter()
    mask, _ = player.answer(prompts)
    for _ in range(int(kind[6:]) if kind.startswith("clicks") else 0):
        click = corrective_click(mask, task.truth, task.spacing, rng)
        if click is None:
            break
        mask, _ = player.answer([Point(click[0], click[1])])
    row = {"target": one.name, "kind": one.kind, "prompt": kind, **scores(mask, task),
           "seconds": time.perf_counter() - began, **said(player)}  # fmt: skip
    if kind in ("box", "loose"):
        row["ellipsoid"] = float(dice(ellipsoid(task, prompts[0]), task.truth))
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Means by kind of target and prompt, with n and the standard deviation."""
    lines = ["| prompt | kind | n | Dice | SD | ellipsoid | beyond | early end | seconds |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for prompt in [p for p in PROMPTS if any(r["prompt"] == p for r in rows)]:
        chosen = [r for r in rows if r["prompt"] == prompt]
        for kind in [*sorted({r["kind"] for r in chosen}), "all"]:
            held = [r for r in chosen if kind in (r["kind"], "all")]
            mean = {k: float(np.mean([r[k] for r in held])) for k in ("dice", "beyond", "early")}
            round_ = [r["ellipsoid"] for r in held if "ellipsoid" in r]
            rival = f"{np.mean(round_):.3f}" if round_ else "-"
            lines.append(
                f"| {prompt} | {kind} | {len(held)} | **{mean['dice']:.3f}** | "
                f"{np.std([r['dice'] for r in held]):.3f} | {rival} | {mean['beyond']:.3f} | "
                f"{mean['early']:.3f} | {np.median([r['seconds'] for r in held]):.1f} |"
            )
    return "\n".join(lines)


def measured(
    segmenter: Segmenter,
    root: Path,
    half: str,
    prompts: Sequence[str],
    file: Path,
    kinds: tuple[str, ...] = ("",),
) -> list[dict[str, Any]]:
    """All rows of a file, asked where the same networks have left none in it.

    Args:
        segmenter: Answers.
        root: Folder of the data.
        half: One of `HALVES`.
        prompts: Of `PROMPTS`.
        file: JSON; written after every row.
        kinds: Starts of kinds of target.
    """
    spec, runtime = segmenter.backbone.spec, segmenter.runtime
    beside = {name: getattr(runtime, name) for name in ("coarse", "step", "ranking")}
    about = {"model": spec.name, "sha256": spec.sha256,
             **{name: one and one.sha256 for name, one in beside.items()}}  # fmt: skip
    rows: list[dict[str, Any]] = []
    if file.is_file():
        kept = json.loads(file.read_text())
        rows = kept.pop("rows") if {n: kept.get(n) for n in about} == about else []
    done = {(r["target"], r["prompt"]) for r in rows}
    for one in targets(root, HALVES.index(half)):
        if not one.kind.startswith(kinds):
            continue
        for kind in prompts:
            if (one.name, kind) not in done:
                rows.append(trial(segmenter, one, kind))
                with atomic_path(file) as path:
                    path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    return rows


def main() -> None:
    data = os.environ.get("PROMPTSEG_DATA", "../shared/data")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--model", default="default", help="registry name or file")
    parser.add_argument("--coarse", default="auto", help="the coarse view: auto, none or a file")
    parser.add_argument("--step", default="auto", help="the slice step: auto, none or a file")
    parser.add_argument("--half", choices=HALVES, default=HALVES[0])
    parser.add_argument("--prompts", nargs="+", choices=PROMPTS, default=list(PROMPTS))
    parser.add_argument("--kinds", nargs="+", metavar="START", help="starts of kinds of target")
    parser.add_argument("--out", type=Path, default=Path("runs/targets"))
    chosen = parser.parse_args()
    coarse, step = (None if x == "none" else x for x in (chosen.coarse, chosen.step))
    segmenter = Segmenter.from_pretrained(chosen.model, coarse=coarse, step=step)
    chosen.out.mkdir(parents=True, exist_ok=True)
    kinds, file = tuple(chosen.kinds or ("",)), chosen.out / f"{chosen.half}.json"
    rows = measured(segmenter, chosen.data, chosen.half, chosen.prompts, file, kinds)
    print(table([r for r in rows if r["prompt"] in chosen.prompts]))


if __name__ == "__main__":
    main()
