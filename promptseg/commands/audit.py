"""`promptseg audit`: is the log whole, and what made a mask."""

from __future__ import annotations

import argparse
from pathlib import Path

from promptseg.commands.parsing import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("verify", help="follow the chain of an audit log")
    check.add_argument("log", metavar="LOG", type=Path, help="file that PROMPTSEG_AUDIT named")
    check.add_argument(
        "--head", metavar="SHA256", help="digest that the log must hold, noted at an earlier check"
    )
    add_json(check)
    show = actions.add_parser("show", help="which software, model and adapters made a mask")
    show.add_argument("mask", metavar="MASK", type=Path, help="a saved mask, in any format")
    add_json(show)


def run(arguments: argparse.Namespace) -> int:
    """Verify or show; 1 for a log that is broken."""
    return _verify(arguments) if arguments.action == "verify" else _show(arguments)


def _verify(arguments: argparse.Namespace) -> int:
    from promptseg.report.audit import verify

    verdict = verify(arguments.log, arguments.head)
    faults = list(verdict.faults)
    if arguments.json:
        print_json(
            {
                "whole": not faults,
                "entries": verdict.entries,
                "head": verdict.head,
                "faults": faults,
                "remarks": list(verdict.remarks),
            }
        )
        return int(bool(faults))
    for line in [*faults, *verdict.remarks]:
        print(line)
    if not faults:
        print(f"whole: {verdict.entries} entries, the last with digest {verdict.head}")
    return int(bool(faults))


def _show(arguments: argparse.Namespace) -> int:
    from promptseg.io.provenance import in_words, read_provenance

    found = read_provenance(arguments.mask)
    if arguments.json:
        print_json(found)
        return 0
    print(in_words(found))
    for step in found.get("postprocessing", []):
        print(f"post-processing: {step}")
    return 0
