"""Learning from corrections, measured: in the session, in the loop, across a domain shift.

    OMP_NUM_THREADS=1 python benchmarks/active.py learn --data ../shared/data --out runs/active
    OMP_NUM_THREADS=1 python benchmarks/active.py loop --data ../shared/data --out runs/active
    OMP_NUM_THREADS=1 python benchmarks/active.py versions --data ../shared/data --out runs/active
    OMP_NUM_THREADS=1 python benchmarks/active.py shift --model MODEL --data ../shared/data \\
        --out runs/active
    OMP_NUM_THREADS=1 python benchmarks/active.py federated --model MODEL --data ../shared/data \\
        --out runs/active

Everything that is measured is a file at once: a second call goes on with what is missing.
`shift` and `federated` want a base that never saw ACDC's labels: the shipped one did (patients 1 to
70). `--model random` makes one with random weights, of which all learns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import promptseg as ps
from promptseg.active.adapting import Job, adapt, config_from
from promptseg.active.federated.averaging import Reply, average
from promptseg.active.federated.site import Site, one_round
from promptseg.active.federated.update import update_of, with_update
from promptseg.active.looking import Looker
from promptseg.active.loop.making import make_project
from promptseg.active.loop.project import Project
from promptseg.active.loop.showing import show_next
from promptseg.active.loop.store import FILE
from promptseg.active.loop.training import train
from promptseg.active.reference import make_reference, save_reference
from promptseg.active.selecting import collected, model_name, select
from promptseg.active.strategies import strategy
from promptseg.adapters import Adapter, read_adapter, write_adapter
from promptseg.backbones import load_backbone
from promptseg.backbones.default import save_default
from promptseg.backbones.network import PromptsegConfig, PromptsegModel
from promptseg.datasets.cohort import Pair, case_files, read_image
from promptseg.evaluate.metrics import dice
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.running import train_adapter
from promptseg.io.atomic import atomic_path
from promptseg.predictor.learning import Effort
from promptseg.prompts.types import Box
from promptseg.session import Segmenter
from promptseg.volume import bounding_slices

FIRST, LAST = 57, 68
STRATEGIES = ("stdr", "random", "stdr-similar", "stdr-dissimilar", "entropy", "margin", "cluster")
SEEDS = (0, 1, 2)
TRAIN_EVERY = 5


def kept(path: Path, make: Any) -> Any:
    """What a file says, or what is made now and then written."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    found = make()
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(path.name, json.dumps(found), flush=True)
    return found


def atria(data: Path) -> list[Pair]:
    """The left atria in sorted order."""
    images = case_files(data / "left_atrium" / "images")
    return [Pair(name, path, data / "left_atrium" / "labels" / path.name)
            for name, path in sorted(images.items())]  # fmt: skip


def answer_dice(segmenter: Segmenter, pair: Pair, labels: Sequence[int]) -> list[float]:
    """Dice by label without a prompt."""
    case = pair.load()
    found = segmenter.segment(case.volume).data
    return [float(dice(found == n, case.labels == n)) for n in labels]


def run_learn(chosen: argparse.Namespace) -> None:
    """`session.learn()` after 1, 3 and 5 accepted left atria, then 57 to 68 without a prompt."""
    pairs = atria(chosen.data)
    for count in chosen.counts:
        folder = chosen.out / "learn" / f"{count}"
        segmenter = Segmenter.from_pretrained("default")
        if not (folder / "learned" / "promptseg.json").is_file():
            told = teach(segmenter, pairs[:count], chosen)
            write_adapter(told.pop("adapter"), folder / "learned")
            kept(folder / "time.json", told.copy)
        held = Segmenter.from_pretrained("default", adapter=folder / "learned")
        for pair in pairs[FIRST - 1 : LAST]:
            kept(folder / f"{pair.name}.json", lambda p=pair, s=held: answer_dice(s, p, [1]))
        values = [json.loads(p.read_text())[0] for p in folder.glob("*.json")
                  if p.name != "time.json"]  # fmt: skip
        print(f"{count} cases: Dice {np.mean(values):.3f} over {len(values)}, "
              f"{(folder / 'time.json').read_text()}")  # fmt: skip


def teach(
    segmenter: Segmenter, pairs: Sequence[Pair], chosen: argparse.Namespace
) -> dict[str, Any]:
    """Accept cases one after the other; the last learning is timed."""
    effort = Effort(seconds=chosen.seconds)
    for number, pair in enumerate(pairs):
        case = pair.load()
        last = number == len(pairs) - 1
        began, worked = time.monotonic(), time.process_time()
        adapter = segmenter.session(case.volume).learn(
            case.labels, {1: "left atrium"}, effort if last else Effort(steps=1)
        )
    return {
        "adapter": adapter,
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - worked,
        "steps": adapter.info.steps,
        "threads": torch.get_num_threads(),
    }


def run_loop(chosen: argparse.Namespace) -> None:
    """A simulated doctor: 30 left atria, a box before there is a version, training every five."""
    pairs = {pair.name: pair for pair in atria(chosen.data)[: chosen.cases]}
    folder = chosen.out / "loop"
    if not (folder / FILE).is_file():
        images = chosen.out / "loop_images"
        images.mkdir(parents=True, exist_ok=True)
        for pair in pairs.values():
            if isinstance(pair.image, Path) and not (images / pair.image.name).exists():
                (images / pair.image.name).symlink_to(pair.image.resolve())
        make_project(folder, images, "left atrium", "doctor")
    project = Project(folder, "doctor")
    segmenter = Segmenter.from_pretrained("default")
    while (shown := show_next(project, segmenter)) is not None:
        pair = pairs[shown.name]
        begun = None if shown.mask is not None else boxed(segmenter, pair)
        done = project.accept(shown.name, Path(str(pair.label)), shown=begun)
        print(shown.name, done.revision, flush=True)
        count = len(project.store.run("SELECT id FROM accepted"))
        if count % TRAIN_EVERY == 0 and count < len(pairs):
            for name in segmenter.adapters.names:
                segmenter.adapters.remove(name)
            print(train(project, backbone=segmenter.backbone, steps=chosen.steps), flush=True)
    revised = [
        r["revision"] for r in project.store.run("SELECT revision FROM accepted ORDER BY id")
    ]
    print(f"first ten {np.mean(revised[:10]):.2f} %, last ten {np.mean(revised[-10:]):.2f} %")


def run_versions(chosen: argparse.Namespace) -> None:
    """Revision of left atria that no version saw, 57 to 68: from a box on the base, by version.

    Cases differ more than versions do: what comes late in the loop may be what is hard.
    """
    project, held = Project(chosen.out / "loop", "doctor"), atria(chosen.data)[FIRST - 1 : LAST]
    segmenter, place = Segmenter.from_pretrained("default"), chosen.out / "versions"
    place.mkdir(parents=True, exist_ok=True)

    def box_dice() -> list[float]:
        return [float(dice(boxed(segmenter, p).data == 1, p.load().labels == 1)) for p in held]

    def version_dice(number: int) -> list[float]:
        adapter = replace(read_adapter(project.version_folder(number)), name=f"version {number}")
        segmenter.adapters.add(adapter)
        segmenter.adapters.use(adapter.name)
        return [answer_dice(segmenter, pair, [1])[0] for pair in held]

    found = {"box": kept(place / "box.json", box_dice)}
    numbers = [row["number"] for row in project.store.run("SELECT number FROM versions")]
    for n in numbers:
        found[f"version {n}"] = kept(place / f"{n}.json", lambda n=n: version_dice(n))
    for name, values in found.items():
        print(f"{name}: {100 * (1 - np.mean(values)):.1f} % over {len(values)}")


def boxed(segmenter: Segmenter, pair: Pair) -> ps.Segmentation:
    """The base's answer to a box on the slice where the target is largest."""
    case = pair.load()
    index = int((case.labels > 0).sum((0, 1)).argmax())
    rows, cols = bounding_slices(case.labels[:, :, index] > 0)  # type: ignore[misc]
    box = Box((rows.start, cols.start, index), (rows.stop, cols.stop, index + 1))
    return segmenter.segment(case.volume, [box], axis=2)


def acdc(data: Path, first: int, last: int) -> list[Pair]:
    """Both phases of some patients."""
    images = case_files(data / "acdc" / "images")
    return [Pair(name, path, data / "acdc" / "labels" / path.name)
            for name, path in sorted(images.items())
            if first <= int(name.removeprefix("patient")[:3]) <= last]  # fmt: skip


def base_of(chosen: argparse.Namespace) -> str:
    """The base to adapt; `random` is made once."""
    if chosen.model != "random":
        return str(chosen.model)
    path = chosen.out / "random.safetensors"
    if not path.is_file():
        torch.manual_seed(0)
        save_default(PromptsegModel(PromptsegConfig()), path, {"data": "none: random weights"})
    return str(path)


def source_adapter(chosen: argparse.Namespace, pairs: Sequence[Pair]) -> Adapter:
    """Trained at the source site; gone on with where it stood."""
    whole = {"encoder": "full"} if chosen.model == "random" else {}
    config = FinetuneConfig(
        organ="heart",
        backbone=base_of(chosen),
        label_names={1: "right ventricle", 2: "myocardium", 3: "left ventricle"},
        minutes=chosen.minutes,
        validation_share=0.0,
        final_slices=0,
        validation_slices=0,
        unprompted=0.7,
        dense=1.0,
        prompts=1,
        half=0.8 if chosen.size is None else 0.0,
        input_size=chosen.size,
        targets="attention_all+mlp+convolutions",
        **whole,
    )
    images, labels = [p.image for p in pairs], [p.label for p in pairs]
    return train_adapter(config, images, labels, chosen.out / "shift" / "source", resume=True)  # type: ignore[arg-type]


def with_adapter(chosen: argparse.Namespace, adapter: Adapter) -> Segmenter:
    """The base at the size that is measured, with an adapter in use."""
    segmenter = Segmenter(load_backbone(base_of(chosen), input_size=chosen.size))
    segmenter.adapters.add(adapter)
    segmenter.adapters.use(adapter.name)
    return segmenter


def scanner(data: np.ndarray, seed: int) -> np.ndarray:
    """Another scanner: gamma, a smooth field over the coil, blur and noise."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    shares = data.astype(np.float32) / 255
    slope = np.linspace(0.7, 1.3, shares.shape[0])[:, None, None]
    changed = ndimage.gaussian_filter(shares, (0.8, 0.8, 0)) ** 0.7 * slope
    noisy = changed + rng.normal(0, 0.03, shares.shape)
    return np.clip(noisy * 255, 0, 255).astype(np.uint8)


def target_pairs(chosen: argparse.Namespace) -> list[Pair]:
    """Patients 21 to 40, or 61 to 80 as another scanner would show them."""
    if not chosen.scanner:
        return acdc(chosen.data, 21, 40)
    made = []
    for number, pair in enumerate(acdc(chosen.data, 61, 80)):
        path = chosen.out / "scanner" / f"{pair.name}.nii.gz"
        if not path.is_file():
            volume = pair.load().volume
            ps.write(ps.Volume(scanner(volume.data, number), volume.affine, "MR"), path)
        made.append(Pair(pair.name, path, pair.label))
    return made


def run_shift(chosen: argparse.Namespace) -> None:
    """Source ACDC 61 to 80, target 21 to 40: a fifth annotated by every strategy, three seeds."""
    source, target = acdc(chosen.data, 61, 80), target_pairs(chosen)
    pool, test = target[: len(target) * 3 // 4], target[len(target) * 3 // 4 :]
    adapter = source_adapter(chosen, source)
    segmenter = with_adapter(chosen, adapter)
    looker = Looker(segmenter)
    images = {p.name: Path(str(p.image)) for p in source}
    slices = collected(looker, images, read_image, "slice", None, True)
    reference = make_reference(slices, model_name(segmenter))
    save_reference(reference, chosen.out / "shift" / "reference.safetensors")
    place = chosen.out / "shift" / ("scanner" if chosen.scanner else "patients")
    pooled = {p.name: Path(str(p.image)) for p in pool}
    jobs = [(name, seed) for seed in SEEDS for name in (*chosen.strategies, "all")]
    for name, seed in jobs:
        annotated = list(pooled)
        if name != "all":
            picked = select(looker, pooled, read_image, strategy(name), "20%", "case",
                            reference, seed)  # fmt: skip
            annotated = [choice.sample.case for choice in picked.chosen]
        held = [*[p for p in pool if p.name in annotated], *test]
        job = Job(
            {**pooled, **{p.name: Path(str(p.image)) for p in test}},
            {p.name: Path(str(p.label)) for p in held},
            annotated,
            adapter,
            config_from(adapter, steps=chosen.steps, seed=seed),
            place / f"{name}_{seed}",
        )
        kept(place / f"{name}_{seed}.json", lambda j=job: adapt(j)["dice"])


def run_federated(chosen: argparse.Namespace) -> None:
    """Four sites, ACDC's diagnoses, five rounds; beside it all cases pooled and each site alone."""
    place = chosen.out / "federated"
    sites = [acdc(chosen.data, first, first + 15) for first in (1, 21, 41, 61)]
    test = [p for first in (17, 37, 57, 77) for p in acdc(chosen.data, first, first + 3)]
    start = read_adapter(chosen.start) if chosen.start else source_adapter(chosen, sites[3][:2])
    adapter = start
    for number in range(1, chosen.rounds + 1):
        folder = place / "rounds" / f"{number}"
        if not (folder / "promptseg.json").is_file():
            replies = []
            for name, pairs in enumerate(sites):
                site = Site([p.image for p in pairs], [p.label for p in pairs],  # type: ignore[arg-type]
                            place / f"site{name}")  # fmt: skip
                options = {"steps": chosen.steps, "seed": number, "warmup": chosen.steps // 8}
                replies.append(Reply(str(name), *one_round(site, adapter, options)))
            write_adapter(with_update(adapter, average(replies, update_of(adapter)).update), folder)
        adapter = read_adapter(folder)
        report(place / f"round{number}.json", chosen, adapter, test)
    every = [p for pairs in sites for p in pairs]
    for name, pairs in {"pooled": every, **{f"alone{n}": p for n, p in enumerate(sites)}}.items():
        config = config_from(start, steps=chosen.steps * chosen.rounds)
        images, labels = [p.image for p in pairs], [p.label for p in pairs]
        one = train_adapter(config, images, labels, place / name, resume=True, start=start)  # type: ignore[arg-type]
        report(place / f"{name}.json", chosen, one, test)


def report(path: Path, chosen: argparse.Namespace, adapter: Adapter, test: Sequence[Pair]) -> None:
    """Mean Dice on the pooled validation set."""

    def measured() -> dict[str, float]:
        segmenter = with_adapter(chosen, adapter)
        labels = list(adapter.info.labels)
        return {"dice": float(np.mean([answer_dice(segmenter, p, labels) for p in test]))}

    kept(path, measured)


PARTS = {"learn": run_learn, "loop": run_loop, "versions": run_versions, "shift": run_shift,
         "federated": run_federated}  # fmt: skip


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/active"))
    parser.add_argument("--counts", type=int, nargs="+", default=[3, 1, 5])
    parser.add_argument("--seconds", type=float, default=24.0, help="of session.learn()")
    parser.add_argument("--cases", type=int, default=30, help="of the loop")
    parser.add_argument("--steps", type=int, default=150, help="of a training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="random")
    parser.add_argument("--size", type=int, help="side of the network's input; its own without")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the source's adapter")
    parser.add_argument("--start", type=Path, help="adapter that the sites begin with; without, "
                        "one is trained on one patient")  # fmt: skip
    parser.add_argument("--scanner", action="store_true", help="a simulated scanner change")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    chosen = parser.parse_args()
    PARTS[chosen.part](chosen)


if __name__ == "__main__":
    main()
