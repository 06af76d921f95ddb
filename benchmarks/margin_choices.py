"""What each step does for a 3D target from six margin points: mean Dice over several data sets.

    OMP_NUM_THREADS=2 python benchmarks/margin_choices.py --out runs/margin_choices [--users 2]

`walk`: the box of the points on their middle slice, propagated; `walk, cut`: and IF-GC in the
grown box with the points as foreground, which is what margin points gave before. `sections`:
every slice along every axis with the box that the points bound on it (`propagation.extremes`);
`sections twice`: and once more with the vote of the axes; `twice, cut`: and IF-GC with the points
alone; `shipped`: with what surrounds the grown box as background too.

Constants are chosen on all cases but BraTS patient 5, which is held back from training. Every case
is a file in `--out`, in a folder of the weights; a second call goes on with those that are missing.
Data are in ../shared/data or $PROMPTSEG_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import nibabel as nib
import numpy as np
from interaction import HELD_BACK, kept, tumour
from scipy import ndimage

import promptseg as ps
from promptseg.adapters.stack import base_digest
from promptseg.datasets.cohort import Case
from promptseg.evaluate.metrics import dice
from promptseg.evaluate.protocols import margin_places
from promptseg.inference.labels import probabilities
from promptseg.inference.slice_prompts import margin_bounds
from promptseg.io.atomic import atomic_path
from promptseg.predictor.answering import Answerer
from promptseg.prompts.types import MarginPoints, PromptSet
from promptseg.propagation.extremes import span_of, spanned
from promptseg.propagation.postprocessing import Consistency
from promptseg.refine import graph_cut_refine
from promptseg.refine.volume import click_voxels, refined_labels, within
from promptseg.volume.intensity import choose_window

DATA = Path(
    os.environ.get("PROMPTSEG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
AROUND = 24
WAYS = ("walk", "walk, cut", "sections", "sections twice", "twice, cut", "shipped")


def largest(labels: np.ndarray) -> np.ndarray:
    """The largest connected body of a bool mask."""
    bodies, count = ndimage.label(labels)
    return labels if count < 2 else bodies == 1 + np.bincount(bodies.ravel())[1:].argmax()


def cropped(name: str, volume: ps.Volume, labels: np.ndarray) -> Case:
    """A case with the image within `AROUND` voxels of the target."""
    inside = np.argwhere(labels)
    low = np.maximum(inside.min(0) - AROUND, 0)
    high = np.minimum(inside.max(0) + 1 + AROUND, labels.shape)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    data = np.ascontiguousarray(volume.data[part])
    return Case(name, ps.Volume(data, affine, volume.modality), labels[part].astype(np.uint8))


def from_nifti(name: str, image: Path, labels: Path, values: tuple[int, ...]) -> Case:
    """The largest body of some labels."""
    found = np.isin(np.asarray(nib.load(labels).dataobj), values)
    return cropped(name, ps.read(image), largest(found))


def ct_lesion(path: Path) -> Case:
    """A lesion of slices as the file has them, (K, rows, columns)."""
    stored = np.load(path)
    image, target = (np.moveaxis(stored[key], 0, 2) for key in ("imgs", "gts"))
    volume = ps.Volume(image.astype(np.float32), np.diag([*stored["spacing"], 1.0]))
    return cropped(path.stem, volume, largest(target > 0))


def cases() -> dict[str, Callable[[], Case]]:
    """How to load every case, by name."""
    found: dict[str, Callable[[], Case]] = {}
    plain = ("hippocampus", (5, 40, 80), (1, 2)), ("left_atrium", (10,), (1,))
    for folder, numbers, values in plain:
        images = sorted((DATA / folder / "images").glob("*.nii.gz"))
        for image in (images[n] for n in numbers):
            name, labels = f"{folder} {image.name.split('.')[0]}", image.parents[1] / "labels"
            found[name] = partial(from_nifti, name, image, labels / image.name, values)
    for folder in sorted((DATA / "sarcoma").iterdir())[:4]:
        name, image = f"sarcoma {folder.name} T1", folder / "mr_t1.nii.gz"
        found[name] = partial(from_nifti, name, image, folder / "mr_t1_gtv.nii.gz", (1,))
    for path in sorted((DATA / "ct_lesions").glob("*.npz")):
        found[path.stem] = partial(ct_lesion, path)
    organs = json.loads((DATA / "totalsegmentator" / "labels.json").read_text("utf-8"))["ct"]
    files = [DATA / "totalsegmentator" / name for name in ("ct.nii.gz", "ct_labels.nii.gz")]
    for value, organ in organs.items():
        if organ in ("spleen", "kidney_right", "gallbladder", "liver", "urinary_bladder"):
            found[organ] = partial(from_nifti, organ, *files, (int(value),))
    for folder in sorted((DATA / "brats").iterdir()):
        found[folder.name] = partial(tumour, folder.name)
    return found


def answers(segmenter: ps.Segmenter, case: Case, seed: int) -> dict[str, np.ndarray]:
    """Bool mask of every way from the points of one simulated user."""
    truth, volume = case.labels > 0, case.volume
    places = margin_places(truth, np.random.default_rng(seed))
    prompts = PromptSet([MarginPoints(np.array(places))]).to_voxel(volume)
    answerer = Answerer(segmenter.runtime, volume, choose_window(volume), Consistency.named("auto"))
    engine = answerer.prepared(prompts, "auto")
    bound = margin_bounds(prompts, engine.shape)[1]
    inside, _ = click_voxels(prompts)
    cut = partial(graph_cut_refine, spacing=engine.spacing, region=bound)
    walk = within(probabilities(engine.run(prompts), engine.shape, 1), bound)
    found = {"walk": walk > 0.5, "walk, cut": cut(walk, engine.encoder.data, inside)}
    span, share = span_of(prompts, bound), np.zeros(engine.shape, np.float32)
    for rounds, way in ((1, "sections"), (2, "sections twice")):
        share[bound] = spanned(engine.decoder, engine.axis, engine.spacing, span, rounds)
        found[way] = share > 0.5
    found["twice, cut"] = cut(share, engine.encoder.data, inside)
    blank = np.zeros(engine.shape, np.uint8)
    found["shipped"] = refined_labels(
        blank, {1: share}, engine.encoder.data, prompts, engine.spacing, bounds={1: bound}
    ) == 1  # fmt: skip
    return found


def measured(segmenter: ps.Segmenter, load: Callable[[], Case], users: int) -> dict[str, Any]:
    """Dice of every way, one for each user."""
    case, began = load(), perf_counter()
    found = [answers(segmenter, case, seed) for seed in range(users)]
    scores = {way: [dice(f[way], case.labels > 0) for f in found] for way in WAYS}
    return {"case": case.name, "dice": scores, "seconds": perf_counter() - began}


def show(records: list[dict[str, Any]]) -> dict[str, float]:
    """Print a row for each case, and the mean of those that constants may be chosen on."""
    print("\nDice of 3D targets from at most six margin points (mean over simulated users)")
    print(f"{'case':36}" + "".join(f"{way:>16}" for way in WAYS))
    for r in records:
        note = " (held back)" if r["case"] == HELD_BACK else ""
        print(f"{r['case'] + note:36}"
              + "".join(f"{np.mean(r['dice'][way]):16.3f}" for way in WAYS))  # fmt: skip
    chosen = [r for r in records if r["case"] != HELD_BACK]
    means = {way: float(np.mean([np.mean(r["dice"][way]) for r in chosen])) for way in WAYS}
    print(f"{f'mean of {len(chosen)}, without held back':36}"
          + "".join(f"{means[way]:16.3f}" for way in WAYS))  # fmt: skip
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/margin_choices"))
    parser.add_argument("--users", type=int, default=2, help="simulated users of each case")
    parser.add_argument("--only", nargs="*", help="cases whose name begins so, all by default")
    parser.add_argument("--model", default="default")
    chosen = parser.parse_args()
    segmenter = ps.Segmenter.from_pretrained(chosen.model)
    out = chosen.out / base_digest(segmenter.backbone)[:12]
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for name, load in cases().items():
        if chosen.only and not name.startswith(tuple(chosen.only)):
            continue
        records.append(kept(out, name.replace(" ", "_"),
                            partial(measured, segmenter, load, chosen.users)))  # fmt: skip
        print(f"{name}: {np.mean(records[-1]['dice']['shipped']):.3f}", flush=True)
    if not records:
        raise SystemExit(f"no case begins with {chosen.only}: {', '.join(cases())}")
    means = show(records)
    with atomic_path(out / "summary.json") as temporary:
        temporary.write_text(json.dumps({"model": chosen.model, "dice": means}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
