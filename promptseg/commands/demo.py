"""`promptseg demo`: the web page."""

from __future__ import annotations

import argparse
import logging
import os
import re
from pathlib import Path

from promptseg.commands.job import PRECISIONS
from promptseg.commands.parsing import UsageError, note

LOCAL = "127.0.0.1"
PORT = 7860
_UNITS = {"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 for a free one")
    parser.add_argument(
        "--host", default=LOCAL, help="address to listen on; others than this machine's need "
        "--password"
    )  # fmt: skip
    parser.add_argument(
        "--password",
        metavar="WORD",
        help="ask visitors for it, with any user name (or set $PROMPTSEG_PASSWORD, which other "
        "users of this machine cannot see)",
    )
    parser.add_argument(
        "--max-upload", metavar="SIZE", default="1GB", help="largest upload, such as 500MB"
    )
    parser.add_argument("--memory", metavar="SIZE", default="8GB", help="for the visitors' images")
    parser.add_argument("--idle-minutes", type=float, default=30.0, metavar="N",
                        help="forget a visitor's image after this long")  # fmt: skip
    parser.add_argument("--keep-hours", type=float, default=24.0, metavar="N",
                        help="keep prompts and masks, not images, on this machine's disk this "
                        "long; 0 keeps nothing (default 24)")  # fmt: skip
    parser.add_argument(
        "--project", type=Path, action="append", default=[], metavar="DIR",
        help="offer this project of `promptseg loop init`; may be repeated",
    )  # fmt: skip
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="default", metavar="NAME|PATH", help="chosen at first")
    group.add_argument("--adapter", metavar="NAME", help="chosen at first")
    group.add_argument("--device", default="auto", metavar="auto|cpu|cuda")
    group.add_argument("--precision", choices=PRECISIONS, default="auto")


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    password = arguments.password or os.environ.get("PROMPTSEG_PASSWORD")
    if arguments.host not in (LOCAL, "localhost", "::1") and not password:
        raise UsageError(
            f"--host {arguments.host} can be reached by others: give --password, or stay on {LOCAL}"
        )
    if not 0 <= arguments.port <= 65535:
        raise UsageError(f"--port is {arguments.port}: give 0 to 65535")
    upload, memory = parse_size(arguments.max_upload), parse_size(arguments.memory)
    if not arguments.idle_minutes > 0:
        raise UsageError(f"--idle-minutes is {arguments.idle_minutes}: give a positive number")
    if not arguments.keep_hours >= 0:
        raise UsageError(f"--keep-hours is {arguments.keep_hours}: give 0 or more")
    from promptseg.demo.cases.projects import Projects
    from promptseg.demo.keeping import Keeper, works_folder
    from promptseg.demo.launch import serve
    from promptseg.demo.models import Models
    from promptseg.demo.server import Server
    from promptseg.demo.visits import Visits

    logging.getLogger("httpx").setLevel(logging.WARNING)
    projects = Projects(arguments.project)
    server = Server(
        Models(arguments.device, arguments.precision, (arguments.model, *projects.models)),
        Visits(
            max_bytes=memory,
            idle_seconds=60 * arguments.idle_minutes,
            model=arguments.model,
            adapter=arguments.adapter,
        ),
        Keeper(works_folder() if arguments.keep_hours else None, arguments.keep_hours),
        projects,
        upload,
    )
    try:
        blocks, address = serve(server, arguments.host, arguments.port, password, block=False)
        note(f"the demo is at {address} (Ctrl+C stops it)")
        blocks.block_thread()
    finally:
        server.close()
    return 0


def parse_size(text: str) -> int:
    """Bytes of `500MB`, `1.5GB` or a plain number.

    Raises:
        UsageError: It is no size above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]b)?\s*", text.lower())
    size = 0 if found is None else int(float(found[1]) * _UNITS[found[2] or ""])
    if size < 1:
        raise UsageError(f"size is {text!r}: give a number with KB, MB or GB, such as 500MB")
    return size
