"""`promptseg loop`: a project that learns from the corrections that are made anyway."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.parsing import UsageError, add_json, print_json
from promptseg.commands.progress import Bars

if TYPE_CHECKING:
    from promptseg.active.loop.project import Project
    from promptseg.session import Segmenter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    _add_init(_action(actions, "init", "make a project of a folder of images"))
    shown = _action(actions, "next", "open the next case, with its prediction and a slice")
    shown.add_argument("--case", metavar="NAME", help="this one instead")
    _device(shown)
    accept = _action(actions, "accept", "take the corrected mask of a case")
    accept.add_argument("case", metavar="CASE")
    accept.add_argument("mask", metavar="MASK", type=Path, help="on the grid of the image")
    accept.add_argument("--seconds", metavar="S", type=float, help="default: since it was opened")
    accept.add_argument(
        "--shown", metavar="MASK", type=Path, help="what was corrected (default: the prediction)"
    )
    accept.add_argument("--again", action="store_true", help="replace what was accepted before")
    accept.add_argument("--empty", action="store_true", help="nothing is there, and that is right")
    reject = _action(actions, "reject", "leave a case out")
    reject.add_argument("case", metavar="CASE")
    reject.add_argument("--reason", metavar="WORDS", default="")
    train = _action(actions, "train", "a new version from all accepted cases; goes on after a kill")
    length = train.add_mutually_exclusive_group()
    length.add_argument("--steps", metavar="N", type=int, help="default: 300")
    length.add_argument("--minutes", metavar="M", type=float)
    train.add_argument("--batch", metavar="N", type=int)
    train.add_argument("--rank", metavar="R", type=int, help="of a first version")
    train.add_argument("--rate", metavar="R", type=float)
    train.add_argument("--precision", metavar="auto|fp32|bf16")
    _device(train)
    told = _action(actions, "status", "counts, versions and how much had to be revised")
    told.add_argument("--cases", action="store_true", help="a line for every case")
    revert = _action(actions, "revert", "use an earlier version; none is deleted")
    revert.add_argument("version", metavar="VERSION", type=int)


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    parser.add_argument("project", metavar="PROJECT", type=Path)
    parser.add_argument("--who", metavar="NAME", help="default: the user of this machine")
    add_json(parser)
    return parser


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="auto|cpu|cuda", default="auto")


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", metavar="DIR", type=Path, required=True)
    parser.add_argument("--organ", metavar="WORDS", required=True, help="what is segmented")
    parser.add_argument("--model", metavar="NAME", default="default", help="base")
    parser.add_argument("--adapter", metavar="NAME|PATH", help="to begin with")
    parser.add_argument(
        "--label",
        metavar="N=WORDS",
        action="append",
        default=[],
        help="name of a label (default: label 1 is the organ)",
    )
    parser.add_argument(
        "--hold", metavar="N", type=int, default=4, help="every N-th case measures, 0 none"
    )
    parser.add_argument(
        "--order", metavar="NAME", default="name", help="name, or a strategy of `promptseg select`"
    )
    parser.add_argument("--reference", metavar="FILE", type=Path, help="for --order stdr")


def run(arguments: argparse.Namespace) -> int:
    """Do one action."""
    who = arguments.who or getpass.getuser()
    if arguments.action == "init":
        return _init(arguments, who)
    from promptseg.active.loop.project import Project

    project = Project(arguments.project, who)
    try:
        return int(ACTIONS[arguments.action](arguments, project))
    finally:
        project.store.close()


def _init(arguments: argparse.Namespace, who: str) -> int:
    from promptseg.active.loop.making import make_project
    from promptseg.adapters import read_adapter

    adapter = None if arguments.adapter is None else read_adapter(arguments.adapter)
    project = make_project(
        arguments.project,
        arguments.images,
        arguments.organ,
        who,
        model=arguments.model,
        labels=_labels(arguments.label),
        adapter=adapter,
        held_every=arguments.hold,
        order=arguments.order,
        reference=arguments.reference,
    )
    count = project.store.run("SELECT COUNT(*) AS n FROM cases")[0]["n"]
    _tell(arguments, {"project": str(arguments.project), "cases": count},
          f"{arguments.project} made: {count} cases")  # fmt: skip
    return 0


def _labels(given: list[str]) -> dict[int, str] | None:
    named = {}
    for text in given:
        number, _, words = text.partition("=")
        if not number.strip().isdecimal() or int(number) < 1 or not words.strip():
            raise UsageError(f"--label is {text!r}: give N=WORDS such as 1='left atrium'")
        named[int(number)] = words.strip()
    return named or None


def _next(arguments: argparse.Namespace, project: Project) -> int:
    from promptseg.active.loop.showing import show_next

    with Bars() as bars:
        shown = show_next(project, _segmenter(arguments, project), arguments.case, bars)
    if shown is None:
        _tell(arguments, {"case": None}, "no case is left")
        return 0
    lines = [f"{shown.name}: {shown.image}"]
    if shown.mask is not None:
        lines.append(f"prediction of version {shown.version}: {shown.mask}")
        lines.append(f"expected revision {shown.effort:.0f} %")
        if shown.slice is not None:
            lines.append(f"look at slice {shown.slice} along axis {shown.axis}: {shown.reason}")
    else:
        lines.append("nothing was learned yet: segment it with prompts, then accept the mask")
    _tell(arguments, shown.to_dict(), "\n".join(lines))
    return 0


def _segmenter(arguments: argparse.Namespace, project: Project) -> Segmenter:
    from promptseg.session import Segmenter

    return Segmenter.from_pretrained(project.store.setting("model"), device=arguments.device)


def _accept(arguments: argparse.Namespace, project: Project) -> int:
    done = project.accept(
        arguments.case,
        arguments.mask,
        arguments.seconds,
        shown=arguments.shown,
        again=arguments.again,
        empty=arguments.empty,
    )
    shown = "" if done.revision is None else f", revised by {done.revision:.1f} %"
    spent = "" if done.seconds is None else f" in {done.seconds:.0f} s"
    held = "; kept for measuring" if done.held else ""
    _tell(arguments, vars(done), f"{done.name} accepted{spent}{shown}{held}")
    return 0


def _reject(arguments: argparse.Namespace, project: Project) -> int:
    project.reject(arguments.case, arguments.reason)
    _tell(arguments, {"name": arguments.case}, f"{arguments.case} left out")
    return 0


def _train(arguments: argparse.Namespace, project: Project) -> int:
    from promptseg.active.loop.training import train

    names = ("steps", "minutes", "batch", "rank", "rate", "device", "precision")
    options = {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
    with Bars() as bars:
        version = train(project, progress=bars, **options)
    if version is None:
        _tell(arguments, {"version": None}, "nothing was accepted since the current version")
        return 0
    measured = "no held-back case to measure on"
    if version.dice is not None:
        before = "" if version.before is None else f", {version.before:.3f} before"
        measured = f"Dice {version.dice:.3f} on held-back cases{before}"
    kept = "in use" if version.kept else "not better: the version before stays in use"
    _tell(arguments, vars(version), f"version {version.number} of {version.cases} cases: "
          f"{measured}; {kept}")  # fmt: skip
    return 0


def _status(arguments: argparse.Namespace, project: Project) -> int:
    from promptseg.active.loop.making import status

    found = status(project)
    lines = [f"{found['organ']}: " + ", ".join(f"{n} {k}" for k, n in found["cases"].items())]
    lines += [f"open with {row['holder']}: {row['name']}" for row in found["open"]]
    for row in found["versions"]:
        dice = "not measured" if row["dice"] is None else f"Dice {row['dice']:.3f}"
        used = " (in use)" if row["number"] == found["current"] else ""
        lines.append(f"version {row['number']}: {dice}{used}")
    lines += [f"training of version {n} was interrupted: `train` goes on" for n in
              found["unfinished"]]  # fmt: skip
    revised = [row["revision"] for row in found["accepted"] if row["revision"] is not None]
    if revised:
        lines.append(f"revised by {sum(revised) / len(revised):.1f} % on average")
    if arguments.cases:
        rows = project.store.run("SELECT name, status FROM cases ORDER BY name")
        lines += [f"{row['name']}: {row['status']}" for row in rows]
        found["list"] = {row["name"]: row["status"] for row in rows}
    _tell(arguments, found, "\n".join(lines))
    return 0


def _revert(arguments: argparse.Namespace, project: Project) -> int:
    project.revert(arguments.version)
    _tell(arguments, {"version": arguments.version}, f"version {arguments.version} is in use")
    return 0


def _tell(arguments: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    if arguments.json:
        print_json(content)
    else:
        print(text)


ACTIONS = {
    "next": _next,
    "accept": _accept,
    "reject": _reject,
    "train": _train,
    "status": _status,
    "revert": _revert,
}
