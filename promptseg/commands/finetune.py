"""`promptseg finetune`: teach a model an organ from images and labels, or repeat a recipe."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.parsing import UsageError, add_json, note, print_json
from promptseg.commands.progress import Bars
from promptseg.finetune.objectives import OBJECTIVES

if TYPE_CHECKING:
    from promptseg.adapters import Adapter
    from promptseg.finetune.config import FinetuneConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; each that is left out comes from the recipe or its default."""
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", type=Path, help="a recipe.toml")
    data = parser.add_argument_group("data")
    data.add_argument("--images", metavar="DIR")
    data.add_argument("--labels", metavar="DIR", help="matched by file name")
    data.add_argument("--scribbles", metavar="DIR", help="strokes in place of labels; --labels "
                      "then are those of validation cases")  # fmt: skip
    data.add_argument("--trust-voxels", action="store_true", default=None, help="match labels by "
                      "their place in the array, whatever the affines say")  # fmt: skip
    data.add_argument("--ignore", metavar="N", type=int, help="value of the voxels of scribbles "
                      "that nobody drew on")  # fmt: skip
    data.add_argument("--unlabelled", metavar="DIR", help="further images, without labels")
    data.add_argument("--unlabelled-cases", metavar="N|A-B", help="default: all of them")
    data.add_argument("--start", metavar="ADAPTER_DIR", help="go on from this adapter; strokes are "
                      "answered by it")  # fmt: skip
    data.add_argument("--label", metavar="N", type=int, help="default: every label found")
    data.add_argument("--organ", metavar="WORDS", help="what the adapter segments")
    data.add_argument("--cases", metavar="N|A-B", help="training cases in sorted order")
    data.add_argument("--validation-cases", metavar="A-B", help="default: a fifth, set aside")
    data.add_argument("--window", metavar="NAME|WIDTH,LEVEL")
    data.add_argument("--axis", metavar="AXIS")
    _add_training(parser.add_argument_group("training"))
    parser.add_argument(
        "-o", "--output", metavar="ADAPTER_DIR", type=Path, help="default: runs/ORGAN"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--dry-run", action="store_true", help="check the data, print the plan")
    add_json(parser)


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--objective", metavar="NAME", help=", ".join(OBJECTIVES))
    group.add_argument("--model", metavar="NAME", help="base, see `promptseg weights list`")
    group.add_argument("--rank", metavar="R", type=int)
    group.add_argument("--alpha", metavar="A", type=float)
    group.add_argument("--targets", metavar="NAMES", help="attention, attention_all, mlp, "
                       "convolutions; joined by +")  # fmt: skip
    group.add_argument("--encoder", metavar="HOW", help="lora, frozen or full")
    group.add_argument("--decoder", metavar="HOW", help="full, lora or frozen")
    group.add_argument("--dora", action="store_true", default=None)
    group.add_argument("--rslora", action="store_true", default=None)
    group.add_argument("--three-d", action="store_true", default=None,
                       help="teach the coarse 3D view too")  # fmt: skip
    group.add_argument("--loss", metavar="NAMES", help="such as dice+focal or dice+3*cross_entropy")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", metavar="N", type=int)
    length.add_argument("--minutes", metavar="M", type=float)
    group.add_argument("--batch", metavar="N", type=int, help="slices a step")
    group.add_argument("--optimiser", metavar="auto|muon|adamw", help="of parts trained whole")
    group.add_argument("--rate", metavar="R", type=float, help="learning rate")
    group.add_argument("--checkpointing", action="store_true", default=None)
    group.add_argument("--device", metavar="auto|cpu|cuda")
    group.add_argument("--precision", metavar="auto|fp32|bf16")
    group.add_argument("--workers", metavar="N", type=int)
    group.add_argument("--seed", metavar="N", type=int)


def run(arguments: argparse.Namespace) -> int:
    """Train, or print the plan."""
    config = build_config(arguments)
    images, labels = config.folders
    scribbles, unlabelled = config.sparse_folders
    if images is None or (labels is None and scribbles is None):
        raise UsageError(
            "give --images DIR and --labels DIR or --scribbles DIR, or a recipe that names them"
        )
    if arguments.dry_run:
        return _plan(config, arguments.json)
    from promptseg.finetune import default_folder
    from promptseg.finetune.running import train_adapter

    folder = arguments.output or default_folder(config.organ)
    with Bars() as bars:
        adapter = train_adapter(
            config,
            images,
            labels,
            folder,
            scribbles=scribbles,
            unlabelled=unlabelled,
            resume=arguments.resume,
            progress=bars if _first() else None,
            note=note if _first() else None,
        )
    if _first():
        _say(adapter, folder, arguments.json)
    return 0


def build_config(arguments: argparse.Namespace) -> FinetuneConfig:
    """The recipe, if there is one, under the options that were given.

    Raises:
        FormatError: A value cannot be.
        UsageError: There is no recipe and no organ.
    """
    from promptseg.finetune.config import checked, fitting_objective, load_recipe

    options = _options(arguments)
    if arguments.recipe is not None:
        return load_recipe(arguments.recipe, **options)
    if "organ" not in options:
        raise UsageError("give --organ WORDS, or a recipe")
    return checked(fitting_objective(options), "finetune")


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    from promptseg.finetune.config import FOLDERS

    skipped = ("recipe", "output", "resume", "dry_run", "json", "label", "model")
    given = {k: v for k, v in vars(arguments).items() if k not in skipped and v is not None}
    for name in FOLDERS:
        # The recipe is written elsewhere, and what it names is looked for from there.
        if name in given and Path(given[name]).exists():
            given[name] = str(Path(given[name]).resolve())
    if arguments.model is not None:
        given["backbone"] = arguments.model
    if arguments.label is not None:
        given["label_names"] = {arguments.label: arguments.organ or f"label {arguments.label}"}
    return given


def _plan(config: FinetuneConfig, as_json: bool) -> int:
    from promptseg.finetune.running import plan_adapter

    images, labels = config.folders
    scribbles, unlabelled = config.sparse_folders
    plan = plan_adapter(config, images or "", labels, scribbles=scribbles, unlabelled=unlabelled)
    if as_json:
        print_json({**plan.to_dict(), "labels": {str(k): v for k, v in plan.labels.items()}})
    else:
        print(plan)
    return 0


def _say(adapter: Adapter, folder: Path, as_json: bool) -> None:
    info = adapter.info
    if as_json:
        print_json({"folder": str(folder), "steps": info.steps, "scores": dict(info.scores),
                    "training_cases": len(info.training_cases),
                    "validation_cases": len(info.validation_cases)})  # fmt: skip
        return
    for way, by_label in info.scores.items():
        for label, scores in by_label.items():
            mean = scores["dice"]["mean"]
            shown = "-" if mean is None else f"{mean:.3f}"
            print(f"{way} {info.labels[int(label)]}: Dice {shown}")
    if not info.scores:
        note("nothing was measured: no validation case, or final_slices is 0")
    several = f" by {_processes()} processes" if _processes() > 1 else ""
    print(f"{folder} written: {info.steps} steps on {len(info.training_cases)} cases{several}")


def _first() -> bool:
    """True in the process that speaks, of those that `accelerate launch` or `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def _processes() -> int:
    """How many they started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
