"""`promptseg weights`: list, info, pull, verify, convert."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from promptseg.commands.parsing import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the five actions."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    def action(name: str, summary: str, act: Any) -> argparse.ArgumentParser:
        sub = actions.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        sub.set_defaults(act=act)
        add_json(sub)
        return sub

    action("list", "every model known by name, and which are here", _list)
    action("info", "all that is known of one model", _info).add_argument("name", metavar="NAME")
    action("pull", "fetch one model, checked", _pull).add_argument("name", metavar="NAME")
    verify = action("verify", "compare the files here with their digests", _verify)
    verify.add_argument("name", metavar="NAME", nargs="?", help="one model; default all")
    convert = action("convert", "rewrite a checkpoint as safetensors", _convert)
    convert.add_argument("file", metavar="FILE", type=Path)
    convert.add_argument(
        "-o", "--output", metavar="OUT", type=Path, help="default: FILE with .safetensors"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    return int(arguments.act(arguments))


def _record(name: str) -> dict[str, Any]:
    from promptseg.weights.registry import locate, lookup

    path = locate(name)
    return {**asdict(lookup(name)), "path": None if path is None else str(path)}


def _list(arguments: argparse.Namespace) -> int:
    from promptseg.weights.registry import registry

    records = [_record(name) for name in registry()]
    if arguments.json:
        print_json({"weights": records})
        return 0
    rows = [("name", "family", "MB", "licence", "file")]
    rows += [
        (
            record["name"],
            record["family"],
            _megabytes(record["size"], record["path"]),
            record["licence"],
            record["path"] or ("not downloaded" if record["url"] else "missing"),
        )
        for record in records
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for *cells, last in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), last)
    return 0


def _megabytes(size: int | None, path: str | None) -> str:
    if size is None and path is not None:
        size = Path(path).stat().st_size
    return "?" if size is None else f"{size / 1e6:.0f}"


def _info(arguments: argparse.Namespace) -> int:
    from promptseg.weights.registry import recorded

    record = _record(arguments.name)
    if record["sha256"] is None and record["path"] is not None:
        record["sha256"] = recorded(Path(record["path"]))
    if arguments.json:
        print_json(record)
        return 0
    for key, value in record.items():
        print(f"{key + ':':<13} {'unknown' if value is None else value}")
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    from promptseg.weights.registry import lookup, pull

    path = pull(arguments.name)
    if arguments.json:
        print_json(_record(arguments.name))
    else:
        print(f"{path} (licence: {lookup(arguments.name).licence})")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from promptseg.weights.registry import verify

    results = verify(arguments.name)
    if arguments.json:
        print_json({"weights": [{**asdict(one), "path": _text(one.path)} for one in results]})
    else:
        for one in results:
            print(f"{one.status:<10}  {one.name:<16}  {_text(one.path) or ''}".rstrip())
    return int(any(one.status == "mismatch" for one in results))


def _convert(arguments: argparse.Namespace) -> int:
    from promptseg.weights.registry import convert

    out = convert(arguments.file, arguments.output or arguments.file.with_suffix(".safetensors"))
    if arguments.json:
        print_json({"output": str(out)})
    else:
        print(out)
    return 0


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
