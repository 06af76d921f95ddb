"""`promptseg evaluate`: simulated users on a cohort, with files to read and to look at."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.job import AXES, add_model_options, load_segmenter, model_choices
from promptseg.commands.parsing import UsageError, add_json, note, print_json
from promptseg.commands.progress import Bars
from promptseg.commands.prompt_options import add_text_model
from promptseg.evaluate.settings import BASELINES, PROTOCOLS, REFINES, STARTS, Settings

# The others of `Settings` have the names of the command line's options.
OPTIONS = [item.name for item in fields(Settings) if item.name != "against"]

if TYPE_CHECKING:
    from promptseg.evaluate.reports import Report
    from promptseg.session import Segmenter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--images", metavar="DIR", type=Path, required=True, help="folder of images"
    )
    parser.add_argument(
        "--labels",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder of known labels, matched by file name",
    )
    parser.add_argument(
        "--label", metavar="N", type=int, help="only this label (default: every label in turn)"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder for cases.csv, summary.json and figures",
    )
    _add_user(parser.add_argument_group("simulated user"))
    _add_choice(parser.add_argument_group("what is evaluated"))
    add_model_options(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--no-figures", action="store_true", help="write the tables only")
    add_json(group)


def _add_user(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prompt",
        dest="protocol",
        choices=PROTOCOLS,
        default=Settings.protocol,
        help=f"what a user gives (default: {Settings.protocol})",
    )
    group.add_argument(
        "--dims",
        choices=("2d", "3d"),
        default=Settings.dims,
        help="each slice by itself (default), or the volume",
    )
    group.add_argument(
        "--clicks",
        metavar="N",
        type=int,
        default=Settings.clicks,
        help=f"clicks of --prompt clicks (default {Settings.clicks})",
    )
    group.add_argument(
        "--start",
        choices=STARTS,
        default=Settings.start,
        help="what comes before the clicks (default: point, the first click)",
    )
    group.add_argument(
        "--jitter",
        metavar="SHARE",
        type=float,
        default=Settings.jitter,
        help=f"how far a box's edges are off, as a share of its side (default {Settings.jitter})",
    )
    group.add_argument(
        "--text", metavar="WORDS", help="words of --prompt text (default: the adapter's labels)"
    )
    add_text_model(group)
    group.add_argument(
        "--scribbles", metavar="DIR", type=Path, help="human scribbles (default: simulated)"
    )
    group.add_argument(
        "--refine",
        nargs="?",
        choices=REFINES,
        const="graph_cut",
        default=Settings.refine,
        help="how clicks correct a volume: by graph cut, by the network (default), or by both",
    )
    group.add_argument("--seed", metavar="N", type=int, default=Settings.seed,
                       help=f"of all chance (default {Settings.seed})")  # fmt: skip


def _add_choice(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--cases", metavar="N|A-B", help="the first N cases in sorted order, or those from A to B"
    )
    group.add_argument(
        "--slices", metavar="N", type=int, help="in 2d, slices of a case and label (default: all)"
    )
    group.add_argument(
        "--min-pixels",
        dest="least_pixels",
        metavar="N",
        type=int,
        default=Settings.least_pixels,
        help="in 2d, leave out slices with fewer pixels of the label "
        f"(default {Settings.least_pixels})",
    )
    group.add_argument(
        "--trust-voxels",
        action="store_true",
        help="match labels by their place in the array, whatever the affines say",
    )
    group.add_argument("--axis", choices=AXES, default=Settings.axis, help="axis to slice along")
    group.add_argument(
        "--window", default=Settings.window, metavar="NAME|WIDTH,LEVEL", help="as of segment"
    )
    group.add_argument(
        "--against",
        nargs="+",
        default=[],
        choices=BASELINES,
        metavar="NAME",
        help=f"baselines on the same prompts: {', '.join(BASELINES)}",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and write the report."""
    from promptseg.datasets.cohort import load_cases, notes_of, parse_cases
    from promptseg.evaluate.running import opened
    from promptseg.evaluate.running import run as run_protocol

    settings = chosen_settings(arguments)
    cases = parse_cases(arguments.cases, "--cases")
    _check_output(arguments.output)
    trusted = arguments.trust_voxels
    pairs = opened(arguments.images, arguments.labels, settings, cases, trusted)
    for text in notes_of(pairs):
        note(text)
    segmenter = _segmenter(arguments)
    with Bars() as bars:
        report = run_protocol(segmenter, load_cases(pairs), settings, len(pairs), bars)
    report.save(arguments.output, figures=False)
    if not arguments.no_figures:
        _figures(report, arguments.output)
    if arguments.json:
        print_json(report.summary)
    else:
        print("\n".join([*lines(report), f"{arguments.output} written"]))
    return 0


def lines(report: Report) -> list[str]:
    """The summary for a person: one line a label, and one for each baseline."""
    summary = report.summary
    tables = {f"label {label}": table for label, table in summary["labels"].items()}
    if len(tables) > 1:
        tables["all"] = summary
    tables |= {f"against {name}": table for name, table in summary.get("against", {}).items()}
    return [f"{name}: {_measures(table)}" for name, table in tables.items()]


def _measures(table: dict[str, Any]) -> str:
    shown = {"Dice": "dice", "NSD 1 mm": "nsd_1mm", "HD95 mm": "hd95_mm", "ASSD mm": "assd_mm"}
    parts = []
    for name, key in shown.items():
        mean, std = table[key]["mean"], table[key]["std"]
        parts.append(f"{name} -" if mean is None else f"{name} {mean:.3f} ± {std:.3f}")
    if "dice_per_click" in table:
        curve = " ".join("-" if v is None else f"{v:.3f}" for v in table["dice_per_click"])
        parts.append(f"by click {curve}")
        best = len(table["dice_per_click"]) - 1
        for words, key in ((f"AUC of {best}", "dice_auc"), ("mean", "dice_mean_of_clicks")):
            parts.append(f"{words} {'-' if table[key] is None else format(table[key], '.3f')}")
    return f"{', '.join(parts)} (n {table['dice']['n']})"


def chosen_settings(arguments: argparse.Namespace) -> Settings:
    """The options of both groups, checked."""
    given = vars(arguments)
    return Settings(**{name: given[name] for name in OPTIONS}, against=tuple(arguments.against))


def _segmenter(arguments: argparse.Namespace) -> Segmenter:
    if arguments.text_model is not None and arguments.protocol != "text":
        raise UsageError("--text-model is given, but no words are: use --prompt text")
    if arguments.corrector is not None and arguments.refine == "network":
        raise UsageError("--corrector is given, but no click asks for it: use --refine both")
    return load_segmenter(model_choices(arguments))


def _check_output(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is a file: give a folder")


def _figures(report: Report, folder: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        note("no figures: they need matplotlib (pip install 'promptseg[train]')")
        return
    from promptseg.evaluate.figures import save_figures

    save_figures(report.rows, report.worst, folder)
