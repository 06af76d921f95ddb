"""`promptseg pacs`: look into a PACS, fetch series, send results."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.commands.parsing import UsageError, add_json, print_json
from promptseg.commands.progress import Bars

if TYPE_CHECKING:
    from promptseg.io.pacs.entries import SeriesEntry

_DATES = re.compile(r"\d{8}|\d{8}-|-\d{8}|\d{8}-\d{8}")
_URL_HELP = "dicomweb://HOST[:PORT]/PATH or dimse://AETITLE@HOST:PORT, then /studies/UID/series/UID"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    find = actions.add_parser("list", help="series that a PACS holds")
    find.add_argument("url", metavar="URL", help=_URL_HELP)
    find.add_argument("--patient", metavar="ID", help="PatientID; * stands for anything")
    find.add_argument("--name", metavar="NAME", help="PatientName, such as Miller*")
    find.add_argument("--date", metavar="YYYYMMDD[-YYYYMMDD]", help="StudyDate or a range")
    find.add_argument("--modality", metavar="CT|MR|...", help="Modality")
    find.add_argument(
        "--keep-identifiers", action="store_true", help="show the patients' names as well"
    )
    add_json(find)
    get = actions.add_parser("get", help="fetch a series or a whole study into a folder")
    get.add_argument("url", metavar="URL", help=_URL_HELP)
    get.add_argument("-o", "--output", metavar="DIR", type=Path, required=True)
    add_json(get)
    put = actions.add_parser("put", help="send DICOM files, such as an RTSTRUCT or a SEG")
    put.add_argument("url", metavar="URL", help=_URL_HELP)
    put.add_argument("files", metavar="FILE|DIR", nargs="+", type=Path)
    add_json(put)


def run(arguments: argparse.Namespace) -> int:
    """List, get or put."""
    actions = {"list": _list, "get": _get, "put": _put}
    return actions[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from promptseg.io.pacs import parse_address
    from promptseg.io.pacs.exchange import connect

    if arguments.date and not _DATES.fullmatch(arguments.date):
        raise UsageError(f"--date is {arguments.date!r}: give 20260131 or 20260101-20260131")
    address = parse_address(arguments.url)
    wanted = {
        "PatientID": arguments.patient,
        "PatientName": arguments.name,
        "StudyDate": arguments.date,
        "Modality": arguments.modality,
        "StudyInstanceUID": address.study,
        "SeriesInstanceUID": address.series,
    }
    found = connect(address).find({key: value for key, value in wanted.items() if value})
    found.sort(key=lambda one: (one.patient, one.date, one.study, one.number or 0, one.series))
    if arguments.json:
        named = arguments.keep_identifiers
        print_json(
            [{**one.to_dict(named), "url": str(address.of(one.study, one.series))} for one in found]
        )
        return 0
    for one in found:
        print(_line(one, arguments.keep_identifiers))
        print(f"    {address.of(one.study, one.series)}")
    print(f"{len(found)} series")
    return 0


def _line(one: SeriesEntry, named: bool) -> str:
    who = f"{one.patient or 'no PatientID'}{f' ({one.name})' if named and one.name else ''}"
    number = "" if one.number is None else f"{one.number}: "
    described = f" {one.description!r}" if one.description else ""
    many = "" if one.instances is None else f", {one.instances} objects"
    return f"{who}, {one.date or 'no date'}, {number}{one.modality}{described}{many}"


def _get(arguments: argparse.Namespace) -> int:
    from promptseg.io.pacs import parse_address
    from promptseg.io.pacs.exchange import connect, fetch_series

    address = parse_address(arguments.url)
    if address.study is None:
        raise UsageError(f"{address}: name a study or a series: see promptseg pacs list {address}")
    target: Path = arguments.output
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not an empty folder: give another -o DIR")
    pacs = connect(address)
    wanted = {"StudyInstanceUID": address.study, "SeriesInstanceUID": address.series or ""}
    places = [address.of(one.study, one.series) for one in pacs.find(wanted)]
    if not places:
        raise UsageError(f"{address}: there is no such study or series")
    target.parent.mkdir(parents=True, exist_ok=True)
    counts = {}
    with (
        tempfile.TemporaryDirectory(prefix=".promptseg-", dir=target.parent) as folder,
        Bars() as bars,
    ):
        held = Path(folder) / "held"
        for number, place in enumerate(places, start=1):
            inside = held / f"{number:03d}" if len(places) > 1 else held
            inside.mkdir(parents=True)
            counts[str(place)] = fetch_series(
                pacs, place, inside, told=lambda done, total: bars("fetch", done, total or done)
            )
        if target.exists():
            target.rmdir()
        os.replace(held, target)
    if arguments.json:
        print_json({"folder": str(target), "objects": counts})
    else:
        print(f"{sum(counts.values())} objects of {len(counts)} series written to {target}")
    return 0


def _put(arguments: argparse.Namespace) -> int:
    from promptseg.io.pacs import parse_address
    from promptseg.io.pacs.exchange import connect, store_files

    address = parse_address(arguments.url)
    files = list(_dicom_files(arguments.files))
    stored = store_files(connect(address), address, files)
    if arguments.json:
        print_json({"stored": stored, "url": str(address)})
    else:
        print(f"{stored} objects stored in {address}")
    return 0


def _dicom_files(places: list[Path]) -> Iterator[Path]:
    """Every file given, and those of the folders; refuses what is no DICOM."""
    from promptseg.io.dicom.headers import is_dicom

    for place in places:
        if not place.exists():
            raise UsageError(f"{place}: no such file or folder")
        inside = sorted(path for path in place.rglob("*") if path.is_file())
        for path in inside if place.is_dir() else [place]:
            with path.open("rb") as stream:
                if not is_dicom(stream):
                    raise UsageError(f"{path} is no DICOM file: save results with --format seg")
            yield path
