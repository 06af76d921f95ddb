"""`promptseg select`: which cases of a site are worth annotating."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.commands.job import add_model_options, load_segmenter, model_choices
from promptseg.commands.parsing import UsageError, add_json, note, print_json
from promptseg.commands.progress import Bars

if TYPE_CHECKING:
    from promptseg.active.looking import Looker
    from promptseg.active.reference import Reference
    from promptseg.active.selecting import Selection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--images", metavar="DIR", type=Path, required=True, help="unlabelled")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        required=True,
        help="list as .json or .csv, a picture is drawn beside it; or the references",
    )
    _add_choosing(parser.add_argument_group("choosing"))
    _add_source(parser.add_argument_group("source site"))
    add_model_options(parser)
    add_json(parser)


def _add_choosing(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--budget", metavar="20%|N", default="20%", help="how many (default: 20%%)")
    group.add_argument(
        "--strategy",
        metavar="NAME",
        default="stdr",
        help="stdr (default), stdr-similar, stdr-dissimilar, random, least-confidence, margin, "
        "entropy, cluster, uncertainty",
    )
    group.add_argument("--by", choices=("case", "slice"), default="case", help="what is ranked")
    group.add_argument(
        "--slices",
        metavar="N",
        type=int,
        help="slices of a case to look at (default: 24; all with --by slice)",
    )
    group.add_argument("--seed", metavar="N", type=int, default=0)


def _add_source(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--make-reference",
        action="store_true",
        help="write the reference vectors of these images instead of choosing",
    )
    group.add_argument("--k", metavar="N", type=int, default=10, help="vectors (default: 10)")
    group.add_argument(
        "--reference",
        metavar="FILE",
        type=Path,
        help="what the source site made with --make-reference",
    )


def run(arguments: argparse.Namespace) -> int:
    """Rank and choose, or write the references of a source site."""
    from promptseg.active.strategies import UNCERTAINTY, strategy
    from promptseg.datasets.cohort import case_files

    chosen = strategy(arguments.strategy)
    if arguments.slices is not None and arguments.slices < 1:
        raise UsageError(f"--slices is {arguments.slices}: give at least 1")
    images = case_files(arguments.images)
    segmenter = load_segmenter(model_choices(arguments))
    from promptseg.active.looking import SLICES, Looker

    every = arguments.by == "slice" or arguments.make_reference
    slices = arguments.slices or (None if every else SLICES)
    wanted = UNCERTAINTY in chosen.needs and not arguments.make_reference
    looker = Looker(segmenter, slices, wanted)
    if arguments.make_reference:
        return _make_reference(arguments, looker, images)
    return _select(arguments, looker, images)


def _make_reference(arguments: argparse.Namespace, looker: Looker, images: dict[str, Path]) -> int:
    from promptseg.active.reference import make_reference, save_reference
    from promptseg.active.selecting import collected, model_name
    from promptseg.datasets.cohort import read_image

    with Bars() as bars:
        slices = collected(looker, images, read_image, "slice", None, True, bars)
    reference = make_reference(slices, model_name(looker.segmenter), arguments.k, arguments.seed)
    save_reference(reference, arguments.output)
    told = {"vectors": len(reference.vectors), "slices": reference.slices, "cases": reference.cases}
    if arguments.json:
        print_json({"reference": str(arguments.output), **told})
    else:
        print(f"{arguments.output} written: {told['vectors']} vectors of {told['slices']} slices "
              f"of {told['cases']} cases")  # fmt: skip
    return 0


def _select(arguments: argparse.Namespace, looker: Looker, images: dict[str, Path]) -> int:
    from promptseg.active.picture import save_map
    from promptseg.active.selecting import check_needs, save_selection, select
    from promptseg.active.strategies import strategy
    from promptseg.datasets.cohort import read_image

    chosen = strategy(arguments.strategy)
    reference = _reference(arguments, looker)
    check_needs(chosen, looker.segmenter, reference)
    with Bars() as bars:
        selection = select(
            looker,
            images,
            read_image,
            chosen,
            arguments.budget,
            arguments.by,
            reference,
            arguments.seed,
            bars,
        )
    save_selection(selection, arguments.output)
    picture = arguments.output.with_suffix(".png")
    drawn = save_map(selection, picture, reference)
    _say(arguments, selection, picture if drawn else None)
    return 0


def _reference(arguments: argparse.Namespace, looker: Looker) -> Reference | None:
    from promptseg.active.reference import load_reference
    from promptseg.active.selecting import model_name

    if arguments.reference is None:
        return None
    return load_reference(arguments.reference, model_name(looker.segmenter))


def _say(arguments: argparse.Namespace, selection: Selection, picture: Path | None) -> None:
    if arguments.json:
        print_json({**selection.to_dict(), "picture": None if picture is None else str(picture)})
        return
    for choice in selection.chosen:
        score = "" if choice.score is None else f"  {choice.score:.4g}"
        print(f"{choice.sample.name}{score}  {choice.reason}")
    shown = "" if picture is None else f"; {picture} shows where they lie"
    note(
        f"{len(selection.chosen)} of {len(selection.samples)} written to {arguments.output}{shown}"
    )
