"""`promptseg adapt`: an adapter for this site, from the cases that were annotated here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from promptseg.commands.parsing import UsageError, add_json, print_json
from promptseg.commands.progress import Bars

SHOWN = {
    "before": "before",
    "annotated": "after the annotated cases",
    "both": "after all cases",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--images", metavar="DIR", type=Path, required=True, help="of this site")
    parser.add_argument(
        "--annotated", metavar="FILE", type=Path, required=True, help="list of `promptseg select`"
    )
    parser.add_argument(
        "--labels",
        metavar="DIR",
        type=Path,
        required=True,
        help="of the annotated cases; further ones are measured on and never learned from",
    )
    parser.add_argument("--adapter", metavar="NAME|PATH", help="of the source site, to go on from")
    parser.add_argument("-o", "--output", metavar="ADAPTER_DIR", type=Path, required=True)
    group = parser.add_argument_group("training")
    group.add_argument("--model", metavar="NAME", help="base (default: the adapter's)")
    group.add_argument("--organ", metavar="WORDS", help="what is segmented, without --adapter")
    group.add_argument("--label", metavar="N", type=int, help="only this one, without --adapter")
    group.add_argument(
        "--objective", metavar="NAME", help="of the last stage: supervised (default), semi, ..."
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", metavar="N", type=int, help="of each stage (default: 300)")
    length.add_argument("--minutes", metavar="M", type=float, help="of each stage")
    group.add_argument("--batch", metavar="N", type=int)
    group.add_argument("--rate", metavar="R", type=float, help="learning rate (default: 3e-4)")
    group.add_argument("--rank", metavar="R", type=int, help="without --adapter")
    group.add_argument("--device", metavar="auto|cpu|cuda")
    group.add_argument("--precision", metavar="auto|fp32|bf16")
    group.add_argument("--seed", metavar="N", type=int)
    parser.add_argument("--resume", action="store_true", help="go on where a run stood")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the three stages and print Dice before and after."""
    from promptseg.active.adapting import STAGES, Job, adapt, config_from
    from promptseg.active.selecting import read_chosen
    from promptseg.adapters import read_adapter
    from promptseg.datasets.cohort import case_files

    if (arguments.output / STAGES).exists() and not arguments.resume:
        raise UsageError(
            f"{arguments.output} holds an adaptation: go on with --resume, or give another folder"
        )
    source = None if arguments.adapter is None else read_adapter(arguments.adapter)
    if source is None and arguments.organ is None:
        raise UsageError("give --adapter of the source site, or --organ WORDS to begin anew")
    chosen = read_chosen(arguments.annotated)
    images, labels = case_files(arguments.images), case_files(arguments.labels, "mask")
    config = config_from(source, **_options(arguments))
    job = Job(images, labels, chosen, source, config, arguments.output)
    job.split()
    with Bars() as bars:
        report = adapt(job, bars)
    _say(arguments, report)
    return 0


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("organ", "objective", "steps", "minutes", "batch", "rate", "rank", "device",
             "precision", "seed")  # fmt: skip
    given = {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
    if arguments.model is not None:
        given["backbone"] = arguments.model
    if arguments.label is not None:
        given["label_names"] = {arguments.label: arguments.organ or f"label {arguments.label}"}
    return given


def _say(arguments: argparse.Namespace, report: dict[str, Any]) -> None:
    if arguments.json:
        print_json({"folder": str(arguments.output), **report})
        return
    for stage, mean in report["dice"].items():
        shown = "nothing was measured" if mean is None else f"Dice {mean:.3f}"
        print(f"{SHOWN[stage]}: {shown}")
    counts = {name: len(report[name]) for name in ("annotated", "pseudo_labelled", "measured")}
    print(
        f"{arguments.output} written: {counts['annotated']} cases annotated, "
        f"{counts['pseudo_labelled']} pseudo-labelled, measured on {counts['measured']}"
    )
    dice, kept = report["dice"], report["written"]
    if kept != "both" and dice.get("both") is not None:
        print(f"it is the adapter {SHOWN[kept]}, which measured better")
    if dice.get("before") is not None and dice[kept] < dice["before"]:
        print("note: here the adapter of the source site measured better: go on with that, "
              "or annotate more cases")  # fmt: skip
