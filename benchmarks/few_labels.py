"""Few labels and further images: the comparison of the thesis's chapter 5 on left atria.

    OMP_NUM_THREADS=1 python benchmarks/few_labels.py --labelled 16 --minutes 20

Learns the first 8 or 16 cases with labels and cases 17-56 without, and measures Dice of cases
57-68 with no prompt (benchmarks/splits/left_atrium.json). `--network default` adapts the shipped
model; `vnet` is MONAI's V-Net from scratch on blocks, the thesis's own setting, and wants a GPU.
Every method is a file and a line; a second call goes on where the first was stopped. `--on
development` measures on the first of the unlabelled cases instead, to choose how to train.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptseg.backbones import load_backbone
from promptseg.evaluate import evaluate
from promptseg.finetune.case_loading import organ_cases, training_cases, unlabelled_cases
from promptseg.finetune.config import OPTIMISERS, FinetuneConfig, load_recipe
from promptseg.finetune.data import Sources, split_cases
from promptseg.finetune.objectives import objective_class
from promptseg.finetune.running import train_adapter
from promptseg.finetune.yardsticks.comparing import Line, case_scores, run_lines, summary
from promptseg.finetune.yardsticks.networks import vnet
from promptseg.finetune.yardsticks.plain import PlainNetwork
from promptseg.finetune.yardsticks.predicting import block_labels
from promptseg.finetune.yardsticks.sampling import BlockSampler, shrunk
from promptseg.finetune.yardsticks.training import PlainTrainer, Schedule
from promptseg.session import Segmenter

HERE = Path(__file__).resolve().parent
SPLIT = HERE / "splits" / "left_atrium.json"
RECIPE = HERE.parent / "adapters" / "left_atrium" / "recipe.toml"
METHODS = ("supervised", "semi", "entropy", "consistency", "mean_teacher", "uncertain_teacher",
           "cps", "fixmatch")  # fmt: skip
# The thesis slides by 18 x 18 x 4 of 112 x 112 x 80 voxels; this overlap costs a GPU seconds.
OVERLAP = 0.5


def files(chosen: argparse.Namespace, role: str, kind: str = "images") -> list[Path]:
    """Images or labels of a part of the split."""
    split = json.loads(SPLIT.read_text())
    names = split["unlabelled" if (role, chosen.on) == ("test", "development") else role]
    limits = {"labelled": chosen.labelled, "test": chosen.eval_cases}
    return [chosen.data / kind / f"{name}.nii.gz" for name in names[: limits.get(role)]]


def sources(chosen: argparse.Namespace, objective: str) -> Sources:
    """What a method learns from."""
    further = objective_class(objective).uses_unlabelled
    return Sources(
        files(chosen, "labelled"),
        files(chosen, "labelled", "labels"),
        unlabelled=files(chosen, "unlabelled") if further else None,
    )


def config(chosen: argparse.Namespace, method: str) -> FinetuneConfig:
    """The shipped recipe with another objective and length, and nothing set aside."""
    length = {"steps": chosen.steps} if chosen.steps else {"minutes": chosen.minutes}
    recipe = load_recipe(
        RECIPE,
        images="given",
        labels="given",
        objective=method,
        cases=None,
        final_slices=0,
        validation_slices=0,
        validation_share=0.0,
        # The coarse view has no part in answers without a prompt.
        three_d=False,
        seed=chosen.seed,
        device=chosen.device,
        optimiser=chosen.optimiser,
        batch=chosen.batch,
        **length,
    )
    return replace(recipe, validation_cases=None)


def adapter_line(chosen: argparse.Namespace, method: str) -> Line:
    """Teach the default model and measure it with no prompt."""
    recipe, base = config(chosen, method), load_backbone("default")
    folder = chosen.out / f"default_{method}_{chosen.labelled}"
    given = sources(chosen, method)
    adapter = train_adapter(
        recipe,
        given.images,
        given.labels,
        folder,
        unlabelled=given.unlabelled,
        resume=(folder / "training" / "last.pt").exists(),
        backbone=base,
    )
    segmenter = Segmenter(base, chosen.device)
    segmenter.adapters.add(adapter)
    segmenter.adapters.use(adapter.name)
    test = files(chosen, "test"), files(chosen, "test", "labels")
    found = evaluate(segmenter, *test, "auto", label=1, dims="3d").summary["dice"]
    return {"dice": found["mean"], "dice_std": found["std"], "n": found["n"],
            "labels": {"1": {"dice": found["mean"]}}, "steps": adapter.info.steps}  # fmt: skip


def vnet_line(chosen: argparse.Namespace, method: str) -> Line:
    """Train MONAI's V-Net from scratch on blocks and measure it by a sliding window."""
    recipe = config(chosen, method)
    split = split_cases(sources(chosen, method), recipe)
    # Distances are measured in 3D by the sampler, not within slices.
    cases = [shrunk(replace(c, levels=None), chosen.shrink) for c in training_cases(split, recipe)]
    further = [shrunk(case, chosen.shrink) for case in unlabelled_cases(split, recipe)]
    network = PlainNetwork(vnet, 1, chosen.seed)
    kind = objective_class(method)
    block = tuple(chosen.block)
    sampler = BlockSampler(cases, further, 1, block, False, chosen.seed,
                           kind.needs_levels)  # fmt: skip
    schedule = Schedule(chosen.steps, None if chosen.steps else chosen.minutes, 4,
                        seed=chosen.seed)  # fmt: skip
    file = chosen.out / f"vnet_{method}_{chosen.labelled}.pt"
    about = {"method": method, "block": list(block), "labelled": chosen.labelled,
             "shrink": chosen.shrink}  # fmt: skip
    trainer = PlainTrainer(network, kind(network), sampler, schedule, file, about)
    trainer.run(lambda row: print(method, json.dumps(row), flush=True))
    test = Sources(files(chosen, "test"), files(chosen, "test", "labels"))
    plain = replace(recipe, objective="supervised")
    scores = [
        case_scores(
            block_labels(network.body, case, block, OVERLAP, chosen.shrink), case.labels, [0]
        )
        for case in organ_cases(split_cases(test, plain).training, [1], plain)
    ]
    return {**summary(scores), "steps": trainer.step, "log": trainer.log}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/left_atrium"))
    parser.add_argument("--out", type=Path, default=Path("runs/few_labels"))
    parser.add_argument("--network", choices=("default", "vnet"), default="default")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--labelled", type=int, choices=(8, 16), default=16)
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, each method")
    parser.add_argument("--steps", type=int, help="in place of minutes")
    parser.add_argument("--block", type=int, nargs=3, default=(80, 112, 112), metavar="N",
                        help="of the V-Net, slices first")  # fmt: skip
    parser.add_argument("--shrink", type=int, default=1, metavar="N",
                        help="voxels of every side that are one for the V-Net: 2 with --block 40 "
                        "56 56 sees as much in an eighth of the time")  # fmt: skip
    parser.add_argument("--eval-cases", type=int, default=12)
    parser.add_argument("--on", choices=("test", "development"), default="test")
    parser.add_argument("--optimiser", choices=OPTIMISERS, default="auto", help="of adapters")
    parser.add_argument("--batch", type=int, default=4, help="of adapters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="of adapters")
    chosen = parser.parse_args()
    if chosen.on == "development" and chosen.methods != ["supervised"]:
        parser.error("development cases are among the unlabelled: --methods supervised")
    chosen.out.mkdir(parents=True, exist_ok=True)
    make: Any = adapter_line if chosen.network == "default" else vnet_line
    about = {"network": chosen.network, "labelled": chosen.labelled, "steps_asked": chosen.steps,
             "minutes": None if chosen.steps else chosen.minutes, "seed": chosen.seed,
             "eval_cases": chosen.eval_cases, "shrink": chosen.shrink,
             "on": chosen.on, "optimiser": chosen.optimiser, "batch": chosen.batch}  # fmt: skip
    names = {f"{chosen.network}_{method}_{chosen.labelled}": method for method in chosen.methods}
    run_lines(chosen.out, names, lambda name: make(chosen, names[name]), about)


if __name__ == "__main__":
    main()
