"""Learning the heart from scribbles: the comparison of the thesis's chapter 4 on ACDC.

    OMP_NUM_THREADS=1 python benchmarks/scribbles.py --minutes 30 --methods pce scribble

Learns the human scribbles of patients 1-70 and measures Dice of patients 71-80 with no prompt
(benchmarks/splits/acdc.json). `--network unet` is MONAI's U-Net from scratch, the thesis's own
setting; `scratch` is the default network's architecture from random weights; `default` adapts the
shipped model, which has seen labels of patients 1-70 and so says what a user gets, not what an
objective is worth, or with `--model` another one, such as one that was trained without ACDC
(`weights/train_default.py --without acdc`). `full` learns from whole labels and is the upper bound.
Every method is a file and a line; a second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from promptseg.backbones import load_backbone
from promptseg.backbones.base import Backbone
from promptseg.evaluate import evaluate
from promptseg.finetune.case_loading import organ_cases, training_cases
from promptseg.finetune.config import OPTIMISERS, FinetuneConfig, load_recipe
from promptseg.finetune.data import Sources, Split, split_cases
from promptseg.finetune.objectives import objective_class
from promptseg.finetune.organ_case import OrganCase
from promptseg.finetune.running import train_adapter
from promptseg.finetune.yardsticks.comparing import Line, case_scores, centred, run_lines, summary
from promptseg.finetune.yardsticks.networks import unet
from promptseg.finetune.yardsticks.plain import PlainNetwork
from promptseg.finetune.yardsticks.predicting import slice_labels
from promptseg.finetune.yardsticks.sampling import SliceSampler
from promptseg.finetune.yardsticks.training import PlainTrainer, Schedule
from promptseg.session import Segmenter

HERE = Path(__file__).resolve().parent
SPLIT = HERE / "splits" / "acdc.json"
RECIPE = HERE.parent / "adapters" / "cardiac" / "recipe.toml"
FULL = "full"
METHODS = ("pce", "scribble", "random_walker", "crf", "entropy", "consistency", "cps",
           "mean_teacher", "uncertain_teacher", FULL)  # fmt: skip
# What a network that takes prompts can learn from besides: its own answers to the strokes.
PROMPTED = "prompted"
LABELS = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
IGNORE = 4


def sources(chosen: argparse.Namespace, method: str, test: bool = False) -> Sources:
    """Files of the split: scribbles to learn from, labels to measure or for the upper bound."""
    names = json.loads(SPLIT.read_text())["test" if test else "train"]
    if test:
        names = names[: chosen.eval_cases]
    elif chosen.cases:
        names = names[: chosen.cases]
    files = {k: [chosen.data / k / f"{name}.nii.gz" for name in names]
             for k in ("images", "labels", "scribbles")}  # fmt: skip
    if method == FULL or test:
        return Sources(files["images"], files["labels"])
    return Sources(files["images"], None, files["scribbles"])


def config(chosen: argparse.Namespace, method: str, **further: Any) -> FinetuneConfig:
    """The shipped recipe with another objective and no validation cases."""
    full = method == FULL
    length = {"steps": chosen.steps} if chosen.steps else {"minutes": chosen.minutes}
    return load_recipe(
        RECIPE,
        images="given",
        labels="given",
        cases=f"1-{chosen.cases or 140}",
        validation_share=0.0,
        objective="supervised" if full else method,
        ignore=None if full else IGNORE,
        final_slices=0,
        validation_slices=0,
        seed=chosen.seed,
        device=chosen.device,
        optimiser=chosen.optimiser,
        batch=4,
        **length,
        **further,
    )


def opened(chosen: argparse.Namespace, method: str) -> tuple[Split, FinetuneConfig]:
    """Checked training cases; none are set aside, the test cases have their own labels."""
    recipe = replace(config(chosen, method), validation_cases=None)
    return split_cases(sources(chosen, method), recipe), recipe


@functools.cache
def held_out(data: Path, count: int, share: float) -> list[OrganCase]:
    """The test cases."""
    names = json.loads(SPLIT.read_text())["test"][:count]
    images, labels = ([data / k / f"{n}.nii.gz" for n in names] for k in ("images", "labels"))
    plain = FinetuneConfig(organ="heart", axis="axial", validation_share=0.0, label_names=LABELS)
    pairs = split_cases(Sources(images, labels), plain).training
    return [centred(case, share) for case in organ_cases(pairs, list(LABELS), plain)]


def unet_line(chosen: argparse.Namespace, method: str) -> Line:
    """Train MONAI's U-Net from scratch and measure it."""
    split, recipe = opened(chosen, method)
    cases = [centred(case, chosen.room) for case in training_cases(split, recipe)]
    network = PlainNetwork(unet, len(LABELS), chosen.seed)
    objective = objective_class(recipe.objective)(network)
    sampler = SliceSampler(cases, [], len(LABELS), chosen.size, split.strokes, chosen.seed)
    schedule = Schedule(chosen.steps, None if chosen.steps else chosen.minutes, chosen.batch,
                        seed=chosen.seed)  # fmt: skip
    trainer = PlainTrainer(
        network, objective, sampler, schedule, chosen.out / f"unet_{method}.pt",
        {"method": method, "size": chosen.size, "room": chosen.room, "cases": len(cases)},
    )  # fmt: skip
    trainer.run(lambda row: print(method, json.dumps(row), flush=True))
    places = list(range(len(LABELS)))
    scores = [
        case_scores(slice_labels(network.body, case, chosen.size), case.labels, places)
        for case in held_out(chosen.data, chosen.eval_cases, chosen.room)
    ]
    return {**summary(scores), "steps": trainer.step, "log": trainer.log}


def adapter_line(chosen: argparse.Namespace, method: str) -> Line:
    """Teach the default model, or its architecture from random weights, and measure it.

    A further round goes on from the adapter of the one before, which answers the strokes anew.
    """
    scratch: dict[str, Any] = {"encoder": "full", "decoder": "full", "average": 0.99}
    recipe = config(chosen, method, **(scratch if chosen.network == "scratch" else {}))
    recipe = replace(recipe, validation_cases=None)
    base = backbone(chosen)
    given = sources(chosen, method)
    adapter = None
    for number in range(1, chosen.rounds + 1):
        folder = chosen.out / line_name(chosen.network, method, number)
        adapter = train_adapter(
            recipe,
            given.images,
            given.labels,
            folder,
            scribbles=given.scribbles,
            resume=(folder / "training" / "last.pt").exists(),
            backbone=base,
            start=adapter,
        )
    assert adapter is not None
    segmenter = Segmenter(base, chosen.device)
    segmenter.adapters.add(adapter)
    segmenter.adapters.use(adapter.name)
    test = sources(chosen, method, test=True)
    report = evaluate(segmenter, test.images, test.labels, "auto", dims="3d")
    found = report.summary
    labels = {k: {"dice": v["dice"]["mean"]} for k, v in found["labels"].items()}
    return {"dice": found["dice"]["mean"], "dice_std": found["dice"]["std"], "labels": labels,
            "n": chosen.eval_cases, "steps": adapter.info.steps}  # fmt: skip


def line_name(network: str, method: str, number: int) -> str:
    """Of a line after so many rounds, and of its files."""
    return f"{network}_{method}" + (f"_{number}" if number > 1 else "")


def backbone(chosen: argparse.Namespace) -> Backbone:
    """The model to adapt; or its architecture with random weights."""
    if chosen.network == "default":
        return load_backbone(chosen.model)
    from promptseg.backbones.default import DefaultBackbone
    from promptseg.backbones.network import PromptsegConfig, PromptsegModel

    with torch.random.fork_rng():
        torch.manual_seed(chosen.seed)
        return DefaultBackbone(PromptsegModel(PromptsegConfig()), "scratch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/acdc"))
    parser.add_argument("--out", type=Path, default=Path("runs/scribbles"))
    parser.add_argument("--network", choices=("unet", "scratch", "default"), default="unet")
    parser.add_argument("--model", default="default", help="what `--network default` adapts")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=(*METHODS, PROMPTED),
        help="default all that the network can learn by",
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, each method")
    parser.add_argument("--rounds", type=int, default=1, help="of adapters, one from the other")
    parser.add_argument("--steps", type=int, help="in place of minutes")
    parser.add_argument("--batch", type=int, default=8, help="slices a step of the U-Net")
    parser.add_argument("--optimiser", choices=OPTIMISERS, default="auto", help="of adapters")
    parser.add_argument("--size", type=int, default=128, help="side of the U-Net's input")
    parser.add_argument("--room", type=float, default=0.75, help="part of a slice that it sees")
    parser.add_argument("--cases", type=int, help="training cases; default all of the split")
    parser.add_argument("--eval-cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="of adapters")
    chosen = parser.parse_args()
    if chosen.rounds < 1:
        parser.error(f"--rounds is {chosen.rounds}: give 1 or more")
    if chosen.rounds > 1 and chosen.network == "unet":
        parser.error("--rounds is of adapters: a U-Net learns once")
    able = METHODS if chosen.network == "unet" else (*METHODS, PROMPTED)
    methods = chosen.methods or able
    if not set(methods) <= set(able):
        parser.error(f"a U-Net answers no strokes: leave out {PROMPTED}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    make = unet_line if chosen.network == "unet" else adapter_line
    about = {"network": chosen.network, "model": chosen.model, "steps_asked": chosen.steps,
             "minutes": None if chosen.steps else chosen.minutes, "cases": chosen.cases,
             "seed": chosen.seed, "optimiser": chosen.optimiser,
             "eval_cases": chosen.eval_cases}  # fmt: skip
    names = {line_name(chosen.network, method, chosen.rounds): method for method in methods}
    run_lines(chosen.out, list(names), lambda name: make(chosen, names[name]), about)


if __name__ == "__main__":
    main()
